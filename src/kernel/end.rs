//! The end of a kernel: once, told once, with the true reason and the last statistics.
//!
//! The order matters. The journal first, so that a crash anywhere later finishes the same end. Statistics into
//! Redis before the event leaves, because the manager bills from them when it arrives. Cores are free as soon as
//! the container is gone, whatever becomes of its files. The entry is marked told only after the event has arrived.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::KernelError;
use super::live::Live;
use super::make;
use super::notes::Ending;
use super::task::{Kernel, Restart};
use super::{Node, Outcome, Phase};
use crate::events::Departure;
use crate::ids::KernelId;
use crate::stats::Sample;
use crate::wire::event::{EndReason, Event};

/// How long the event waits for Redis. Longer, and the manager would not learn of the end; the event itself
/// carries the same figures.
const REDIS_LIMIT: Duration = Duration::from_secs(5);

/// How long the manager may take to write down an answer; a transaction of its database, as a rule milliseconds.
const SETTLE: Duration = Duration::from_secs(1);

impl Kernel {
    /// Ends a live kernel.
    pub(super) async fn end(&mut self, live: &Arc<Live>, reason: EndReason) {
        self.phase.send_replace(Phase::Ending);
        live.runner.close();
        let sample = self.node.last_sample(&live.target()).await;
        self.conclude(reason, sample).await;
    }

    /// From the journal entry to the told event. Tries until it is done.
    pub(super) async fn conclude(&mut self, reason: EndReason, sample: Option<Sample>) {
        let (node, id) = (self.node.clone(), self.id);
        let ending = Ending::new(id, reason, sample);
        let (journal, entry) = (node.clone(), ending.clone());
        let written = tokio::task::spawn_blocking(move || journal.notes.ending(id, &entry)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(kernel = %id, %error, "could not note the end on disk; a crash of the agent now may lose or repeat it");
        }
        let stored = async {
            let Some(sample) = sample else { return };
            if let Err(error) = node.store.put_last(id, sample, Instant::now() + REDIS_LIMIT).await {
                tracing::warn!(kernel = %id, %error, "its last statistics are not in Redis; the event carries them");
            }
        };
        // The manager waits for the answer of a destroy, so the container goes while Redis is written.
        tokio::join!(stored, make::clear(&node, id));
        self.allocation = None;
        node.collector.forget(id);
        self.settle(reason).await;
        node.tell(id, reason, ending);
        tracing::info!(kernel = %id, %reason, "ended");
        node.notes.forget(id);
        self.phase.send_if_modified(|phase| {
            let failed = matches!(phase, Phase::Gone(_));
            if !failed {
                *phase = Phase::Gone(Outcome::Ended(sample));
            }
            !failed
        });
    }
}

impl Kernel {
    /// Lets the manager write down what it was answered before it hears of the end.
    ///
    /// It ignores the end of a kernel whose create it has not committed, or whose status is still RESTARTING (its
    /// `kernel_terminated` handler), and a session would keep a dead kernel for ever.
    async fn settle(&mut self, reason: EndReason) {
        let mut asked_for = reason == EndReason::UserRequested;
        loop {
            // Restarts that came too late are refused first: their status goes with their answer.
            while let Ok(request) = self.inbox.restarts.try_recv() {
                self.refuse(request);
                asked_for = false;
            }
            let Some(answered) = self.answered.filter(|_| !asked_for) else { return };
            tokio::select! {
                biased;
                // Then the manager knows the kernel, and waits for its end.
                Some(_) = self.inbox.terminate.recv() => asked_for = true,
                () = self.node.detach.cancelled() => return,
                Some(request) = self.inbox.restarts.recv() => self.refuse(request),
                () = tokio::time::sleep_until(answered + SETTLE) => return,
            }
        }
    }

    fn refuse(&mut self, request: Restart) {
        // The asker may be gone.
        let _ = request.answer.send(Err(Arc::new(KernelError::NotRunning(self.id))));
        self.answered = Some(Instant::now());
    }
}

/// The event of an end, on its way through the journal.
struct Telling {
    node: Arc<Node>,
    kernel: KernelId,
    ending: Ending,
}

impl Telling {
    fn note(&self, is_under_way: bool) {
        let noted = self.node.notes.under_way(self.kernel, self.ending.clone(), is_under_way);
        if let Err(error) = noted {
            tracing::warn!(kernel = %self.kernel, %error, "could not note that its end is being told; a crash of the agent in this moment repeats it or loses it");
        }
    }
}

impl Departure for Telling {
    fn leaves(&self) {
        self.note(true);
    }

    fn stays(&self) {
        self.note(false);
    }
}

impl Node {
    /// Queues the event of an end that is in the journal, and marks it there as told when it has arrived.
    pub(super) fn tell(self: &Arc<Self>, kernel: KernelId, reason: EndReason, ending: Ending) {
        let sample = ending.sample.as_ref().map(super::sample_value);
        let telling = Telling { node: self.clone(), kernel, ending: ending.clone() };
        let event = Event::KernelTerminated(kernel, reason, sample);
        let arrival = self.events.emit_noted(event, Arc::new(telling));
        let node = self.clone();
        self.tracker.spawn(async move {
            if !arrival.wait().await {
                return;
            }
            let told = tokio::task::spawn_blocking(move || node.notes.told(kernel, ending)).await;
            if let Ok(Err(error)) = told {
                tracing::warn!(%kernel, %error, "could not note that its end was told; check the disk below the scratch root");
            }
        });
    }
}
