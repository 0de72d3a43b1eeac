//! What became of a run while nobody listened: whether it goes on, or its end was lost with a connection, of an earlier agent or of
//! this one. Pure.
//!
//! A runner works in the order in which it is asked, so questions that it answers at once when it is idle tell: an empty
//! `build` waits behind the run and is answered by `build-finished`, without anything being built. The run's own records come
//! before these answers, if it goes on; if the answers come first, the run is over. A `status` is answered beside the work and
//! tells that there is a runner that answers at all.
//!
//! A run in batch mode has a `build-finished` of its own, so two questions are asked: two answers in a row, with no `finished`
//! between them or before, can't come from a run.
//!
//! Answers to questions of an earlier life or over a connection that broke, and that of a build step whose run never came, may come as
//! well. How many is counted, and noted for the next life. Code of the next run waits until all have come, for a moment: a
//! `build-finished` that comes later is its own.
//!
//! A runner that says nothing, or can't be reached, may be one that has no say: code that holds Python's interpreter lock lets
//! nobody answer. So before its run is given up it is looked at from outside whether the kernel's processes are at work.

use std::time::{Duration, Instant};

use crate::wire::command::Command;
use crate::wire::record::Record;

/// How long a runner that was asked, or can't be reached, may be silent before it is looked whether its kernel is at work.
pub(super) const SILENCE: Duration = Duration::from_secs(25);

/// How long that look takes. A silent runner whose kernel does nothing works for nobody: its run is taken for ended, so that it
/// holds up no other.
pub(super) const WATCHED: Duration = Duration::from_secs(5);

/// This part of a core is work, also where many others want the core; a runner that waits takes a twentieth of that.
const WORK: f64 = 0.02;

/// How long a runner may be silent whatever its kernel does: whoever waits for the next run has to get it once.
const LONGEST: Duration = Duration::from_secs(600);

/// How long a runner that is idle takes to answer, generously. Before that an interrupt might meet an idle one, which a
/// Python runner does not survive.
const ANSWERS: Duration = Duration::from_millis(500);

/// How long code waits for answers: a runner whose run is over gives them at once, unless it knows no `build`.
const HELD: Duration = Duration::from_secs(2);

/// How many questions are asked.
const ASKED: u8 = 2;

/// Why it isn't known what became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// An earlier life of the agent began it.
    Restart,
    /// A connection to its runner broke.
    Broken,
}

/// A run of which it isn't known whether it goes on, until it is known what became of it and every question is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    cause: Cause,
    /// How many `build-finished` came that may answer them.
    answered: u8,
    /// How many may come, with those to questions that were asked before.
    expected: u8,
    /// When as many had come as must.
    complete: Option<Instant>,
    /// The exit code in the last of them, which is the run's own if its end follows.
    build: Option<i64>,
    /// Since when it is known what became of the run; only answers are still to come then.
    settled: Option<Instant>,
    /// Whether the run's own records are too late: it was taken for ended.
    given_up: bool,
    /// When the questions left.
    asked: Option<Instant>,
    /// Whether the runner has said anything since.
    is_heard: bool,
    /// When the silence is looked into next.
    look: Instant,
    /// When it has lasted too long whatever the kernel does.
    last: Instant,
    /// What the kernel's processes had used of a core at the begin of a look; `None` between two looks.
    used: Option<Duration>,
}

/// What a record means for the run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// The record is the run's, or a later run's.
    Record(Record),
    /// The run's build step ended with this exit code, and the run itself as the record says.
    BuildAndEnd(Option<i64>, Record),
    /// The record is an answer, or belongs to a run that was given up.
    Nothing,
    /// The run is over, and its end was lost.
    Over,
}

impl Doubt {
    /// From now on. So many answers may come that are not to its questions.
    pub(super) fn new(cause: Cause, others: u8, now: Instant) -> Self {
        Self {
            cause,
            answered: 0,
            expected: ASKED.saturating_add(others),
            complete: None,
            build: None,
            settled: None,
            given_up: false,
            asked: None,
            is_heard: false,
            look: now + SILENCE,
            last: now + LONGEST,
            used: None,
        }
    }

    /// No run goes on, and so many answers may come: they are over when these questions are answered.
    pub(super) fn settled(others: u8, now: Instant) -> Self {
        Self { settled: Some(now), ..Self::new(Cause::Restart, others, now) }
    }

    /// How many answers may still come.
    pub(super) fn outstanding(&self) -> u8 {
        self.expected.saturating_sub(self.answered)
    }

