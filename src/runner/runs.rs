//! The run queue of one kernel: who runs, who waits, whose answer is still to be collected. Pure; time comes in
//! as an argument.
//!
//! ```text
//!            enter(New)                 promoted                finished
//!   caller ─────────────▶ waiting ───────────────▶ current ───────────────▶ parked ──▶ collected
//!              └─────────────────────────────────────▲ │
//!                       nobody is current      enter(GoOn)
//! ```
//!
//! [`leaving`] has what is done about the current run's code, [`collecting`] what callers are answered, [`inherited`] what an earlier
//! life of the agent left.
//!
//! A caller is known by its [`Ticket`] and leaves when that is dropped: one that waited frees its place, one
//! whose run is current leaves the run behind for a later `continue`.

mod collecting;
mod inherited;
mod leaving;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use self::collecting::Taken;
pub(super) use self::leaving::Interrupt;
use super::current::{Activity, Current, RunOutput, Ticket};
use super::doubt::Doubt;
use super::held::Held;
use super::kept::{Kept, Place};
use super::output::FULL_WHILE_ASKING;
use super::spill::Spilled;
use crate::ids::RunId;
use crate::wire::record::Record;
use crate::wire::reply::RunStatus;

/// How many runs may wait for their turn. The manager queues one at a time for each of a session's users; each that waits costs
/// a look whenever one ends.
const MAX_WAITING: usize = 256;

/// How many finished runs nobody came back for are kept; older ones are dropped.
const MAX_PARKED: usize = 4;

/// What a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A run of its own, or the one with this id if that is current.
    New,
    /// To go on with a run that exists.
    GoOn,
}

/// Why a caller can't go on with a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No run of that id.
    #[error("run {0} is not known: it has finished, was cut off, or never began in this kernel")]
    Unknown(RunId),
    /// The run has not begun.
    #[error("run {0} still waits for its turn; its first call has not been answered")]
    Waiting(RunId),
    /// Too many wait.
    #[error(
        "{MAX_WAITING} runs of this kernel wait for their turn already; let some of them end, or interrupt the one that goes on"
    )]
    Full,
}

/// Where a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Others are before it.
    Wait,
    /// The caller's run begins: send the code.
    Start,
    /// The caller's run goes on already.
    Resume,
    /// The kernel is being restarted or destroyed: answer nil.
    Cut,
}

/// Whether a queue goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Course {
    #[default]
    Open,
    /// The agent stops: the run goes on without it.
    Left,
    /// The kernel is being restarted or destroyed.
    Closed,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Runs {
    /// The run whose records arrive now.
    current: Option<Current>,
    /// Callers whose runs have not begun, in order.
    waiting: VecDeque<(Ticket, RunId)>,
    /// Finished runs whose last answer was not collected.
    parked: VecDeque<RunOutput>,
    /// By which id a caller goes on with [the run whose id nobody knows](RunId::unnamed): the first that goes on with any unknown
    /// run gets that one.
    alias: Option<RunId>,
    /// Whether there will be answers.
    course: Course,
    /// Whether somebody waits for completions, which must get through a full buffer.
    pub asking: usize,
    /// Whether the runner was reached: code that begins now can leave at once.
    reached: bool,
    /// What became of the current run while no agent listened, until that is found out.
    doubt: Option<Doubt>,
    /// The last ticket handed out.
    last_ticket: Ticket,
    /// Which outputs the disk holds.
    kept: Kept,
    /// What its outputs are counted in, with those of the other kernels.
    held: Held,
}

impl Runs {
    /// With its outputs counted among those of the node's other kernels.
    #[must_use]
    pub fn among(mut self, all: &Held) -> Self {
        self.held = all.clone();
        outputs(&mut self.parked, self.current.as_mut()).for_each(|out| out.output.join(all));
        self
    }

    /// Every output that is not collected whole.
    fn outputs(&self) -> impl Iterator<Item = &RunOutput> {
        self.parked.iter().chain(self.current.iter().map(|current| &current.out))
    }

    /// What is to be done to the disk now; from here on it counts as done.
    pub(super) fn spill(&mut self) -> Vec<Spilled> {
        let mut spilled = self.kept.take();
        for out in outputs(&mut self.parked, self.current.as_mut()) {
            let change = out.output.spill();
            spilled.extend(change.map(|change| Spilled { number: out.number, run: out.run.clone(), change }));
        }
        spilled
    }

