//! The end of a kernel: once, told once, with the true reason and the last statistics.
//!
//! The order matters. The journal first, so that a crash anywhere later finishes the same end. Statistics into
//! Redis before the event leaves, because the manager bills from them when it arrives. Cores are free as soon as
//! the container is gone, whatever becomes of its files. The entry is marked told only after the event left.

use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use super::make;
use super::notes::Ending;
use super::task::Kernel;
use super::{Outcome, Phase};
use crate::stats::Sample;
use crate::wire::event::{EndReason, Event};

/// How long the event waits for Redis. Longer, and the manager would not learn of the end; the event itself
/// carries the same figures.
const REDIS_LIMIT: Duration = Duration::from_secs(5);

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
            if let Err(error) =
                node.store.put_last(id, sample, tokio::time::Instant::now() + REDIS_LIMIT).await
            {
                tracing::warn!(kernel = %id, %error, "its last statistics are not in Redis; the event carries them");
            }
        };
        // The manager waits for the answer of a destroy, so the container goes while Redis is written.
        tokio::join!(stored, make::clear(&node, id));
        self.allocation = None;
        node.collector.forget(id);
        let left =
            node.events.emit(Event::KernelTerminated(id, reason, sample.as_ref().map(super::sample_value)));
        tracing::info!(kernel = %id, %reason, "ended");
        node.notes.forget(id);
        self.phase.send_if_modified(|phase| {
            let failed = matches!(phase, Phase::Gone(_));
            if !failed {
                *phase = Phase::Gone(Outcome::Ended(sample));
            }
            !failed
        });
        let journal = node.clone();
        node.tracker.spawn(async move {
            if left.wait().await {
                let told = tokio::task::spawn_blocking(move || journal.notes.told(id, ending)).await;
                if let Ok(Err(error)) = told {
                    tracing::warn!(kernel = %id, %error, "could not note that its end was told; a restart of the agent tells it again");
                }
            }
        });
    }
}
