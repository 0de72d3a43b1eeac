//! The run queue by example and against a simple model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::code::{Code, GoingRun, Way};
use super::super::current::{BEGINS, Handing};
use super::super::spill::{Change, LeftOutput};
use super::*;
use crate::runner::held::{ALL, FULL, LEAST};
use crate::wire::reply::ConsoleItem;

fn now() -> Instant {
    Instant::now()
}

fn id(text: &str) -> RunId {
    RunId::new(text)
}

fn out(text: &'static str) -> Record {
    Record::Stdout(Bytes::from_static(text.as_bytes()))
}

fn done() -> Record {
    Record::Finished(Some(0))
}

fn begin(runs: &mut Runs, run: &str) -> Ticket {
    let ticket = runs.enter(&id(run), Entry::New).unwrap();
    assert_eq!(runs.turn(ticket), Turn::Start);
    start(runs, ticket);
    ticket
}

/// The caller begins its run, and the runner's task sends the code.
fn start(runs: &mut Runs, ticket: Ticket) {
    let code = Code::Query("code".to_owned());
    runs.reached();
    runs.prepared(ticket, code.clone());
    assert!(runs.started(ticket, now()));
    // No answers to questions are waited for so long.
    let sent = runs.hand_out(now() + Duration::from_secs(5));
    assert_eq!(sent, Handing::Send(Arc::new(code)));
    runs.code_left(now());
}

fn going(run: &str) -> GoingRun {
    GoingRun { run: Some(id(run)), ..GoingRun::default() }
}

fn answer(text: &str, status: RunStatus) -> Taken {
    Taken::Answer(vec![ConsoleItem::Stdout(text.into())], status)
}

#[test]
fn a_run_goes_from_its_first_call_to_its_end() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    runs.record(out("a"), now());
    assert_eq!(runs.take(first), Taken::Nothing);
    assert_eq!(runs.take_all(first), answer("a", RunStatus::Continued));
    runs.record(out("b"), now());
    let second = runs.enter(&id("r"), Entry::GoOn).unwrap();
    assert_eq!(runs.turn(second), Turn::Resume);
    assert!(runs.record(done(), now()));
    assert_eq!(runs.take(second), answer("b", RunStatus::Finished(Some(0))));
    assert_eq!(runs.enter(&id("r"), Entry::GoOn), Err(Refusal::Unknown(id("r"))));
}

#[test]
fn a_finished_run_gives_way_but_keeps_its_last_answer() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    runs.take_all(first);
    let second = runs.enter(&id("r2"), Entry::New).unwrap();
    assert_eq!(runs.turn(second), Turn::Wait);
    runs.record(out("late"), now());
    runs.record(done(), now());
    assert_eq!(runs.turn(second), Turn::Start);
    let back = runs.enter(&id("r1"), Entry::GoOn).unwrap();
    assert_eq!(runs.take(back), answer("late", RunStatus::Finished(Some(0))));
}

#[test]
fn so_many_wait_and_no_more_but_the_going_run_is_gone_on_with() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    let waiting: Vec<Ticket> =
        (0..MAX_WAITING).map(|n| runs.enter(&id(&format!("w{n}")), Entry::New).unwrap()).collect();
    let refused = runs.enter(&id("one-more"), Entry::New).unwrap_err();
    assert!(refused == Refusal::Full && refused.to_string().starts_with("256 runs"), "{refused}");
    runs.take_all(first);
    assert!(runs.enter(&id("r"), Entry::GoOn).is_ok() && runs.enter(&id("r"), Entry::New).is_ok());
    runs.leave(waiting[0]);
    assert!(runs.enter(&id("one-more"), Entry::New).is_ok());
}

#[test]
fn a_caller_that_goes_away_frees_its_place() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    let second = runs.enter(&id("r2"), Entry::New).unwrap();
    let third = runs.enter(&id("r3"), Entry::New).unwrap();
    assert_eq!(runs.enter(&id("r3"), Entry::GoOn), Err(Refusal::Waiting(id("r3"))));
    runs.leave(second);
    runs.record(done(), now());
    assert_eq!(runs.turn(third), Turn::Start);
    runs.leave(third);
    assert_eq!(runs.activity().run, None, "a run whose code was never sent is nobody's");
    assert_eq!(runs.take(first), Taken::Answer(vec![], RunStatus::Finished(Some(0))));
}