    /// Whether there is something to be done to the disk.
    pub(super) fn has_to_spill(&self) -> bool {
        self.kept.is_due() || self.outputs().any(|out| out.output.has_to_spill())
    }

    /// What differs once everything that the disk lacked was collected; `None` while it lacks more than output of the current run.
    pub(super) fn collections(&self) -> Option<(u64, u64)> {
        let is_behind = self.kept.is_due() || self.parked.iter().any(|parked| parked.output.has_to_spill());
        let current = self.current.as_ref().filter(|_| !is_behind)?;
        Some((current.out.number, current.out.output.collections()))
    }

    /// The disk refused.
    pub(super) fn spill_refused(&mut self) {
        for out in outputs(&mut self.parked, self.current.as_mut()) {
            out.output.spill_refused();
        }
    }

    /// A caller comes.
    pub fn enter(&mut self, run: &RunId, entry: Entry) -> Result<Ticket, Refusal> {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        if self.course != Course::Open {
            return Ok(ticket);
        }
        let run = &self.meant(run, entry);
        if let Some(current) = self.current.as_mut().filter(|c| c.out.run == *run) {
            // Before its code is sent the run still belongs to the caller that will send it.
            if current.since.is_some() {
                current.out.attached = Some(ticket);
                return Ok(ticket);
            }
        }
        match entry {
            Entry::New if self.waiting.len() >= MAX_WAITING => Err(Refusal::Full),
            Entry::New => {
                let is_dated = |p: &RunOutput| p.attached.is_none() && (p.run == *run || p.run.is_unnamed());
                while let Some(at) = self.parked.iter().position(is_dated) {
                    self.drop_parked(at);
                }
                self.waiting.push_back((ticket, run.clone()));
                self.promote();
                Ok(ticket)
            }
            Entry::GoOn => {
                if let Some(parked) = self.parked.iter_mut().find(|p| p.run == *run) {
                    parked.attached = Some(ticket);
                    return Ok(ticket);
                }
                let mut begins_later =
                    self.waiting.iter().map(|(_, r)| r).chain(self.current.iter().map(|c| &c.out.run));
                if begins_later.any(|r| r == run) {
                    return Err(Refusal::Waiting(run.clone()));
                }
                Err(Refusal::Unknown(run.clone()))
            }
        }
    }

    /// Which run a caller means.
    fn meant(&mut self, run: &RunId, entry: Entry) -> RunId {
        if entry == Entry::New || !self.outputs().any(|out| out.run.is_unnamed()) {
            return run.clone();
        }
        let is_known =
            self.outputs().map(|out| &out.run).chain(self.waiting.iter().map(|(_, r)| r)).any(|r| r == run);
        if !is_known && self.alias.get_or_insert_with(|| run.clone()) == run {
            return RunId::unnamed();
        }
        run.clone()
    }

    /// Where the caller stands.
    #[must_use]
    pub fn turn(&self, ticket: Ticket) -> Turn {
        if self.course == Course::Closed {
            return Turn::Cut;
        }
        if self.waiting.iter().any(|(t, _)| *t == ticket) {
            return Turn::Wait;
        }
        match &self.current {
            Some(c) if c.out.is_for(ticket) && c.since.is_none() => Turn::Start,
            Some(c) if c.out.is_for(ticket) => Turn::Resume,
            _ if self.course == Course::Left && !self.parked.iter().any(|p| p.is_for(ticket)) => Turn::Cut,
            _ => Turn::Resume,
        }
    }

    /// The current run, if it is this caller's.
    fn current_of(&mut self, ticket: Ticket) -> Option<&mut Current> {
        self.current.as_mut().filter(|current| current.out.is_for(ticket))
    }

    /// Ends the current run, whose own end nobody heard.
    fn end(&mut self, why: &str) -> bool {
        self.note(&format!("[{why}]"));
        self.take_in(Record::Finished(None))
    }

