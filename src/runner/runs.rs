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
//! A caller is known by its [`Ticket`] and leaves when that is dropped: one that waited frees its place, one
//! whose run is current leaves the run behind for a later `continue`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::code::{Code, GoingRun, Way};
use super::current::{Activity, Current, Handing, Interruptible, RunOutput, SOON, Ticket};
use super::doubt::{Doubt, Heard};
use super::kept::{Kept, Place};
use super::output::{FULL, FULL_WHILE_ASKING, Output};
use super::spill::{LeftOutput, Spilled};
use crate::ids::RunId;
use crate::wire::record::Record;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// How many runs may wait for their turn. The manager queues one at a time for each of a session's users; each that waits costs
/// a look whenever one ends.
const MAX_WAITING: usize = 256;

/// How many finished runs nobody came back for are kept; older ones are dropped.
const MAX_PARKED: usize = 4;

/// What is told of a run whose end nobody heard.
const LOST_END: &str =
    "the agent was restarted while this run began or ended: its exit code and its last output are not known";

/// The exit code of a run that was interrupted before it began, a shell's for SIGINT.
const INTERRUPTED: i64 = 130;

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

/// What is to be done to interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// Nothing: no run goes on, or it is ended already because its code had not left.
    Nothing,
    /// Tell the runner.
    Send,
    /// Look again then: the runner could not take it now.
    NotBefore(Instant),
}

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
    /// Output of a run whose id is not known, because an earlier agent began it and left no record of it;
    /// the first caller that goes on with any run gets it.
    adrift: Option<Output>,
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
}

impl Runs {
    /// A queue whose kernel an earlier agent left, with what that remembered of the run that goes on, and the output of runs
    /// that it had read and nobody had collected. Without a memory, a run may go on unremembered.
    #[must_use]
    pub fn taken_over(going: Option<GoingRun>, left: Vec<LeftOutput>, now: Instant) -> Self {
        let kept = Kept::after(left.iter().map(|left| left.number).max().unwrap_or(0));
        let mut runs = Self { kept, ..Self::default() };
        let Some(going) = going else {
            runs.adrift = Some(Output::default());
            runs.kept.forget(left.into_iter().map(|left| (left.number, left.run)));
            return runs;
        };
        for LeftOutput { number, run, records } in left {
            let output = Output::restored(records);
            let (is_over, is_going) = (output.has_finished(), going.run.as_ref() == Some(&run));
            runs.current = Some(Current::taken_over(run, output, number, now));
            if is_over {
                runs.park();
            } else if !is_going {
                runs.end(LOST_END);
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
            Way::Leaving | Way::Left => runs.doubt = Some(Doubt::new(now)),
        }
        runs
    }

    /// Every output that is not collected whole.
    fn outputs(&self) -> impl Iterator<Item = &RunOutput> {
        self.parked.iter().chain(self.current.iter().map(|current| &current.out))
    }

    /// What is to be done to the disk now; from here on it counts as done.
    pub(super) fn spill(&mut self) -> Vec<Spilled> {
        let mut spilled = self.kept.take();
        for out in outputs(&mut self.parked, self.current.as_mut()) {
            let change = out.output.unwritten.take();
            spilled.extend(change.map(|change| Spilled { number: out.number, run: out.run.clone(), change }));
        }
        spilled
    }

    /// Whether there is something to be done to the disk.
    pub(super) fn has_to_spill(&self) -> bool {
        self.kept.is_due() || self.outputs().any(|out| out.output.unwritten.is_due())
    }

    /// The disk refused.
    pub(super) fn spill_refused(&mut self) {
        for out in outputs(&mut self.parked, self.current.as_mut()) {
            out.output.unwritten.refused();
        }
    }

    /// A caller comes.
    pub fn enter(&mut self, run: &RunId, entry: Entry, now: Instant) -> Result<Ticket, Refusal> {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        if self.course != Course::Open {
            return Ok(ticket);
        }
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
                while let Some(at) = self.parked.iter().position(|p| p.run == *run && p.attached.is_none()) {
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
                if self.current.is_none()
                    && let Some(output) = self.adrift.take()
                {
                    self.go_on_adrift(run, ticket, output, now);
                    return Ok(ticket);
                }
                Err(Refusal::Unknown(run.clone()))
            }
        }
    }

