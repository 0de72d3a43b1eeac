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
use super::doubt::{Doubt, Heard};
use super::output::{FULL, FULL_WHILE_ASKING, Output};
use super::spill::{Change, LeftOutput, Spilled, Unwritten};
use crate::ids::RunId;
use crate::wire::record::Record;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// How many finished runs nobody came back for are kept; older ones are dropped.
const MAX_PARKED: usize = 4;

/// How long a runner may take to begin with code that it was sent. An interrupt that comes before finds the worker of a
/// Python runner waiting, and ends it.
const BEGINS: Duration = Duration::from_millis(100);

/// The pause before a run that can't be interrupted yet is looked at again.
const SOON: Duration = Duration::from_millis(20);

/// What is told of a run whose end nobody heard.
const LOST_END: &str =
    "the agent was restarted while this run began or ended: its exit code and its last output are not known";

/// The exit code of a run that was interrupted before it began, a shell's for SIGINT.
const INTERRUPTED: i64 = 130;

/// One caller of `execute`.
pub type Ticket = u64;

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
}

/// Where a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Others are before it.
    Wait,
    /// Its run begins: send the code.
    Start,
    /// Its run goes on already.
    Resume,
    /// The kernel is being restarted or destroyed: answer nil.
    Cut,
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
    parked: VecDeque<Parked>,
    /// Output of a run whose id is not known, because an earlier agent began it and left no record of it;
    /// the first caller that goes on with any run gets it.
    adrift: Option<Output>,
    /// Whether there will be answers.
    course: Course,
    /// Whether somebody waits for completions, which must get through a full buffer.
    pub asking: bool,
    /// Whether the runner was reached: code that begins now can leave at once.
    reached: bool,
    /// What became of the current run while no agent listened, until that is found out.
    doubt: Option<Doubt>,
    /// The last ticket handed out.
    last_ticket: Ticket,
    /// The last number given to a run's output on the disk.
    last_number: u64,
    /// Outputs that the disk still holds and nobody needs.
    gone: Vec<(u64, RunId)>,
    /// The output on the disk of the run whose end was answered last. Whether the answer arrives is not known here, so the
    /// output stays until the next run begins: after a kill of the agent the caller may come back for it.
    answered: Option<(u64, RunId)>,
}

#[derive(Debug)]
struct Current {
    run: RunId,
    /// The caller that waits for its output; none between two calls.
    attached: Option<Ticket>,
    output: Output,
    /// The number of its output on the disk.
    number: u64,
    /// Since when it has begun; `None` until its caller has handed its code over.
    since: Option<Instant>,
    /// Its code, from when its caller has it until it has left.
    code: Option<Arc<Code>>,
    /// How far that is.
    way: Way,
    /// When the code had left, as far as this life of the agent knows: from then on it runs.
    left_at: Option<Instant>,
    /// It waits for input: nothing runs.
    wants_input: bool,
}

impl Current {
    /// A run that goes on, as far as is known.
    fn taken_over(run: RunId, output: Output, number: u64, now: Instant) -> Self {
        Self {
            run,
            attached: None,
            output,
            number,
            since: Some(now),
            code: None,
            way: Way::Left,
            left_at: Some(now),
            wants_input: false,
        }
    }
}

