//! The run that an earlier life of the agent left, or one whose connection broke, until it is known what became of it. Pure;
//! `doubt` has what its runner's words mean.

use std::time::{Duration, Instant};

use super::{Course, Runs};
use crate::ids::RunId;
use crate::runner::code::{GoingRun, Way};
use crate::runner::current::Current;
use crate::runner::doubt::{Cause, Doubt, Heard};
use crate::runner::kept::Kept;
use crate::runner::output::Output;
use crate::runner::spill::LeftOutput;
use crate::wire::record::Record;

/// What is told of a run whose end nobody heard.
fn lost_end(cause: Cause) -> &'static str {
    match cause {
        Cause::Restart => {
            "the agent was restarted while this run began or ended: its exit code and its last output are not known"
        }
        Cause::Broken => {
            "the connection to the kernel's runner broke while this run began or ended: its exit code and its last output are not known"
        }
    }
}

/// What is told of a run whose runner is silent.
fn silenced(cause: Cause) -> &'static str {
    match cause {
        Cause::Restart => {
            "the agent was restarted while this run went on, and its runner does not answer any more"
        }
        Cause::Broken => {
            "the connection to the kernel's runner broke while this run went on, and the runner does not answer any more"
        }
    }
}

impl Runs {
    /// A queue whose kernel an earlier agent left, with what that remembered of the run that goes on, and the output of runs
    /// that it had read and nobody had collected. Without a memory, a run may go on whose id nobody knows.
    #[must_use]
    pub fn taken_over(going: Option<GoingRun>, mut left: Vec<LeftOutput>, now: Instant) -> Self {
        let kept = Kept::after(left.iter().map(|left| left.number).max().unwrap_or(0));
        let mut runs = Self { kept, ..Self::default() };
        let answers = going.as_ref().map_or(0, |going| going.answers);
        // Whatever becomes of the run: the next one must not get them.
        runs.doubt = (answers > 0).then(|| Doubt::settled(answers, now));
        let going = going.unwrap_or_else(|| {
            runs.kept.forget(left.drain(..).map(|left| (left.number, left.run)));
            GoingRun { run: Some(RunId::unnamed()), ..GoingRun::default() }
        });
        for LeftOutput { number, run, records } in left {
            let output = Output::restored(records);
            let (is_over, is_going) = (output.has_finished(), going.run.as_ref() == Some(&run));
            runs.current = Some(Current::taken_over(run, output, number, now));
            if is_over {
                runs.park();
            } else if !is_going {
                runs.end(lost_end(Cause::Restart));
            }
        }
        let Some(run) = going.run else { return runs };
        if runs.current.is_none() && runs.parked.iter().any(|parked| parked.run == run) {
            // The run's end was on the disk already, and not yet in the memory.
            return runs;
        }
        let number = runs.kept.next_number();
        let current =
            runs.current.get_or_insert_with(|| Current::taken_over(run, Output::default(), number, now));
        current.wants_input = going.waits;
        match going.way {
            Way::Kept(None) => drop(runs.end(
                "the agent was restarted before this code could leave, and the code was too large to be kept; run it again",
            )),
            Way::Kept(Some(code)) => current.code_kept(code),
            Way::Leaving | Way::Left => runs.doubt = Some(Doubt::new(Cause::Restart, answers, now)),
        }
        runs
    }

    /// What the runner has to be asked before it is known what became of the run that was taken over.
    pub(in crate::runner) fn doubt(&mut self) -> Option<&mut Doubt> {
        self.doubt.as_mut()
    }

    /// When the runner's silence is to be looked into.
    pub(in crate::runner) fn doubt_until(&self) -> Option<Instant> {
        self.doubt.as_ref().and_then(Doubt::deadline)
    }

    /// A connection to the runner broke, and with it perhaps code on its way there, or the end of a run. Whether the runner is to be
    /// asked what became of it.
    pub(in crate::runner) fn connection_broke(&mut self, now: Instant) -> bool {
        let is_going = self.course == Course::Open && self.current.as_ref().is_some_and(Current::has_begun);
        self.doubt.take_if(|doubt| doubt.is_done(now));
        let is_known = self.doubt.as_ref().is_none_or(Doubt::is_settled);
        let own = self.current.as_ref().map_or(0, Current::answers);
        match &mut self.doubt {
            doubt if is_going && is_known => {
                let before = doubt.as_ref().map_or(0, Doubt::outstanding);
                self.doubt = Some(Doubt::new(Cause::Broken, before.saturating_add(own), now));
            }
            Some(doubt) => doubt.ask_again(now),
            None => {}
        }
        self.doubt.is_some()
    }

    /// The runner was silent until then, and the kernel's processes have used so much processor time: the run may be taken for
    /// ended.
    pub(in crate::runner) fn silent(&mut self, used: Option<Duration>, now: Instant) {
        if let Some(doubt) = &mut self.doubt
            && doubt.silent(used, now)
        {
            let why = silenced(doubt.cause());
            self.end(why);
        }
    }

    /// A record came. Whether callers should look again.
    pub fn record(&mut self, record: Record, now: Instant) -> bool {
        self.doubt.take_if(|doubt| doubt.is_done(now));
        let Some(doubt) = &mut self.doubt else { return self.take_in(record) };
        match doubt.hear(record, now) {
            Heard::Record(record) => self.take_in(record),
            Heard::BuildAndEnd(code, record) => {
                self.take_in(Record::BuildFinished(code));
                self.take_in(record)
            }
            Heard::Nothing => false,
            Heard::Over => {
                let why = lost_end(doubt.cause());
                self.end(why)
            }
        }
    }
}