    fn go_on_adrift(&mut self, run: &RunId, ticket: Ticket, output: Output, now: Instant) {
        let is_over = output.has_finished();
        let number = self.kept.next_number();
        let mut current = Current::taken_over(run.clone(), output, number, now);
        current.out.attached = Some(ticket);
        self.current = Some(current);
        if is_over {
            self.park();
        }
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
    pub(super) fn reached(&mut self) {
        self.reached = true;
    }

    /// What to do with the current run's code.
    pub(super) fn hand_out(&mut self) -> Handing {
        let is_reached = self.reached;
        let current = self.current.as_mut().filter(|c| c.since.is_some());
        current.map_or(Handing::Nothing, |current| current.hand_out(is_reached))
    }

    /// All of the current run's code is written.
    pub(super) fn code_left(&mut self, now: Instant) {
        if let Some(current) = &mut self.current {
            current.code_left(now);
        }
    }

    /// Nothing of the current run's code has left after all, and the agent stops: the next one sends it.
    pub(super) fn code_stays(&mut self, code: &Arc<Code>) {
        if let Some(current) = &mut self.current {
            current.code_stays(code);
        }
    }

    /// What the runner has to be asked before it is known what became of the run that was taken over.
    pub(super) fn doubt(&mut self) -> Option<&mut Doubt> {
        self.doubt.as_mut()
    }

    /// When the runner's silence is to be looked into.
    pub(super) fn doubt_until(&self) -> Option<Instant> {
        self.doubt.as_ref().and_then(Doubt::deadline)
    }

    /// The runner was silent until then, and the kernel's processes have used so much processor time: the run may be taken for
    /// ended.
    pub(super) fn silent(&mut self, used: Option<Duration>, now: Instant) {
        if self.doubt.as_mut().is_some_and(|doubt| doubt.silent(used, now)) {
            self.end(
                "the agent was restarted while this run went on, and its runner does not answer any more",
            );
        }
    }

    /// What to do to interrupt the current run.
    pub(super) fn interrupt(&mut self, now: Instant) -> Interrupt {
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

    /// Ends the current run, whose own end nobody heard.
    fn end(&mut self, why: &str) -> bool {
        self.note(&format!("[{why}]"));
        self.take_in(Record::Finished(None))
    }

    /// The caller gives the run its input.
    pub fn gave_input(&mut self, ticket: Ticket) {
        if let Some(current) = self.current_of(ticket) {
            current.wants_input = false;
        }
    }

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
    pub(super) fn has_end(&self, ticket: Ticket) -> bool {
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
    pub(super) fn give_back(&mut self, run: &RunId, items: Vec<ConsoleItem>, status: RunStatus) {
        let stop = (status != RunStatus::Continued).then_some(status);
        if let Some(out) = outputs(&mut self.parked, self.current.as_mut()).find(|out| out.run == *run) {
            out.output.give_back(items, stop);
        }
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

    /// A record came. Whether callers should look again.
    pub fn record(&mut self, record: Record) -> bool {
        let Some(doubt) = &mut self.doubt else { return self.take_in(record) };
        let heard = doubt.hear(record);
        if doubt.is_done() {
            self.doubt = None;
        }
        match heard {
            Heard::Record(record) => self.take_in(record),
            Heard::BuildAndEnd(code, record) => {
                self.take_in(Record::BuildFinished(code));
                self.take_in(record)
            }
            Heard::Nothing => false,
            Heard::Over => self.end(LOST_END),
        }
    }

    fn take_in(&mut self, record: Record) -> bool {
        let is_end = matches!(record, Record::Finished(_));
        let wants_input = matches!(record, Record::WaitingInput(_));
        let Some(current) = self.current.as_mut().filter(|c| c.since.is_some()) else {
            if let Some(output) = self.adrift.as_mut().filter(|o| !o.is_full()) {
                output.push(record);
            }
            return false;
        };
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
        self.adrift = None;
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
        let limit = if self.asking > 0 { FULL_WHILE_ASKING } else { FULL };
        self.current.as_ref().is_none_or(|c| c.out.output.bytes() < limit)
    }

    /// Roughly what the current run's output holds, in bytes.
    #[cfg(test)]
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
        match &self.current {
            Some(current) => current.activity(),
            None => {
                Activity { in_use: self.parked.iter().any(|p| p.attached.is_some()), ..Activity::default() }
            }
        }
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
        self.adrift = None;
        self.current = Some(Current::promoted(run, ticket, self.kept.next_number()));
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