#[derive(Debug)]
struct Parked {
    run: RunId,
    attached: Option<Ticket>,
    output: Output,
    number: u64,
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

impl Runs {
    /// A queue whose kernel an earlier agent left, with what that remembered of the run that goes on, and the output of runs
    /// that it had read and nobody had collected. Without a memory, a run may go on unremembered.
    #[must_use]
    pub fn taken_over(going: Option<GoingRun>, left: Vec<LeftOutput>, now: Instant) -> Self {
        let last_number = left.iter().map(|left| left.number).max().unwrap_or(0);
        let mut runs = Self { last_number, ..Self::default() };
        let Some(going) = going else {
            runs.adrift = Some(Output::default());
            runs.gone = left.into_iter().map(|left| (left.number, left.run)).collect();
            return runs;
        };
        for LeftOutput { number, run, records } in left {
            let output = Output::restored(records);
            runs.current = Some(Current::taken_over(run, output, number, now));
            if runs.current.as_ref().is_some_and(|c| c.output.has_finished()) {
                runs.park();
            } else if runs.current.as_ref().map(|c| &c.run) != going.run.as_ref() {
                runs.end(LOST_END);
            }
        }
        let Some(run) = going.run else { return runs };
        if runs.current.is_none() && runs.parked.iter().any(|parked| parked.run == run) {
            // Its end was on the disk already, and not yet in the memory.
            return runs;
        }
        let number = runs.next_number();
        let current =
            runs.current.get_or_insert_with(|| Current::taken_over(run, Output::default(), number, now));
        current.wants_input = going.waits;
        match going.way {
            Way::Kept(None) => drop(runs.end(
                "the agent was restarted before this code could leave, and the code was too large to be kept; run it again",
            )),
            Way::Kept(Some(code)) => {
                (current.way, current.left_at) = (Way::kept(&code), None);
                current.code = Some(code);
            }
            Way::Leaving | Way::Left => runs.doubt = Some(Doubt::default()),
        }
        runs
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// What is to be done to the disk now; from here on it counts as done.
    pub(super) fn spill(&mut self) -> Vec<Spilled> {
        let gone = self.gone.drain(..).map(|(number, run)| Spilled { number, run, change: Change::Remove });
        let mut spilled: Vec<_> = gone.collect();
        let outputs = self.parked.iter_mut().map(|parked| (parked.number, &parked.run, &mut parked.output));
        for (number, run, output) in
            outputs.chain(self.current.iter_mut().map(|c| (c.number, &c.run, &mut c.output)))
        {
            let change = output.unwritten.take();
            spilled.extend(change.map(|change| Spilled { number, run: run.clone(), change }));
        }
        spilled
    }

    /// Whether there is something to be done to the disk.
    pub(super) fn has_to_spill(&self) -> bool {
        let mut outputs = self.parked.iter().map(|p| &p.output).chain(self.current.iter().map(|c| &c.output));
        !self.gone.is_empty() || outputs.any(|output| output.unwritten.is_due())
    }

    /// The disk refused.
    pub(super) fn spill_refused(&mut self) {
        let parked = self.parked.iter_mut().map(|p| &mut p.output);
        for output in parked.chain(self.current.iter_mut().map(|c| &mut c.output)) {
            output.unwritten.refused();
        }
    }

    /// A caller comes.
    pub fn enter(&mut self, run: &RunId, entry: Entry, now: Instant) -> Result<Ticket, Refusal> {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        if self.course != Course::Open {
            return Ok(ticket);
        }
        if let Some(current) = self.current.as_mut().filter(|c| c.run == *run) {
            // Before its code is sent the run still belongs to the caller that will send it.
            if current.since.is_some() {
                current.attached = Some(ticket);
                return Ok(ticket);
            }
        }
        match entry {
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
                let is_waiting =
                    self.waiting.iter().map(|(_, r)| r).chain(self.current.iter().map(|c| &c.run));
                if is_waiting.into_iter().any(|r| r == run) {
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
        let (run, attached) = (run.clone(), Some(ticket));
        // Its start is not known; counting from now can only give it more time, never less.
        let number = self.next_number();
        self.current = Some(Current { attached, ..Current::taken_over(run, output, number, now) });
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
            Some(c) if c.attached == Some(ticket) && c.since.is_none() => Turn::Start,
            Some(c) if c.attached == Some(ticket) => Turn::Resume,
            _ if self.course == Course::Left && !self.parked.iter().any(|p| p.attached == Some(ticket)) => {
                Turn::Cut
            }
            _ => Turn::Resume,
        }
    }

    /// The caller has the run's code, which is to be remembered before it [begins](Self::started).
    pub fn prepared(&mut self, ticket: Ticket, code: Code) {
        let can_leave = self.reached;
        self.gone.extend(self.answered.take());
        if let Some(current) = self.current.as_mut().filter(|c| c.attached == Some(ticket)) {
            let code = Arc::new(code);
            current.way = if can_leave { Way::Leaving } else { Way::kept(&code) };
            current.code = Some(code);
        }
    }

    /// The run begins. `false`: it must not, it was cut off meanwhile.
    #[must_use]
    pub fn started(&mut self, ticket: Ticket, now: Instant) -> bool {
        let Some(current) = self.current.as_mut().filter(|c| c.attached == Some(ticket)) else {
            return false;
        };
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
        let Some(current) = self.current.as_mut().filter(|c| c.since.is_some()) else {
            return Handing::Nothing;
        };
        match &current.way {
            Way::Kept(_) if is_reached => {
                current.way = Way::Leaving;
                Handing::Remember(current.run.clone())
            }
            Way::Leaving => current.code.take().map_or(Handing::Nothing, Handing::Send),
            Way::Kept(_) | Way::Left => Handing::Nothing,
        }
    }

    /// All of the current run's code is written.
    pub(super) fn code_left(&mut self, now: Instant) {
        if let Some(current) = &mut self.current {
            (current.way, current.left_at) = (Way::Left, Some(now));
        }
    }

    /// Nothing of the current run's code has left after all, and the agent stops: the next one sends it.
    pub(super) fn code_stays(&mut self, code: &Arc<Code>) {
        if let Some(current) = &mut self.current {
            current.way = Way::kept(code);
        }
    }

    /// What the runner has to be asked before it is known what became of the run that was taken over.
    pub(super) fn doubt(&mut self) -> Option<&mut Doubt> {
        self.doubt.as_mut()
    }

    /// Until when the runner has to answer.
    pub(super) fn doubt_until(&self) -> Option<Instant> {
        self.doubt.as_ref().and_then(Doubt::deadline)
    }

    /// The runner was silent for too long: the run is taken for ended.
    pub(super) fn give_up(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.give_up();
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
        let begins = match (&current.way, current.left_at) {
            (Way::Kept(_), _) => {
                self.cancel();
                return Interrupt::Nothing;
            }
            (Way::Left, Some(at)) => at + BEGINS,
            // An instant, unless the disk or the connection hangs.
            _ => now + SOON,
        };
        let earliest = not_before.unwrap_or(begins).max(begins);
        if earliest > now { Interrupt::NotBefore(earliest) } else { Interrupt::Send }
    }

    /// Ends a run whose code has not left.
    fn cancel(&mut self) {
        if let Some(current) = &mut self.current {
            current.code = None;
            current.way = Way::Left;
            current.output.note("Interrupted before it began");
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
        if let Some(current) = self.current.as_mut().filter(|c| c.attached == Some(ticket)) {
            current.wants_input = false;
        }
    }

    /// What the caller can be answered by now.
    pub fn take(&mut self, ticket: Ticket) -> Taken {
        if let Some(at) = self.parked.iter().position(|p| p.attached == Some(ticket)) {
            return self.take_parked(at);
        }
        if self.course == Course::Closed {
            return Taken::Cut;
        }
        match self.current.as_mut() {
            Some(c) if c.attached == Some(ticket) => {
                if !c.output.holds_stop() && !c.output.is_full() && self.course != Course::Left {
                    return Taken::Nothing;
                }
                let (items, status) = c.output.take();
                c.attached = None;
                Taken::Answer(items, status.unwrap_or(RunStatus::Continued))
            }
            // Its code was never sent.
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
                Some(c) if c.attached == Some(ticket) => c.output.holds_stop() || c.output.is_full(),
                _ => true,
            }
    }

    /// Whether what [`Self::take`] would give the caller is the end of its run.
    #[must_use]
    pub(super) fn has_end(&self, ticket: Ticket) -> bool {
        self.parked.iter().any(|parked| parked.attached == Some(ticket) && parked.output.ends_next())
    }

    fn take_parked(&mut self, at: usize) -> Taken {
        let Some(parked) = self.parked.get_mut(at) else { return Taken::Nothing };
        let (items, status) = parked.output.take();
        // If an earlier stop came first, the end is still to be collected.
        parked.attached = None;
        let status = status.unwrap_or(RunStatus::Continued);
        if let RunStatus::Finished(_) = status {
            self.gone.extend(self.answered.take());
            self.answered = self.remove_parked(at);
        }
        Taken::Answer(items, status)
    }

    /// The caller's time is up: what there is, whether or not it ends an answer.
    pub fn take_all(&mut self, ticket: Ticket) -> Taken {
        match self.take(ticket) {
            Taken::Nothing => {}
            taken => return taken,
        }
        match self.current.as_mut().filter(|c| c.attached == Some(ticket)) {
            Some(current) => {
                current.attached = None;
                Taken::Answer(current.output.take().0, RunStatus::Continued)
            }
            None => Taken::Answer(Vec::new(), RunStatus::Continued),
        }
    }

    /// The caller goes, answered or not.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|(t, _)| *t != ticket);
        for parked in self.parked.iter_mut().filter(|p| p.attached == Some(ticket)) {
            parked.attached = None;
        }
        if let Some(current) = self.current.as_mut().filter(|c| c.attached == Some(ticket)) {
            current.attached = None;
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
        let wake = current.output.push(record);
        if is_end {
            self.park();
        }
        wake
    }

    /// A note of the agent's own for whoever runs now.
    pub fn note(&mut self, text: &str) {
        if let Some(current) = self.current.as_mut() {
            current.output.note(text);
        }
    }

    /// The current run took too long.
    pub fn expire(&mut self) {
        if let Some(current) = self.current.as_mut() {
            current.output.stop(RunStatus::ExecTimeout);
        }
    }

    /// The kernel goes: every caller is answered, nil unless its run had ended before.
    pub fn close(&mut self) {
        self.course = Course::Closed;
        self.waiting.clear();
        // An exec-timeout that was not collected yet is still that run's answer.
        if self.current.as_ref().is_some_and(|c| c.attached.is_some() && c.output.holds_stop()) {
            self.park();
        }
        // Nobody comes back for any of them after the container.
        self.gone.extend(self.answered.take());
        let parked = self.parked.iter_mut().map(|p| (p.number, &p.run, &mut p.output));
        for (number, run, output) in
            parked.chain(self.current.iter_mut().map(|c| (c.number, &c.run, &mut c.output)))
        {
            if output.unwritten.is_on_disk() {
                self.gone.push((number, run.clone()));
            }
            output.unwritten = Unwritten::default();
        }
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
        let limit = if self.asking { FULL_WHILE_ASKING } else { FULL };
        self.current.as_ref().is_none_or(|c| c.output.bytes() < limit)
    }

    /// Roughly what the current run's output holds, in bytes.
    #[cfg(test)]
    pub(super) fn current_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |c| c.output.bytes())
    }

    /// For the idle check, the execution limit and the record of runs.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let Some(current) = &self.current else {
            return Activity {
                in_use: self.parked.iter().any(|p| p.attached.is_some()),
                ..Activity::default()
            };
        };
        let is_kept = matches!(current.way, Way::Kept(_));
        // Before its caller has its code there is nothing that the next life could do about the run.
        let is_known = current.since.is_some() || current.code.is_some();
        Activity {
            run: Some(current.run.clone()),
            running_since: current.left_at.filter(|_| !current.wants_input),
            waits: current.wants_input,
            // A runner that is never reached must not keep its kernel from idling out.
            in_use: current.attached.is_some() || !(current.wants_input || is_kept),
            going: GoingRun {
                run: is_known.then(|| current.run.clone()),
                way: if is_known { current.way.clone() } else { Way::Left },
                waits: current.wants_input,
            },
        }
    }

    fn park(&mut self) {
        let Some(current) = self.current.take() else { return };
        let Current { run, attached, output, number, .. } = current;
        self.parked.push_back(Parked { run, attached, output, number });
        if self.parked.len() > MAX_PARKED
            && let Some(oldest) = self.parked.iter().position(|p| p.attached.is_none())
        {
            self.drop_parked(oldest);
        }
        self.promote();
    }

    fn drop_parked(&mut self, at: usize) {
        let parked = self.remove_parked(at);
        self.gone.extend(parked);
    }

    /// What the disk holds of it.
    fn remove_parked(&mut self, at: usize) -> Option<(u64, RunId)> {
        let parked = self.parked.remove(at).filter(|parked| parked.output.unwritten.is_on_disk())?;
        Some((parked.number, parked.run))
    }

    fn promote(&mut self) {
        if self.current.is_some() {
            return;
        }
        let Some((ticket, run)) = self.waiting.pop_front() else { return };
        self.adrift = None;
        let number = self.next_number();
        self.current = Some(Current {
            run,
            attached: Some(ticket),
            output: Output::default(),
            number,
            since: None,
            code: None,
            way: Way::Left,
            left_at: None,
            wants_input: false,
        });
    }
}

#[cfg(test)]
mod tests;
