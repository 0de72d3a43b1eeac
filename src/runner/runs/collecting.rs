//! What callers are answered of their runs' output. Pure.

use super::{Course, Entry, Runs, outputs};
use crate::ids::RunId;
use crate::runner::current::{Current, Ticket};
use crate::wire::reply::{ConsoleItem, RunStatus};

/// What a caller collects.
#[derive(Debug, PartialEq)]
pub enum Taken {
    /// Nothing that ends an answer.
    Nothing,
    /// An answer.
    Answer(Vec<ConsoleItem>, RunStatus),
    /// The kernel is being restarted or destroyed: answer nil.
    Cut,
}

impl Runs {
    /// What the caller can be answered by now.
    pub fn take(&mut self, ticket: Ticket) -> Taken {
        if let Some(at) = self.parked.iter().position(|p| p.is_for(ticket)) {
            return self.take_parked(at);
        }
        if self.course == Course::Closed {
            return Taken::Cut;
        }
        match self.current.as_mut() {
            Some(Current { out, .. }) if out.is_for(ticket) => {
                if !out.output.holds_stop() && !out.output.is_full() && self.course != Course::Left {
                    return Taken::Nothing;
                }
                let (items, status) = out.output.take();
                out.attached = None;
                Taken::Answer(items, status.unwrap_or(RunStatus::Continued))
            }
            // The caller's code was never sent.
            _ if self.course == Course::Left => Taken::Cut,
            // Another caller of the same run came and collects now.
            _ => Taken::Answer(Vec::new(), RunStatus::Continued),
        }
    }

    /// Whether [`Self::take`] would give the caller something.
    #[must_use]
    pub fn has_answer(&self, ticket: Ticket) -> bool {
        self.course != Course::Open
            || match &self.current {
                Some(Current { out, .. }) if out.is_for(ticket) => {
                    out.output.holds_stop() || out.output.is_full()
                }
                _ => true,
            }
    }

    /// Whether what [`Self::take`] would give the caller is the end of its run.
    #[must_use]
    pub(in crate::runner) fn has_end(&self, ticket: Ticket) -> bool {
        self.parked.iter().any(|parked| parked.is_for(ticket) && parked.output.ends_next())
    }

    fn take_parked(&mut self, at: usize) -> Taken {
        let Some(parked) = self.parked.get_mut(at) else { return Taken::Nothing };
        let (items, status) = parked.output.take();
        // If an earlier stop came first, the end is still to be collected.
        parked.attached = None;
        let status = status.unwrap_or(RunStatus::Continued);
        if let RunStatus::Finished(_) = status {
            let place = self.remove_parked(at);
            self.kept.answered(place);
        }
        Taken::Answer(items, status)
    }

    /// The caller's time is up: what there is, whether or not it ends an answer.
    pub fn take_all(&mut self, ticket: Ticket) -> Taken {
        match self.take(ticket) {
            Taken::Nothing => {}
            taken => return taken,
        }
        match self.current_of(ticket) {
            Some(current) => {
                current.out.attached = None;
                Taken::Answer(current.out.output.take().0, RunStatus::Continued)
            }
            None => Taken::Answer(Vec::new(), RunStatus::Continued),
        }
    }

    /// Takes back an answer that was taken, of a run that has not ended by it, and that nobody was given.
    pub(in crate::runner) fn give_back(&mut self, run: &RunId, items: Vec<ConsoleItem>, status: RunStatus) {
        let run = &self.meant(run, Entry::GoOn);
        let stop = (status != RunStatus::Continued).then_some(status);
        if let Some(out) = outputs(&mut self.parked, self.current.as_mut()).find(|out| out.run == *run) {
            out.output.give_back(items, stop);
        }
    }
}