    /// The caller goes, answered or not.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|(t, _)| *t != ticket);
        for parked in self.parked.iter_mut().filter(|p| p.is_for(ticket)) {
            parked.attached = None;
        }
        if let Some(current) = self.current_of(ticket) {
            current.out.attached = None;
            if current.since.is_none() {
                self.current = None;
                self.promote();
            }
        }
    }

    fn take_in(&mut self, record: Record) -> bool {
        let is_end = matches!(record, Record::Finished(_));
        let wants_input = matches!(record, Record::WaitingInput(_));
        let Some(current) = self.current.as_mut().filter(|c| c.since.is_some()) else { return false };
        current.wants_input = wants_input || (current.wants_input && !is_end);
        let wake = current.out.output.push(record);
        if is_end {
            self.park();
        }
        wake
    }

    /// A note of the agent's own for whoever runs now.
    pub fn note(&mut self, text: &str) {
        if let Some(current) = self.current.as_mut() {
            current.out.output.note(text);
        }
    }

    /// The current run took too long.
    pub fn expire(&mut self) {
        if let Some(current) = self.current.as_mut() {
            current.out.output.stop(RunStatus::ExecTimeout);
        }
    }

    /// The kernel goes: every caller is answered, nil unless its run had ended before.
    pub fn close(&mut self) {
        self.course = Course::Closed;
        self.waiting.clear();
        // An exec-timeout that was not collected yet is still that run's answer.
        if self.current.as_ref().is_some_and(|c| c.out.attached.is_some() && c.out.output.holds_stop()) {
            self.park();
        }
        // Nobody comes back for any of them after the container.
        self.kept.answered_arrived();
        let places = outputs(&mut self.parked, self.current.as_mut()).filter_map(RunOutput::unkeep);
        self.kept.forget(places);
        self.current = None;
    }

    /// The agent goes and the kernel stays: whoever follows the current run is answered with what there is and can go on
    /// with the next agent; whoever waits is cut off, its code was never sent.
    pub fn let_go(&mut self) {
        if self.course == Course::Open {
            self.course = Course::Left;
        }
        self.waiting.clear();
        if self.current.as_ref().is_some_and(|c| c.since.is_none()) {
            self.current = None;
        }
    }

    /// Whether another record may be read from the runner.
    #[must_use]
    pub fn may_read(&self) -> bool {
        let Some(Current { out: RunOutput { output, .. }, .. }) = &self.current else { return true };
        if self.asking > 0 { output.bytes() < FULL_WHILE_ASKING } else { !output.is_full() }
    }

    /// Until when it is worth waiting for the end of the current run: one that has begun within `young` may end soon. `None` when
    /// no such run goes on.
    pub(super) fn may_end_until(&self, young: Duration) -> Option<Instant> {
        self.current
            .as_ref()
            .filter(|current| !current.wants_input)
            .and_then(Current::left_at)
            .map(|at| at + young)
    }

    /// Roughly what the current run's output holds, in bytes.
    pub(super) fn current_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |c| c.out.output.bytes())
    }

    /// How many callers wait for the turn of their runs.
    pub(super) fn queue(&self) -> usize {
        self.waiting.len()
    }

    /// For the idle check, the execution limit and the record of runs.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let mut activity = match &self.current {
            Some(current) => current.activity(),
            None => {
                Activity { in_use: self.parked.iter().any(|p| p.attached.is_some()), ..Activity::default() }
            }
        };
        let asked = self.doubt.as_ref().map_or(0, Doubt::outstanding);
        activity.going.answers = activity.going.answers.saturating_add(asked);
        activity
    }

    fn park(&mut self) {
        let Some(current) = self.current.take() else { return };
        self.parked.push_back(current.out);
        if self.parked.len() > MAX_PARKED
            && let Some(oldest) = self.parked.iter().position(|p| p.attached.is_none())
        {
            self.drop_parked(oldest);
        }
        self.promote();
    }

    fn drop_parked(&mut self, at: usize) {
        let place = self.remove_parked(at);
        self.kept.forget(place);
    }

    fn remove_parked(&mut self, at: usize) -> Option<Place> {
        self.parked.remove(at)?.place()
    }

    fn promote(&mut self) {
        if self.current.is_some() {
            return;
        }
        let Some((ticket, run)) = self.waiting.pop_front() else { return };
        self.current = Some(Current::promoted(run, ticket, self.kept.next_number(), &self.held));
    }
}

/// Every output that is not collected whole, to change it.
fn outputs<'a>(
    parked: &'a mut VecDeque<RunOutput>,
    current: Option<&'a mut Current>,
) -> impl Iterator<Item = &'a mut RunOutput> {
    parked.iter_mut().chain(current.map(|current| &mut current.out))
}

#[cfg(test)]
mod tests;