#[test]
fn a_close_answers_everybody_nil() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    let second = runs.enter(&id("r2"), Entry::New).unwrap();
    runs.close();
    assert_eq!((runs.take(first), runs.turn(second)), (Taken::Cut, Turn::Cut));
    let late = runs.enter(&id("r1"), Entry::GoOn).unwrap();
    assert_eq!(runs.turn(late), Turn::Cut);
}

#[test]
fn an_expired_run_is_told_so_before_the_close() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    runs.record(out("x"), now());
    runs.expire();
    runs.close();
    assert_eq!(runs.take(first), answer("x", RunStatus::ExecTimeout));
}

#[test]
fn a_run_left_by_an_earlier_agent_goes_on() {
    let mut runs = Runs::taken_over(Some(going("r")), vec![], now());
    runs.record(out("meanwhile"), now());
    let other = runs.enter(&id("q"), Entry::New).unwrap();
    assert_eq!(runs.turn(other), Turn::Wait);
    let back = runs.enter(&id("r"), Entry::GoOn).unwrap();
    runs.record(done(), now());
    assert_eq!(runs.take(back), answer("meanwhile", RunStatus::Finished(Some(0))));
}

/// A kernel of an agent that left no note: whether a run goes on there is found out, and which nobody knows.
#[test]
fn an_unrecorded_run_goes_to_the_first_that_asks() {
    let mut runs = Runs::taken_over(None, vec![], now());
    assert!(runs.doubt().is_some(), "the runner is asked");
    runs.record(out("meanwhile"), now());
    let next = runs.enter(&id("next"), Entry::New).unwrap();
    assert_eq!(runs.turn(next), Turn::Wait, "its output would be taken for the other's");
    let back = runs.enter(&id("any"), Entry::GoOn).unwrap();
    assert_eq!(runs.enter(&id("other"), Entry::GoOn), Err(Refusal::Unknown(id("other"))));
    assert_eq!(runs.enter(&id("next"), Entry::GoOn), Err(Refusal::Waiting(id("next"))));
    runs.record(done(), now());
    assert_eq!(runs.take(back), answer("meanwhile", RunStatus::Finished(Some(0))));
    assert_eq!(runs.enter(&id("any"), Entry::GoOn), Err(Refusal::Unknown(id("any"))));
    assert_eq!(runs.turn(next), Turn::Start);
}

#[test]
fn an_unrecorded_run_that_is_over_holds_nobody_up() {
    let over = || {
        let mut runs = Runs::taken_over(None, vec![], now());
        runs.record(Record::BuildFinished(Some(0)), now());
        runs.record(Record::BuildFinished(Some(0)), now());
        runs
    };
    let mut runs = over();
    assert_eq!(runs.activity(), Activity::default());
    let back = runs.enter(&id("any"), Entry::GoOn).unwrap();
    let Taken::Answer(console, status) = runs.take(back) else { panic!("no answer") };
    assert_eq!((console.len(), status), (1, RunStatus::Finished(None)));

    let mut runs = over();
    let fresh = begin(&mut runs, "new");
    assert!(runs.enter(&id("any"), Entry::GoOn).is_err(), "nobody came for it in time");
    runs.record(done(), now());
    assert_eq!(runs.take(fresh), Taken::Answer(vec![], RunStatus::Finished(Some(0))));
}

/// It stays nameless over a further end of the agent.
#[test]
fn an_unrecorded_run_is_noted_without_a_name() {
    let runs = Runs::taken_over(None, vec![], now());
    let activity = runs.activity();
    assert_eq!((activity.run, activity.in_use), (None, true));
    let mut next = Runs::taken_over(Some(activity.going), vec![], now());
    assert!(next.enter(&id("any"), Entry::GoOn).is_ok() && next.doubt().is_some());
}

#[test]
fn waiting_for_input_without_a_caller_is_no_use() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    assert!(runs.activity().in_use && runs.activity().running_since.is_some());
    runs.record(Record::WaitingInput(serde_json::json!({})), now());
    assert!(matches!(runs.take(first), Taken::Answer(_, RunStatus::WaitingInput(_))));
    assert!(!runs.activity().in_use && runs.activity().running_since.is_none());
    let second = runs.enter(&id("r"), Entry::GoOn).unwrap();
    runs.gave_input(second);
    assert!(runs.activity().in_use && runs.activity().running_since.is_some());
}

