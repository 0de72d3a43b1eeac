//! One run: its output and who collects it, and, while it is the current one, how far its code is on its way. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::code::{Code, GoingRun, Way};
use super::held::Held;
use super::kept::Place;
use super::output::Output;
use crate::ids::RunId;

/// How long a runner may take to begin with code that it was sent. An interrupt that comes before finds the worker of a
/// Python runner waiting, and ends it.
pub(super) const BEGINS: Duration = Duration::from_millis(100);

/// The pause before a run that can't be interrupted yet is looked at again.
pub(super) const SOON: Duration = Duration::from_millis(20);

/// One caller of `execute`.
pub(super) type Ticket = u64;

/// A run's output, on its way to whoever collects it.
#[derive(Debug)]
pub(super) struct RunOutput {
    /// Whose output it is.
    pub(super) run: RunId,
    /// The caller that waits for it; none between two calls.
    pub(super) attached: Option<Ticket>,
    /// What was not collected.
    pub(super) output: Output,
    /// The number under which the disk holds the output.
    pub(super) number: u64,
}

/// The run whose records arrive now.
#[derive(Debug)]
pub(super) struct Current {
    /// What it printed, and who collects that.
    pub(super) out: RunOutput,
    /// Since when it has begun; `None` until its caller has handed its code over.
    pub(super) since: Option<Instant>,
    /// The run's code, from when the caller has it until it has left.
    code: Option<Arc<Code>>,
    /// How far that is.
    way: Way,
    /// When the code had left, as far as this life of the agent knows: from then on it runs.
    left_at: Option<Instant>,
    /// The run waits for input: nothing runs.
    pub(super) wants_input: bool,
    /// Whether it has a build step, as far as this life of the agent knows.
    builds: bool,
}

/// What is to be done with the current run's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handing {
    /// Nothing now.
    Nothing,
    /// Wait until it is remembered that this run's code leaves.
    Remember(RunId),
    /// Send it.
    Send(Arc<Code>),
}

/// When a run can be interrupted.
pub(super) enum Interruptible {
    /// The run's code has not left: no interrupt is needed to end the run.
    NotSent,
    /// From then on.
    From(Instant),
}

/// What the outside may know of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// The current run.
    pub run: Option<RunId>,
    /// Since when code runs; `None` while nothing runs or the run waits for input.
    pub running_since: Option<Instant>,
    /// Whether the current run waits for input.
    pub waits: bool,
    /// Whether the kernel is in use: a run goes on, or a caller waits.
    pub in_use: bool,
    /// What the next life of the agent has to know.
    pub going: GoingRun,
}

impl RunOutput {
    /// Whether this caller waits for it.
    pub(super) fn is_for(&self, ticket: Ticket) -> bool {
        self.attached == Some(ticket)
    }

    /// Where the disk holds it, if it does.
    pub(super) fn place(&self) -> Option<Place> {
        self.output.is_on_disk().then(|| (self.number, self.run.clone()))
    }

    /// The output is to be kept on the disk no longer. Where the disk holds it, if it does.
    pub(super) fn unkeep(&mut self) -> Option<Place> {
        let place = self.place();
        self.output.unkeep();
        place
    }
}

impl Current {
    /// A run whose turn has come; its caller has yet to hand over the code.
    pub(super) fn promoted(run: RunId, ticket: Ticket, number: u64, all: &Held) -> Self {
        Self {
            out: RunOutput { run, attached: Some(ticket), output: Output::among(all), number },
            since: None,
            code: None,
            way: Way::Left,
            left_at: None,
            wants_input: false,
            builds: false,
        }
    }

    /// A run that goes on, as far as is known. Its start is not known; counting from now can only give it more time.
    pub(super) fn taken_over(run: RunId, output: Output, number: u64, now: Instant) -> Self {
        Self {
            out: RunOutput { run, attached: None, output, number },
            since: Some(now),
            code: None,
            way: Way::Left,
            left_at: Some(now),
            wants_input: false,
            builds: false,
        }
    }

    /// The run's code waits again, as it did when the agent before ended.
    pub(super) fn code_kept(&mut self, code: Arc<Code>) {
        (self.way, self.left_at) = (Way::kept(&code), None);
        self.builds = matches!(*code, Code::Batch { .. });
        self.code = Some(code);
    }

    /// The run's caller has the code, which may leave at once if the runner was reached.
    pub(super) fn prepare(&mut self, code: Code, can_leave: bool) {
        self.builds = matches!(code, Code::Batch { .. });
        let code = Arc::new(code);
        self.way = if can_leave { Way::Leaving } else { Way::kept(&code) };
        self.code = Some(code);
    }

    /// What to do with the code.
    pub(super) fn hand_out(&mut self, is_reached: bool) -> Handing {
        match &self.way {
            Way::Kept(_) if is_reached => {
                self.way = Way::Leaving;
                Handing::Remember(self.out.run.clone())
            }
            Way::Leaving => self.code.take().map_or(Handing::Nothing, Handing::Send),
            Way::Kept(_) | Way::Left => Handing::Nothing,
        }
    }

    /// All of the code is written.
    pub(super) fn code_left(&mut self, now: Instant) {
        (self.way, self.left_at) = (Way::Left, Some(now));
    }

    /// Whether the runner may have some of its code, or gets it before anything else.
    pub(super) fn has_begun(&self) -> bool {
        self.since.is_some() && self.code.is_none()
    }

    /// When all of the code had left; `None` before that.
    pub(super) fn left_at(&self) -> Option<Instant> {
        self.left_at
    }

    /// Nothing of the code has left after all, and the agent stops: the next one sends it.
    pub(super) fn code_stays(&mut self, code: &Arc<Code>) {
        self.way = Way::kept(code);
    }

    /// The code is not to leave any more.
    pub(super) fn drop_code(&mut self) {
        self.code = None;
        self.way = Way::Left;
    }

    /// When it can be interrupted.
    pub(super) fn interruptible(&self, now: Instant) -> Interruptible {
        match (&self.way, self.left_at) {
            (Way::Kept(_), _) => Interruptible::NotSent,
            (Way::Left, Some(at)) => Interruptible::From(at + BEGINS),
            // An instant, unless the disk or the connection hangs.
            _ => Interruptible::From(now + SOON),
        }
    }

    /// Whether its code waits for its turn to leave.
    pub(super) fn waits_to_leave(&self) -> bool {
        self.since.is_some() && self.code.is_some()
    }

    /// How many `build-finished` of its own may come.
    pub(super) fn answers(&self) -> u8 {
        u8::from(self.builds && !matches!(self.way, Way::Kept(_)))
    }

    /// What the outside may know of it.
    pub(super) fn activity(&self) -> Activity {
        let is_kept = matches!(self.way, Way::Kept(_));
        // Before its caller has its code there is nothing that the next life could do about the run.
        let is_known = self.since.is_some() || self.code.is_some();
        Activity {
            run: Some(self.out.run.clone()).filter(|run| !run.is_unnamed()),
            running_since: self.left_at.filter(|_| !self.wants_input),
            waits: self.wants_input,
            // A runner that is never reached must not keep its kernel from idling out.
            in_use: self.out.attached.is_some() || !(self.wants_input || is_kept),
            going: GoingRun {
                run: is_known.then(|| self.out.run.clone()),
                way: if is_known { self.way.clone() } else { Way::Left },
                waits: self.wants_input,
                answers: self.answers(),
            },
        }
    }
}
