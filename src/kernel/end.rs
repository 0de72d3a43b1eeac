//! The end of a kernel: once, told once, with the true reason and the last statistics.
//!
//! The order matters. The journal first, so that a crash anywhere later finishes the same end. Statistics into
//! Redis before the event leaves, because the manager bills from them when it arrives. Cores are free as soon as
//! the container is gone, whatever becomes of its files. The entry is marked told only after the event has arrived.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::error::KernelError;
use super::live::Live;
use super::make;
use super::notes::Ending;
use super::task::{Kernel, Restart};
use super::{Node, Outcome, Phase};
use crate::events::Departure;
use crate::ids::KernelId;
use crate::wire::event::{EndReason, Event};
use crate::wire::sample::Sample;

/// How long the event waits for Redis. Longer, and the manager would not learn of the end; the event itself
/// carries the same figures.
const REDIS_LIMIT: Duration = Duration::from_secs(5);

/// After this they are put there again before the event leaves; they expire after 30 s.
const STORED_FOR: Duration = Duration::from_secs(10);

/// How long an end waits for its entry in the journal.
const JOURNAL_LIMIT: Duration = Duration::from_secs(2);

/// How long the manager may take to write down an answer; a transaction of its database, as a rule milliseconds.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

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
        node.journal(id, &ending).await;
        let begun = Instant::now();
        // The manager waits for the answer of a destroy, so the container goes while Redis is written.
        tokio::join!(node.store_last(id, sample), make::clear_containers(&node, id));
        // Whatever becomes of its files (section 12, item 23).
        self.allocation = None;
        make::discard(&node, id).await;
        if begun.elapsed() > STORED_FOR {
            node.store_last(id, sample).await;
        }
        node.collector.forget(id);
        if !self.settle(reason).await {
            // The agent stops: the journal has it, and the next start tells it.
            return;
        }
        node.tell(id, reason, ending);
        tracing::info!(kernel = %id, %reason, "ended");
        self.forget_note().await;
        self.phase.send_if_modified(|phase| {
            let failed = matches!(phase, Phase::Gone(_));
            if !failed {
                *phase = Phase::Gone(Outcome::Ended(sample));
            }
            !failed
        });
    }

    /// Lets the manager write down what it was answered before it hears of the end.
    ///
    /// It ignores the end of a kernel whose create it has not committed, or whose status is still RESTARTING (its
    /// `kernel_terminated` handler), and a session would keep a dead kernel for ever.
    ///
    /// `false`: the agent stops first.
    async fn settle(&mut self, reason: EndReason) -> bool {
        let mut asked_for = reason == EndReason::UserRequested;
        loop {
            // Restarts that came too late are refused first: their status goes with their answer.
            while let Ok(request) = self.inbox.restarts.try_recv() {
                self.refuse(request);
                asked_for = false;
            }
            let Some(quiet_until) = self.quiet_until.filter(|_| !asked_for) else { return true };
            tokio::select! {
                biased;
                // Then the manager knows the kernel, and waits for its end.
                Some(_) = self.inbox.terminate.recv() => asked_for = true,
                () = self.node.detach.cancelled() => return false,
                Some(request) = self.inbox.restarts.recv() => self.refuse(request),
                () = tokio::time::sleep_until(quiet_until) => return true,
            }
        }
    }

    fn refuse(&mut self, request: Restart) {
        // The asker may be gone.
        let _ = request.answer.send(Err(Arc::new(KernelError::NotRunning(self.id))));
        self.quiet_until = Some(Instant::now() + SETTLE);
    }
}

/// The event of an end, on its way through the journal.
struct Telling {
    node: Arc<Node>,
    kernel: KernelId,
    ending: Ending,
    /// When its statistics were put into Redis.
    stored: Instant,
    /// Where they can be put there once more.
    runtime: Handle,
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
        // The manager may have been away for longer than they stay in Redis.
        if self.stored.elapsed() > STORED_FOR {
            self.runtime.block_on(self.node.store_last(self.kernel, self.ending.sample));
        }
        self.note(true);
    }

    fn stays(&self) {
        self.note(false);
    }
}

impl Node {
    /// Writes the entry of an end. A disk that is full or hangs must not keep the kernel from ending.
    pub(super) async fn journal(self: &Arc<Self>, kernel: KernelId, ending: &Ending) {
        let (node, entry) = (self.clone(), ending.clone());
        let writing = tokio::task::spawn_blocking(move || node.notes.ending(kernel, &entry));
        let written = match timeout(JOURNAL_LIMIT, writing).await {
            Ok(Ok(written)) => written.map_err(|e| e.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the disk does not answer".to_owned()),
        };
        if let Err(error) = written {
            tracing::warn!(%kernel, error, "could not note the end on disk; a crash of the agent now may lose or repeat it");
        }
    }

    /// Puts its last statistics where the manager bills from when it hears of the end.
    pub(super) async fn store_last(&self, kernel: KernelId, sample: Option<Sample>) {
        let Some(sample) = sample else { return };
        let stored = self.store.put_last(kernel, sample, Instant::now() + REDIS_LIMIT).await;
        if let Err(error) = stored {
            tracing::warn!(%kernel, %error, "its last statistics are not in Redis; the event carries them");
        }
    }

    /// Queues the event of an end that is in the journal, and marks it there as told when it has arrived.
    pub(super) fn tell(self: &Arc<Self>, kernel: KernelId, reason: EndReason, ending: Ending) {
        let sample = ending.sample.as_ref().map(Sample::to_value);
        let (stored, runtime) = (Instant::now(), Handle::current());
        let telling = Telling { node: self.clone(), kernel, ending: ending.clone(), stored, runtime };
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