#[test]
fn a_full_buffer_stops_the_reading_until_somebody_collects() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    assert!(runs.record(Record::Stdout(vec![b'x'; FULL].into()), now()));
    assert!(!runs.may_read());
    runs.asking += 1;
    assert!(runs.may_read(), "completions come through the same socket");
    assert!(matches!(runs.take(first), Taken::Answer(_, RunStatus::Continued)));
    runs.asking -= 1;
    assert!(runs.may_read());
}

#[test]
fn among_many_that_print_a_buffer_is_full_sooner_and_stays_so_until_somebody_collects() {
    let all = Held::default();
    let filled = |bytes: usize| {
        let mut runs = Runs::default().among(&all);
        let caller = begin(&mut runs, "r");
        let wakes = runs.record(Record::Stdout(vec![b'x'; bytes].into()), now());
        (runs, caller, wakes)
    };
    let (alone, _, wakes) = filled(LEAST);
    assert!(!wakes && alone.may_read());
    let others: Vec<_> = (0..ALL / FULL).map(|_| filled(FULL)).collect();
    let (mut runs, caller, wakes) = filled(LEAST);
    assert!(wakes && runs.has_answer(caller) && !runs.may_read());
    drop(others);
    assert!(runs.has_answer(caller) && !runs.may_read(), "its caller and its reader see the same");
    assert!(matches!(runs.take(caller), Taken::Answer(_, RunStatus::Continued)));
    assert!(runs.may_read());
}

#[derive(Debug, Clone)]
enum Op {
    Enter(u8),
    Leave(u8),
    Finish,
}

proptest! {
    /// Whatever callers come and go, runs begin in the order their callers came, one at a time, each once.
    #[test]
    fn the_queue_is_fair_and_serial(ops in proptest::collection::vec(prop_oneof![
        (0u8..12).prop_map(Op::Enter), (0u8..12).prop_map(Op::Leave), Just(Op::Finish)], 0..60)) {
        let mut runs = Runs::default();
        let mut tickets: BTreeMap<u8, Ticket> = BTreeMap::new();
        let mut model: VecDeque<(Ticket, u8)> = VecDeque::new();
        let mut names: BTreeMap<Ticket, RunId> = BTreeMap::new();
        let mut sent = false;
        for op in ops {
            match op {
                Op::Enter(n) if !tickets.contains_key(&n) => {
                    let run = id(&format!("{n}.{}", names.len()));
                    let ticket = runs.enter(&run, Entry::New).unwrap();
                    names.insert(ticket, run);
                    tickets.insert(n, ticket);
                    model.push_back((ticket, n));
                }
                Op::Leave(n) => {
                    let Some(ticket) = tickets.remove(&n) else { continue };
                    runs.leave(ticket);
                    let is_front = model.front().is_some_and(|f| f.0 == ticket);
                    if !is_front || !sent {
                        model.retain(|(t, _)| *t != ticket);
                    }
                }
                Op::Finish if sent => {
                    runs.record(done(), now());
                    let (ticket, n) = model.pop_front().unwrap();
                    if tickets.get(&n) == Some(&ticket) {
                        tickets.remove(&n);
                        prop_assert_eq!(runs.take(ticket), Taken::Answer(vec![], RunStatus::Finished(Some(0))));
                    }
                    sent = false;
                }
                _ => {}
            }
            if let Some((front, _)) = model.front() {
                if !sent {
                    prop_assert_eq!(runs.turn(*front), Turn::Start);
                    start(&mut runs, *front);
                    sent = true;
                }
                prop_assert_eq!(runs.activity().run, names.get(front).cloned());
            } else {
                prop_assert_eq!(runs.activity().run, None);
            }
            for (later, _) in model.iter().skip(1) {
                prop_assert_eq!(runs.turn(*later), Turn::Wait);
            }
        }
    }
}

#[test]
fn a_run_that_waited_for_input_is_taken_over_as_that() {
    let mut runs = Runs::taken_over(Some(GoingRun { waits: true, ..going("r") }), vec![], now());
    let activity = runs.activity();
    assert!(activity.waits && !activity.in_use && activity.running_since.is_none());
    let ticket = runs.enter(&id("r"), Entry::GoOn).unwrap();
    runs.gave_input(ticket);
    assert!(runs.activity().running_since.is_some() && !runs.activity().waits);
}