    /// What the runner is to be asked.
    pub(super) fn questions() -> Vec<Command> {
        let builds = (0..ASKED).map(|_| Command::Build(String::new()));
        std::iter::once(Command::Status).chain(builds).collect()
    }

    /// The questions have left.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
        (self.look, self.used) = (now + SILENCE, None);
    }

    /// Why it stands.
    pub(super) fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether it is known what became of the run.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.is_some()
    }

    /// A connection broke, and the questions or their answers with it: they are asked anew.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let cause = self.cause;
        *self = Self {
            settled: self.settled,
            given_up: self.given_up,
            ..Self::new(cause, self.outstanding(), now)
        };
    }

    /// A record came.
    pub(super) fn hear(&mut self, record: Record, now: Instant) -> Heard {
        self.is_heard = true;
        match record {
            Record::Status => Heard::Nothing,
            Record::BuildFinished(code) => {
                self.build = code;
                self.answered = self.answered.saturating_add(1);
                if self.answered >= ASKED {
                    self.complete.get_or_insert(now);
                }
                let is_news = self.settled.is_none() && self.answered == ASKED;
                if is_news {
                    self.settled = Some(now);
                    return Heard::Over;
                }
                Heard::Nothing
            }
            // A later run's: what a run that was given up says comes before the answers.
            record if self.settled.is_some() && (!self.given_up || self.complete.is_some()) => {
                Heard::Record(record)
            }
            Record::Finished(_) => {
                self.settled.get_or_insert(now);
                // What came before the run's end was the end of its own build step.
                let built = std::mem::take(&mut self.answered);
                let has_built = built > 0;
                self.expected = self.expected.saturating_sub(built).max(ASKED);
                self.complete = None;
                match (self.given_up, has_built) {
                    (true, _) => Heard::Nothing,
                    (false, true) => Heard::BuildAndEnd(self.build, record),
                    (false, false) => Heard::Record(record),
                }
            }
            _ if self.given_up => Heard::Nothing,
            record => Heard::Record(record),
        }
    }

    /// Whether nothing is to come any more.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        let have_all_come = self.answered >= self.expected;
        self.is_settled() && (have_all_come || self.complete.is_some_and(|at| now >= at + ANSWERS))
    }

    /// Until when code of the next run waits at most; `None` when it may leave.
    pub(super) fn holds_until(&self, now: Instant) -> Option<Instant> {
        let settled = self.settled.filter(|_| !self.is_done(now))?;
        let asked = self.asked.map_or(settled, |asked| asked.max(settled));
        let until = self.complete.map_or(asked + HELD, |at| at + ANSWERS);
        (now < until).then_some(until)
    }

    /// Until when the runner has to say something, or its [silence](Self::silent) is to be looked into.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_heard && self.settled.is_none()).then_some(self.look)
    }

    /// From when on an interrupt would meet the run, if that goes on; `None` while the questions wait for a connection.
    pub(super) fn interruptible(&self) -> Option<Instant> {
        self.asked.map(|asked| asked + ANSWERS)
    }

    /// The runner has been silent until the [deadline](Self::deadline). `used`: the processor time that the kernel's processes
    /// have taken so far, if that can be told. Whether the run is taken for ended now.
    pub(super) fn silent(&mut self, used: Option<Duration>, now: Instant) -> bool {
        let is_given_up = match (self.used.take(), used) {
            (None, Some(used)) => {
                (self.look, self.used) = (now + WATCHED, Some(used));
                false
            }
            (Some(before), Some(used)) if used.saturating_sub(before) >= WATCHED.mul_f64(WORK) => {
                self.look = now + SILENCE;
                now >= self.last
            }
            _ => true,
        };
        if is_given_up {
            (self.settled, self.given_up) = (Some(now), true);
        }
        is_given_up
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// What is left of a run when the next agent comes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Left {
        Nothing,
        Step,
        BuildAndStep,
    }

    fn out(text: &str) -> Record {
        Record::Stdout(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// What a runner says that works in the order in which it is asked: the rest of the run, then the answers.
    fn runner(left: Left, status_at: usize) -> Vec<Record> {
        let mut said = Vec::new();
        if left == Left::BuildAndStep {
            said.extend([out("building"), Record::BuildFinished(Some(7))]);
        }
        if left != Left::Nothing {
            said.extend([out("running"), Record::Finished(Some(3))]);
        }
        // Answered beside the run, and before the questions behind it are even looked at.
        said.insert(status_at.min(said.len()), Record::Status);
        said.extend((0..ASKED).map(|_| Record::BuildFinished(Some(0))));
        said
    }

    fn cases() -> impl Strategy<Value = (Left, usize)> {
        let left = prop_oneof![Just(Left::Nothing), Just(Left::Step), Just(Left::BuildAndStep)];
        (left, 0..5_usize)
    }

    proptest! {
        #[test]
        fn the_runner_s_order_tells_what_became_of_the_run((left, status_at) in cases()) {
            let (mut doubt, mut heard) = (Doubt::new(Cause::Restart, 0, Instant::now()), Vec::new());
            for record in runner(left, status_at) {
                prop_assert!(!doubt.is_done(Instant::now()), "an answer is left for the next run");
                heard.extend(Some(doubt.hear(record, Instant::now())).filter(|heard| *heard != Heard::Nothing));
            }
            prop_assert!(doubt.is_done(Instant::now()));
            let end = Record::Finished(Some(3));
            let expected = match left {
                Left::Nothing => vec![Heard::Over],
                Left::Step => vec![Heard::Record(out("running")), Heard::Record(end)],
                Left::BuildAndStep => vec![
                    Heard::Record(out("building")),
                    Heard::Record(out("running")),
                    Heard::BuildAndEnd(Some(7), end),
                ],
            };
            prop_assert_eq!(heard, expected);
        }

        #[test]
        fn nothing_of_a_run_that_was_given_up_is_taken_for_the_next((left, status_at) in cases()) {
            let mut doubt = Doubt::new(Cause::Restart, 0, Instant::now());
            prop_assert!(doubt.silent(None, Instant::now()));
            for record in runner(left, status_at) {
                prop_assert!(!doubt.is_done(Instant::now()));
                prop_assert_eq!(doubt.hear(record, Instant::now()), Heard::Nothing);
            }
            prop_assert!(doubt.is_done(Instant::now()));
        }
    }

    #[test]
    fn a_runner_has_to_say_something_and_then_may_work_for_as_long_as_it_likes() {
        let now = Instant::now();
        let mut doubt = Doubt::new(Cause::Restart, 0, now);
        assert_eq!(doubt.deadline(), Some(now + SILENCE), "it may never be reached");
        doubt.asked(now + WATCHED);
        assert_eq!(doubt.deadline(), Some(now + WATCHED + SILENCE));
        doubt.hear(Record::Status, now);
        assert_eq!((doubt.deadline(), doubt.is_done(Instant::now())), (None, false));
    }

    /// The silence of a runner whose kernel takes this part of a core: how long it is borne.
    fn silence(part: f64) -> Duration {
        let begun = Instant::now();
        let mut doubt = Doubt::new(Cause::Restart, 0, begun);
        doubt.asked(begun);
        loop {
            let now = doubt.deadline().unwrap();
            let lasted = now - begun;
            if doubt.silent(Some(lasted.mul_f64(part)), now) {
                return lasted;
            }
        }
    }

    #[test]
    fn a_silent_runner_is_given_up_once_its_kernel_does_nothing_and_at_last_whatever_it_does() {
        assert_eq!(silence(0.0), SILENCE + WATCHED);
        assert_eq!(silence(0.01), SILENCE + WATCHED);
        let busy = silence(1.0);
        assert!(busy >= LONGEST && busy <= LONGEST + SILENCE + WATCHED, "{busy:?}");
        let mut unseen = Doubt::new(Cause::Restart, 0, Instant::now());
        assert!(unseen.silent(None, unseen.deadline().unwrap()), "an agent that can't look doesn't wait");
        assert_eq!(unseen.deadline(), None);
    }

    #[test]
    fn answers_to_questions_of_a_broken_connection_are_not_the_next_run_s() {
        let now = Instant::now();
        let mut doubt = Doubt::new(Cause::Broken, 0, now);
        doubt.asked(now);
        doubt.hear(Record::Status, now);
        doubt.ask_again(now);
        assert_eq!(
            doubt.deadline(),
            Some(now + SILENCE),
            "what was heard over the old connection is no answer"
        );
        let end = Record::Finished(Some(3));
        assert_eq!(doubt.hear(end.clone(), now), Heard::Record(end.clone()));
        for _ in 0..2 * ASKED {
            assert!(!doubt.is_done(now));
            assert_eq!(doubt.hear(Record::BuildFinished(Some(0)), now), Heard::Nothing);
        }
        assert_eq!(doubt.hear(end.clone(), now), Heard::Record(end), "the next run's");
        assert!(doubt.is_done(now + ANSWERS));
    }

    #[test]
    fn the_questions_tell_a_run_in_batch_mode_too() {
        let build = Command::Build(String::new());
        assert_eq!(Doubt::questions(), [Command::Status, build.clone(), build]);
    }
}
