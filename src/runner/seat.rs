//! One caller of `execute`: its place in the queue, and its wait for an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::code::Code;
use super::current::Ticket;
use super::memory::Remembered;
use super::runs::{Taken, Turn};
use super::shared::Shared;
use crate::figures::{self, table};
use crate::ids::RunId;
use crate::wire::command::Command;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// A place in the queue. Dropping it frees the place; a run that has begun stays for a later `continue`.
pub struct Seat {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    remembered: Remembered,
    ticket: Ticket,
    run: RunId,
}

/// What the caller does first when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Send the code.
    Start,
    /// The run goes on already.
    Resume,
}

/// An answer, or `None` when a restart or destroy cut the run off.
pub type Answer = Option<(Vec<ConsoleItem>, RunStatus)>;

impl Seat {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        remembered: Remembered,
        ticket: Ticket,
        run: RunId,
    ) -> Self {
        Self { shared, commands, remembered, ticket, run }
    }

    /// Waits for its turn, however long the runs before it take. `None`: cut off.
    pub async fn turn(&self) -> Option<Begin> {
        let mut changed = self.shared.changed.subscribe();
        loop {
            // Marked as seen before looking, so that a change in between is not missed.
            changed.borrow_and_update();
            match self.shared.runs().turn(self.ticket) {
                Turn::Start => return Some(Begin::Start),
                Turn::Resume => return Some(Begin::Resume),
                Turn::Cut => return None,
                Turn::Wait => {}
            }
            changed.changed().await.ok()?;
        }
    }

    /// Begins the run with this code, once the run is remembered and `before` is done; both take the disk's time, so that they go
    /// side by side. The runner's task sends the code. `None`: cut off.
    pub async fn start(&self, code: Code, before: impl Future<Output = ()>) -> Option<()> {
        let ticket = self.ticket;
        self.shared.change(|runs| runs.prepared(ticket, code));
        tokio::join!(self.remembered.begun(&self.run), before);
        let is_begun = self.shared.change(|runs| runs.started(ticket, Instant::now()));
        if is_begun {
            figures::count(&table::RUNS_BEGUN, &[]);
        }
        is_begun.then_some(())
    }

    /// Gives the run its input. `None`: cut off.
    pub async fn input(&self, text: String) -> Option<()> {
        let ticket = self.ticket;
        self.shared.change(|runs| runs.gave_input(ticket));
        self.commands.send(Command::Input(text)).await.ok()
    }

    /// Collects output until the run says something that ends an answer, the buffer is full, or `limit` is over. The end
    /// of a run is kept before it is answered, and `at_end` is done meanwhile; all other output is on the disk no more.
    pub async fn collect(&self, limit: Duration, at_end: impl Future<Output = ()>) -> Answer {
        let deadline = tokio::time::Instant::now() + limit;
        let shared = &self.shared;
        let mut changed = shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            // Looked at before taking: a take wakes the others, and two callers must not wake each other for ever.
            if shared.runs().has_answer(self.ticket) {
                // In its own statement: the queue is locked for its length.
                let has_end = shared.runs().has_end(self.ticket);
                if has_end {
                    tokio::join!(self.remembered.kept(), at_end);
                }
                let taken = shared.change(|runs| runs.take(self.ticket));
                return self.hand_over(taken).await;
            }
            let is_over = match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => false,
                Ok(Err(_)) => return None,
                Err(_) => true,
            };
            if is_over {
                let taken = shared.change(|runs| runs.take_all(self.ticket));
                return self.hand_over(taken).await;
            }
        }
    }

    /// What was taken, once the disk holds it no more: after a kill of the agent it would be answered twice. The run's end is
    /// the exception, which its caller may ask for again.
    async fn hand_over(&self, taken: Taken) -> Answer {
        let Taken::Answer(items, status) = taken else { return None };
        let mut held = Held { seat: self, answer: Some((items, status)) };
        let is_end = matches!(held.answer, Some((_, RunStatus::Finished(_))));
        // In its own statement: the queue is locked for its length.
        let has_to_spill = !is_end && self.shared.runs().has_to_spill();
        if has_to_spill {
            self.remembered.kept().await;
        }
        held.answer.take()
    }
}

/// An answer that is not given yet. Its caller may leave meanwhile; then it is the run's again.
struct Held<'s> {
    seat: &'s Seat,
    answer: Answer,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some((items, status)) = self.answer.take() {
            self.seat.shared.change(|runs| runs.give_back(&self.seat.run, items, status));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.shared.change(|runs| runs.leave(ticket));
    }
}