#[test]
fn an_agent_that_stops_answers_who_follows_a_run_and_cuts_off_who_waits() {
    let mut runs = Runs::default();
    let follows = runs.enter(&id("a"), Entry::New).unwrap();
    let waits = runs.enter(&id("b"), Entry::New).unwrap();
    start(&mut runs, follows);
    runs.record(Record::Stdout(Bytes::from_static(b"so far")), now());
    assert!(!runs.has_answer(follows));
    runs.let_go();
    assert!(runs.has_answer(follows) && runs.turn(waits) == Turn::Cut);
    let expected = Taken::Answer(vec![ConsoleItem::Stdout("so far".to_owned())], RunStatus::Continued);
    assert_eq!(runs.take(follows), expected);
    assert_eq!(runs.activity().run, Some(id("a")), "the next agent goes on with it");
    let late = runs.enter(&id("c"), Entry::New).unwrap();
    assert_eq!(runs.turn(late), Turn::Cut);
}

/// A run whose code waits for a runner that was not reached yet.
fn begin_unreached(runs: &mut Runs, run: &str, code: &Code) -> Ticket {
    let ticket = runs.enter(&id(run), Entry::New).unwrap();
    runs.prepared(ticket, code.clone());
    assert!(runs.started(ticket, now()));
    assert_eq!(runs.hand_out(now()), Handing::Nothing);
    ticket
}

#[test]
fn code_that_can_t_leave_is_remembered_and_leaves_under_the_next_agent_once() {
    let code = Code::Query("code".to_owned());
    let mut runs = Runs::default();
    begin_unreached(&mut runs, "r", &code);
    let kept = runs.activity().going;
    assert_eq!(kept, GoingRun { way: Way::Kept(Some(Arc::new(code.clone()))), ..going("r") });
    assert!(runs.activity().running_since.is_none());

    let mut runs = Runs::taken_over(Some(kept), vec![], now());
    assert!(runs.doubt().is_none() && !runs.activity().in_use);
    assert_eq!(runs.hand_out(now()), Handing::Nothing, "not reached yet");
    runs.reached();
    assert_eq!(runs.hand_out(now()), Handing::Remember(id("r")));
    assert_eq!(runs.activity().going.way, Way::Leaving);
    assert_eq!(runs.hand_out(now()), Handing::Send(Arc::new(code)));
    assert_eq!(runs.hand_out(now()), Handing::Nothing, "once");
    runs.code_left(now());
    assert_eq!(runs.activity().going, going("r"));
    assert!(runs.activity().running_since.is_some() && runs.activity().in_use);
}

#[test]
fn a_run_whose_end_was_lost_is_answered_as_ended() {
    for way in [Way::Leaving, Way::Left] {
        let mut runs = Runs::taken_over(Some(GoingRun { way, ..going("r") }), vec![], now());
        runs.doubt().unwrap().asked(now());
        let next = runs.enter(&id("next"), Entry::New).unwrap();
        runs.record(out("from before"), now());
        runs.record(Record::Status, now());
        runs.record(Record::BuildFinished(Some(0)), now());
        assert_eq!(runs.turn(next), Turn::Wait);
        runs.record(Record::BuildFinished(Some(0)), now());
        assert_eq!(runs.turn(next), Turn::Start);
        let back = runs.enter(&id("r"), Entry::GoOn).unwrap();
        let Taken::Answer(items, RunStatus::Finished(None)) = runs.take(back) else { panic!("not ended") };
        let [ConsoleItem::Stdout(before), ConsoleItem::Stderr(why)] = &items[..] else { panic!("{items:?}") };
        assert!(before == "from before" && why.contains("restarted"), "{items:?}");
    }
}

#[test]
fn a_runner_that_says_nothing_holds_nobody_up() {
    let mut runs = Runs::taken_over(Some(going("r")), vec![], now());
    runs.doubt().unwrap().asked(now());
    assert!(runs.doubt_until().is_some());
    let next = runs.enter(&id("next"), Entry::New).unwrap();
    runs.silent(None, now());
    assert!(runs.doubt_until().is_none());
    start(&mut runs, next);
    // The old run's words come all the same, and the answers after them.
    for late in
        [out("old"), done(), Record::BuildFinished(Some(0)), Record::BuildFinished(Some(0)), out("new")]
    {
        runs.record(late, now());
    }
    runs.record(done(), now());
    assert_eq!(runs.take(next), answer("new", RunStatus::Finished(Some(0))));
}

