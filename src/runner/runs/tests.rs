//! The run queue by example and against a simple model.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

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
    let ticket = runs.enter(&id(run), Entry::New, now()).unwrap();
    assert_eq!(runs.turn(ticket), Turn::Start);
    assert!(runs.started(ticket, now()));
    ticket
}

fn answer(text: &str, status: RunStatus) -> Taken {
    Taken::Answer(vec![ConsoleItem::Stdout(text.into())], status)
}

#[test]
fn a_run_goes_from_its_first_call_to_its_end() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    runs.record(out("a"));
    assert_eq!(runs.take(first), Taken::Nothing);
    assert_eq!(runs.take_all(first), answer("a", RunStatus::Continued));
    runs.record(out("b"));
    let second = runs.enter(&id("r"), Entry::GoOn, now()).unwrap();
    assert_eq!(runs.turn(second), Turn::Resume);
    assert!(runs.record(done()));
    assert_eq!(runs.take(second), answer("b", RunStatus::Finished(Some(0))));
    assert_eq!(runs.enter(&id("r"), Entry::GoOn, now()), Err(Refusal::Unknown(id("r"))));
}

#[test]
fn a_finished_run_gives_way_but_keeps_its_last_answer() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    runs.take_all(first);
    let second = runs.enter(&id("r2"), Entry::New, now()).unwrap();
    assert_eq!(runs.turn(second), Turn::Wait);
    runs.record(out("late"));
    runs.record(done());
    assert_eq!(runs.turn(second), Turn::Start);
    let back = runs.enter(&id("r1"), Entry::GoOn, now()).unwrap();
    assert_eq!(runs.take(back), answer("late", RunStatus::Finished(Some(0))));
}

#[test]
fn a_caller_that_goes_away_frees_its_place() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    let second = runs.enter(&id("r2"), Entry::New, now()).unwrap();
    let third = runs.enter(&id("r3"), Entry::New, now()).unwrap();
    assert_eq!(runs.enter(&id("r3"), Entry::GoOn, now()), Err(Refusal::Waiting(id("r3"))));
    runs.leave(second);
    runs.record(done());
    assert_eq!(runs.turn(third), Turn::Start);
    runs.leave(third);
    assert_eq!(runs.activity().run, None, "a run whose code was never sent is nobody's");
    assert_eq!(runs.take(first), Taken::Answer(vec![], RunStatus::Finished(Some(0))));
}

#[test]
fn a_close_answers_everybody_nil() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    let second = runs.enter(&id("r2"), Entry::New, now()).unwrap();
    runs.close();
    assert_eq!((runs.take(first), runs.turn(second)), (Taken::Cut, Turn::Cut));
    let late = runs.enter(&id("r1"), Entry::GoOn, now()).unwrap();
    assert_eq!(runs.turn(late), Turn::Cut);
}

#[test]
fn an_expired_run_is_told_so_before_the_close() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r1");
    runs.record(out("x"));
    runs.expire();
    runs.close();
    assert_eq!(runs.take(first), answer("x", RunStatus::ExecTimeout));
}

#[test]
fn a_run_left_by_an_earlier_agent_goes_on() {
    let mut runs = Runs::taken_over(Some((id("r"), false)), now());
    runs.record(out("meanwhile"));
    assert!(runs.is_running());
    let other = runs.enter(&id("q"), Entry::New, now()).unwrap();
    assert_eq!(runs.turn(other), Turn::Wait);
    let back = runs.enter(&id("r"), Entry::GoOn, now()).unwrap();
    runs.record(done());
    assert_eq!(runs.take(back), answer("meanwhile", RunStatus::Finished(Some(0))));
}

#[test]
fn an_unrecorded_run_goes_to_the_first_that_asks() {
    let mut runs = Runs::taken_over(None, now());
    runs.record(out("meanwhile"));
    runs.record(done());
    let back = runs.enter(&id("any"), Entry::GoOn, now()).unwrap();
    assert_eq!(runs.take(back), answer("meanwhile", RunStatus::Finished(Some(0))));
    assert!(runs.enter(&id("any"), Entry::GoOn, now()).is_err());

    let mut runs = Runs::taken_over(None, now());
    runs.record(out("old"));
    let fresh = begin(&mut runs, "new");
    runs.record(done());
    assert_eq!(runs.take(fresh), Taken::Answer(vec![], RunStatus::Finished(Some(0))));
}

#[test]
fn waiting_for_input_without_a_caller_is_no_use() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    assert!(runs.activity().in_use && runs.activity().running_since.is_some());
    runs.record(Record::WaitingInput(serde_json::json!({})));
    assert!(matches!(runs.take(first), Taken::Answer(_, RunStatus::WaitingInput(_))));
    assert!(!runs.activity().in_use && runs.activity().running_since.is_none());
    let second = runs.enter(&id("r"), Entry::GoOn, now()).unwrap();
    runs.gave_input(second);
    assert!(runs.activity().in_use && runs.activity().running_since.is_some());
}

#[test]
fn a_full_buffer_stops_the_reading_until_somebody_collects() {
    let mut runs = Runs::default();
    let first = begin(&mut runs, "r");
    assert!(runs.record(Record::Stdout(vec![b'x'; FULL].into())));
    assert!(!runs.may_read());
    runs.asking = true;
    assert!(runs.may_read(), "completions come through the same socket");
    assert!(matches!(runs.take(first), Taken::Answer(_, RunStatus::Continued)));
    runs.asking = false;
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
                    let ticket = runs.enter(&run, Entry::New, now()).unwrap();
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
                    runs.record(done());
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
                    assert!(runs.started(*front, now()));
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
    let mut runs = Runs::taken_over(Some((id("r"), true)), now());
    let activity = runs.activity();
    assert!(activity.waits && !activity.in_use && activity.running_since.is_none());
    let ticket = runs.enter(&id("r"), Entry::GoOn, now()).unwrap();
    runs.gave_input(ticket);
    assert!(runs.activity().running_since.is_some() && !runs.activity().waits);
}

#[test]
fn an_agent_that_stops_answers_who_follows_a_run_and_cuts_off_who_waits() {
    let mut runs = Runs::default();
    let follows = runs.enter(&id("a"), Entry::New, now()).unwrap();
    let waits = runs.enter(&id("b"), Entry::New, now()).unwrap();
    assert!(runs.started(follows, now()));
    runs.record(Record::Stdout(Bytes::from_static(b"so far")));
    assert!(!runs.has_answer(follows));
    runs.let_go();
    assert!(runs.has_answer(follows) && runs.turn(waits) == Turn::Cut);
    let expected = Taken::Answer(vec![ConsoleItem::Stdout("so far".to_owned())], RunStatus::Continued);
    assert_eq!(runs.take(follows), expected);
    assert_eq!(runs.activity().run, Some(id("a")), "the next agent goes on with it");
    let late = runs.enter(&id("c"), Entry::New, now()).unwrap();
    assert_eq!(runs.turn(late), Turn::Cut);
}
