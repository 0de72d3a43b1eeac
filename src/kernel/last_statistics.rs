//! The last statistics of ended kernels, in Redis when the manager hears of the end: it bills from them then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::KernelId;
use crate::stats::Store;
use crate::wire::sample::Sample;

/// How long an end waits for Redis. Longer, and the manager would not learn of the end; the event itself carries the
/// same figures.
const LIMIT: Duration = Duration::from_secs(5);

/// After this they are put there again before the event leaves; they expire after 30 s.
const FRESH: Duration = Duration::from_secs(10);

/// Puts them there, and again when an event has waited for long.
pub struct LastStatistics {
    store: Store,
    /// Of kernels whose event waits. Std mutex: held for a look, never over an await.
    waiting: Mutex<HashMap<KernelId, Waiting>>,
}

#[derive(Clone, Copy)]
struct Waiting {
    sample: Sample,
    /// When they were put there last, or Redis refused them or did not answer.
    tried: Instant,
}

impl LastStatistics {
    /// The statistics go to this Redis.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, waiting: Mutex::default() }
    }

    /// Puts a kernel's there. Returns when they are, or when waiting longer makes no sense.
    pub(super) async fn put(&self, kernel: KernelId, sample: Option<Sample>) {
        let Some(sample) = sample else { return };
        self.put_all(vec![(kernel, sample)]).await;
    }

    /// Puts them there again if they may have expired, which takes up to [`LIMIT`]: those of all kernels whose events
    /// wait, so that many events that leave one after the other don't each wait for a Redis that hangs.
    pub(super) async fn refresh(&self, kernel: KernelId) {
        let all = {
            let waiting = self.waiting();
            if waiting.get(&kernel).is_none_or(|one| one.tried.elapsed() < FRESH) {
                return;
            }
            waiting.iter().map(|(kernel, one)| (*kernel, one.sample)).collect()
        };
        self.put_all(all).await;
    }

    /// The event has arrived, or will be told by the next life of the agent.
    pub(super) fn forget(&self, kernel: KernelId) {
        self.waiting().remove(&kernel);
    }

    async fn put_all(&self, samples: Vec<(KernelId, Sample)>) {
        let (first, count) = (samples.first().map(|(kernel, _)| *kernel), samples.len());
        let stored = self.store.put_last(samples.clone(), Instant::now() + LIMIT).await;
        if let (Err(error), Some(kernel)) = (stored, first) {
            tracing::warn!(%kernel, count, %error, "last statistics are not in Redis; the event carries them");
        }
        let tried = Instant::now();
        self.waiting()
            .extend(samples.into_iter().map(|(kernel, sample)| (kernel, Waiting { sample, tried })));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<KernelId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