#[test]
fn a_run_whose_connection_broke_is_asked_about_once_its_code_has_left() {
    let mut runs = Runs::default();
    assert!(!runs.connection_broke(now()), "nothing goes on");
    let first = begin(&mut runs, "r");
    assert!(runs.connection_broke(now()) && runs.connection_broke(now()), "again over each new connection");
    runs.doubt().unwrap().asked(now());
    runs.record(Record::BuildFinished(Some(0)), now());
    runs.record(Record::BuildFinished(Some(0)), now());
    let Taken::Answer(items, RunStatus::Finished(None)) = runs.take(first) else { panic!("not ended") };
    assert!(format!("{items:?}").contains("connection"), "{items:?}");

    let mut unsent = Runs::default();
    begin_unreached(&mut unsent, "q", &Code::Query("code".to_owned()));
    assert!(!unsent.connection_broke(now()), "its code leaves over the next one");
}

#[test]
fn the_next_run_is_heard_though_the_runner_was_given_up_and_starts_anew() {
    let mut runs = Runs::taken_over(Some(going("r")), vec![], now());
    runs.doubt().unwrap().asked(now());
    runs.silent(None, now());
    assert!(runs.connection_broke(now()), "the answers to the old questions never come");
    runs.doubt().unwrap().asked(now());
    let next = runs.enter(&id("next"), Entry::New).unwrap();
    start(&mut runs, next);
    let later = now() + Duration::from_secs(1);
    for record in [Record::BuildFinished(Some(0)), Record::BuildFinished(Some(0)), out("new"), done()] {
        runs.record(record, later);
    }
    assert_eq!(runs.take(next), answer("new", RunStatus::Finished(Some(0))));
}

/// A caller of a batch run, whose code is not handed out yet.
fn ask_batch(runs: &mut Runs) -> (Ticket, Arc<Code>) {
    let code = Code::Batch { clean: None, build: "b".to_owned(), exec: "e".to_owned() };
    let ticket = runs.enter(&id("next"), Entry::New).unwrap();
    assert_eq!(runs.turn(ticket), Turn::Start);
    runs.reached();
    runs.prepared(ticket, code.clone());
    assert!(runs.started(ticket, now()));
    (ticket, Arc::new(code))
}

fn answer_to_a_question(runs: &mut Runs) {
    runs.record(Record::BuildFinished(Some(0)), now());
}

/// The code waits for so many answers, and the run then has the end of its own build step.
fn next_waits_for(runs: &mut Runs, answers: usize) {
    let (next, code) = ask_batch(runs);
    for _ in 0..answers {
        assert_eq!(runs.hand_out(now()), Handing::Nothing);
        answer_to_a_question(runs);
    }
    assert_eq!((runs.held_until(now()), runs.hand_out(now())), (None, Handing::Send(code)));
    runs.code_left(now());
    runs.record(Record::BuildFinished(Some(7)), now());
    assert_eq!(runs.take(next), Taken::Answer(vec![], RunStatus::BuildFinished(Some(7))));
    let next = runs.enter(&id("next"), Entry::GoOn).unwrap();
    runs.record(done(), now());
    assert_eq!(runs.take(next), Taken::Answer(vec![], RunStatus::Finished(Some(0))));
}

#[test]
fn answers_to_questions_of_several_agents_are_not_the_next_run_s() {
    let first = Runs::taken_over(Some(going("r")), vec![], now());
    let noted = first.activity().going;
    assert_eq!(noted.answers, 2, "noted before they are asked");
    let mut second = Runs::taken_over(Some(noted.clone()), vec![], now());
    assert_eq!(second.activity().going.answers, 4);
    second.record(done(), now());
    assert_eq!(second.activity().going, GoingRun { answers: 4, ..GoingRun::default() });
    next_waits_for(&mut second, 4);

    // The run was over.
    let mut second = Runs::taken_over(Some(noted), vec![], now());
    answer_to_a_question(&mut second);
    answer_to_a_question(&mut second);
    next_waits_for(&mut second, 2);
}

