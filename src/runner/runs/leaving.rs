//! The current run's code on its way to the runner, and the interrupt that may follow it. Pure.

use std::sync::Arc;
use std::time::Instant;

use super::Runs;
use crate::runner::code::Code;
use crate::runner::current::{Current, Handing, Interruptible, SOON, Ticket};
use crate::wire::record::Record;

/// The exit code of a run that was interrupted before it began, a shell's for SIGINT.
const INTERRUPTED: i64 = 130;

/// What is to be done to interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) enum Interrupt {
    /// Nothing: no run goes on, or it is ended already because its code had not left.
    Nothing,
    /// Tell the runner.
    Send,
    /// Look again then: the runner could not take it now.
    NotBefore(Instant),
}

impl Runs {
    /// The caller has the run's code, which is to be remembered before it [begins](Self::started).
    pub fn prepared(&mut self, ticket: Ticket, code: Code) {
        let can_leave = self.reached;
        self.kept.answered_arrived();
        if let Some(current) = self.current_of(ticket) {
            current.prepare(code, can_leave);
        }
    }

    /// The run begins. `false`: it must not, it was cut off meanwhile.
    #[must_use]
    pub fn started(&mut self, ticket: Ticket, now: Instant) -> bool {
        let Some(current) = self.current_of(ticket) else { return false };
        current.since = Some(now);
        true
    }

    /// The runner was reached.
    pub(in crate::runner) fn reached(&mut self) {
        self.reached = true;
    }

    /// What to do with the current run's code. It waits for the answers to questions about the run before, which can't be told from its
    /// own.
    pub(in crate::runner) fn hand_out(&mut self, now: Instant) -> Handing {
        self.doubt.take_if(|doubt| doubt.is_done(now));
        if self.doubt.as_ref().is_some_and(|doubt| doubt.holds_until(now).is_some()) {
            return Handing::Nothing;
        }
        let is_reached = self.reached;
        let current = self.current.as_mut().filter(|c| c.since.is_some());
        current.map_or(Handing::Nothing, |current| current.hand_out(is_reached))
    }

    /// Until when code waits for answers at most; `None` where none does.
    pub(in crate::runner) fn held_until(&self, now: Instant) -> Option<Instant> {
        let is_held = self.current.as_ref().is_some_and(Current::waits_to_leave);
        self.doubt.as_ref().filter(|_| is_held).and_then(|doubt| doubt.holds_until(now))
    }

    /// All of the current run's code is written.
    pub(in crate::runner) fn code_left(&mut self, now: Instant) {
        if let Some(current) = &mut self.current {
            current.code_left(now);
        }
    }

    /// Nothing of the current run's code has left after all, and the agent stops: the next one sends it.
    pub(in crate::runner) fn code_stays(&mut self, code: &Arc<Code>) {
        if let Some(current) = &mut self.current {
            current.code_stays(code);
        }
    }

    /// What to do to interrupt the current run.
    pub(in crate::runner) fn interrupt(&mut self, now: Instant) -> Interrupt {
        let not_before = self.doubt.as_ref().map(|doubt| doubt.interruptible().unwrap_or(now + SOON));
        let Some(current) = self.current.as_ref().filter(|c| c.since.is_some()) else {
            return Interrupt::Nothing;
        };
        let begins = match current.interruptible(now) {
            Interruptible::From(begins) => begins,
            Interruptible::NotSent => {
                self.cancel();
                return Interrupt::Nothing;
            }
        };
        let earliest = not_before.unwrap_or(begins).max(begins);
        if earliest > now { Interrupt::NotBefore(earliest) } else { Interrupt::Send }
    }

    /// Ends a run whose code has not left.
    fn cancel(&mut self) {
        if let Some(current) = &mut self.current {
            current.drop_code();
            current.out.output.note("Interrupted before it began");
        }
        self.take_in(Record::Finished(Some(INTERRUPTED)));
    }

    /// The caller gives the run its input.
    pub fn gave_input(&mut self, ticket: Ticket) {
        if let Some(current) = self.current_of(ticket) {
            current.wants_input = false;
        }
    }
}