#[test]
fn answers_that_are_left_of_a_run_that_has_ended_are_not_the_next_run_s() {
    let going = GoingRun { answers: 2, ..GoingRun::default() };
    let mut runs = Runs::taken_over(Some(going), vec![], now());
    assert!(runs.doubt().is_some(), "asked again, to know when all have come");
    next_waits_for(&mut runs, 4);
    assert_eq!(runs.activity().going, GoingRun::default());
}

#[test]
fn the_build_step_of_a_run_that_was_cut_off_behind_it_is_not_the_next_run_s() {
    let mut before = Runs::default();
    let (_, code) = ask_batch(&mut before);
    let noted = before.activity().going;
    assert_eq!((&noted.way, noted.answers), (&Way::Leaving, 1));
    assert_eq!(before.hand_out(now()), Handing::Send(code));
    let mut runs = Runs::taken_over(Some(noted.clone()), vec![], now());
    answer_to_a_question(&mut runs);
    answer_to_a_question(&mut runs);
    assert_eq!(runs.activity().run, None, "over");
    next_waits_for(&mut runs, 1);

    // All of it had left.
    let mut runs = Runs::taken_over(Some(noted), vec![], now());
    runs.record(Record::BuildFinished(Some(5)), now());
    runs.record(done(), now());
    next_waits_for(&mut runs, 2);
}

#[test]
fn code_waits_for_answers_that_never_come_for_a_moment() {
    let going = GoingRun { answers: 2, ..GoingRun::default() };
    let mut runs = Runs::taken_over(Some(going), vec![], now());
    let (_, code) = ask_batch(&mut runs);
    let until = runs.held_until(now()).unwrap();
    assert!(until <= now() + Duration::from_secs(2));
    assert_eq!(runs.hand_out(until), Handing::Send(code));
}

#[test]
fn code_that_is_too_large_to_be_kept_is_not_waited_for() {
    let going = GoingRun { way: Way::Kept(None), ..going("r") };
    let mut runs = Runs::taken_over(Some(going), vec![], now());
    let back = runs.enter(&id("r"), Entry::GoOn).unwrap();
    let Taken::Answer(items, RunStatus::Finished(None)) = runs.take(back) else { panic!("not ended") };
    assert!(format!("{items:?}").contains("too large"), "{items:?}");
    assert_eq!(runs.activity().run, None);
}

#[test]
fn an_interrupt_reaches_a_run_that_has_begun_and_ends_one_whose_code_has_not_left() {
    let (mut runs, start_of_test) = (Runs::default(), now());
    assert_eq!(runs.interrupt(start_of_test), Interrupt::Nothing);
    let first = begin(&mut runs, "r");
    let Interrupt::NotBefore(then) = runs.interrupt(now()) else { panic!("too early") };
    assert_eq!(runs.interrupt(then), Interrupt::Send);
    runs.record(done(), now());
    runs.take(first);

    let mut runs = Runs::default();
    let waits = begin_unreached(&mut runs, "q", &Code::Query("code".to_owned()));
    assert_eq!(runs.interrupt(now()), Interrupt::Nothing);
    let Taken::Answer(items, status) = runs.take(waits) else { panic!("not ended") };
    assert_eq!(status, RunStatus::Finished(Some(130)));
    assert_eq!(items, [ConsoleItem::Stderr("Interrupted before it began\n".to_owned())]);
    runs.reached();
    assert_eq!(runs.hand_out(now()), Handing::Nothing, "its code is gone");
}

#[test]
fn a_run_that_may_be_over_is_not_interrupted_before_that_is_known() {
    let mut runs = Runs::taken_over(Some(going("r")), vec![], now().checked_sub(BEGINS).unwrap());
    assert!(matches!(runs.interrupt(now()), Interrupt::NotBefore(_)), "not asked yet");
    let asked = now();
    runs.doubt().unwrap().asked(asked);
    let Interrupt::NotBefore(then) = runs.interrupt(asked) else { panic!("too early") };
    assert_eq!(runs.interrupt(then), Interrupt::Send, "it goes on");
    runs.record(Record::BuildFinished(Some(0)), now());
    runs.record(Record::BuildFinished(Some(0)), now());
    assert_eq!(runs.interrupt(then), Interrupt::Nothing, "it was over");
}

/// Whatever one life has on the disk, the next begins with.
fn next_life(runs: &mut Runs, disk: &mut BTreeMap<u64, LeftOutput>) -> Runs {
    write(runs, disk);
    Runs::taken_over(Some(runs.activity().going), disk.values().cloned().collect(), now())
}

fn write(runs: &mut Runs, disk: &mut BTreeMap<u64, LeftOutput>) {
    for Spilled { number, run, change } in runs.spill() {
        let left = disk.entry(number).or_insert_with(|| LeftOutput { number, run, records: vec![] });
        match change {
            Change::Append(records) => left.records.extend(records),
            Change::Replace(records) => left.records = records,
            Change::Remove => drop(disk.remove(&number)),
        }
    }
    assert!(!runs.has_to_spill());
}

#[test]
fn output_that_nobody_collected_is_collected_from_the_next_life() {
    let (mut runs, mut disk) = (Runs::default(), BTreeMap::new());
    let first = begin(&mut runs, "r1");
    runs.record(out("collected"), now());
    runs.take_all(first);
    runs.record(out("r1, "), now());
    runs.record(Record::Stdout(Bytes::from_static(b"\xe2\x82")), now());
    write(&mut runs, &mut disk);
    runs.record(Record::Stdout(Bytes::from_static(b"\xac")), now());
    runs.record(done(), now());
    let second = begin(&mut runs, "r2");
    runs.leave(second);
    runs.record(out("r2"), now());

    let mut runs = next_life(&mut runs, &mut disk);
    assert!(runs.doubt().is_some(), "r2 may go on");
    runs.record(out(" goes on"), now());
    let mut runs = next_life(&mut runs, &mut disk);
    let back = runs.enter(&id("r1"), Entry::GoOn).unwrap();
    assert_eq!(runs.take(back), answer("r1, \u{20ac}", RunStatus::Finished(Some(0))));
    runs.record(done(), now());
    let back = runs.enter(&id("r2"), Entry::GoOn).unwrap();
    write(&mut runs, &mut disk);
    assert_eq!(runs.take(back), answer("r2 goes on", RunStatus::Finished(Some(0))));
    // An answer that a kill keeps from arriving is there once more.
    let mut runs = next_life(&mut runs, &mut disk);
    let back = runs.enter(&id("r2"), Entry::GoOn).unwrap();
    assert_eq!(runs.take(back), answer("r2 goes on", RunStatus::Finished(Some(0))));
    begin(&mut runs, "next");
    write(&mut runs, &mut disk);
    assert_eq!(disk, BTreeMap::new(), "the next run shows that it arrived");
}

#[test]
fn output_that_is_collected_at_once_never_reaches_the_disk() {
    let mut runs = Runs::default();
    for run in ["a", "b"] {
        let ticket = begin(&mut runs, run);
        runs.record(out("x"), now());
        runs.record(done(), now());
        assert_eq!(runs.take(ticket), answer("x", RunStatus::Finished(Some(0))));
        assert_eq!(runs.spill(), []);
    }
}

#[test]
fn a_run_that_is_on_the_disk_and_not_in_the_memory_is_over() {
    for (going, over) in [(GoingRun::default(), true), (going("r"), false)] {
        let left = LeftOutput { number: 3, run: id("r"), records: vec![out("x")] };
        let mut runs = Runs::taken_over(Some(going), vec![left], now());
        assert_eq!(runs.activity().run.is_none(), over);
        let back = runs.enter(&id("r"), Entry::GoOn).unwrap();
        assert_eq!(matches!(runs.take(back), Taken::Answer(_, RunStatus::Finished(None))), over);
    }
    // The run's end was on the disk before the memory heard of it.
    let left = LeftOutput { number: 3, run: id("r"), records: vec![out("x"), done()] };
    let mut runs = Runs::taken_over(Some(going("r")), vec![left], now());
    assert!(runs.doubt().is_none() && runs.activity().run.is_none());
    let back = runs.enter(&id("r"), Entry::GoOn).unwrap();
    assert_eq!(runs.take(back), answer("x", RunStatus::Finished(Some(0))));
}

#[test]
fn a_kernel_that_goes_takes_its_output_off_the_disk() {
    let (mut runs, mut disk) = (Runs::default(), BTreeMap::new());
    let first = begin(&mut runs, "r");
    runs.leave(first);
    runs.record(out("x"), now());
    write(&mut runs, &mut disk);
    assert_eq!(disk.len(), 1);
    runs.close();
    write(&mut runs, &mut disk);
    assert_eq!(disk.len(), 0);
}
