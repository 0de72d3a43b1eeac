//! Puts samples into the manager's Redis (PROTOCOL section 6).
//!
//! One task (`writer`) owns the connection; callers send it jobs over a bounded channel and wait for the answer, at
//! most until their deadline. The connection is made when a job needs it and made anew when it broke or the address
//! moved; nothing is retried in the background, because the reporter comes again every 5 s anyway. So a Redis that
//! refuses connections fails a job at once, and one that hangs fails it at its deadline.

mod access;
mod capped;
mod error;
#[cfg(feature = "rooms")]
pub(super) mod fuzz;
mod private;
mod writer;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::access::RedisAccess;
pub use self::error::StoreError;
use self::writer::{Figures, Job, Writer};
use super::load::Load;
use crate::address::HostPort;
use crate::ids::KernelId;
use crate::wire::sample::Sample;

/// Jobs that may wait. The reporter sends one at a time; the others are ending kernels.
const QUEUE: usize = 64;

/// A handle to the task that owns the connection to Redis.
#[derive(Debug, Clone)]
pub struct Store {
    /// Where the writer takes its work from.
    jobs: mpsc::Sender<Job>,
    /// Why statistics don't reach Redis; `None` while they do.
    trouble: watch::Receiver<Option<String>>,
}

impl Store {
    /// Starts the writer, which ends with `cancel`. `address` is where Redis is as etcd has it; while it says `None` the
    /// last known one stays in use. `access` says who the agent is there.
    #[must_use]
    pub fn start(
        address: watch::Receiver<Option<HostPort>>,
        access: RedisAccess,
        cancel: CancellationToken,
        tracker: &TaskTracker,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (trouble, seen) = watch::channel(None);
        tracker.spawn(Writer::new(address, access, trouble).run(queue, cancel));
        Self { jobs, trouble: seen }
    }

    /// Why statistics don't reach Redis, when that has failed twice in a row; `None` while they do.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// Stores the samples of running kernels, and what they come to together, in one pipeline; each expires after 30 s.
    /// Without any, asks whether Redis is there.
    pub async fn put(
        &self,
        samples: Vec<(KernelId, Sample)>,
        load: Option<Load>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        self.submit(samples, Figures::Now(load), deadline).await
    }

    /// Stores the last samples of kernels, which the manager bills from. A sample of the same kernel that was collected
    /// before and is stored late, by the reporter, does not overwrite it.
    pub async fn put_last(
        &self,
        samples: Vec<(KernelId, Sample)>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        self.submit(samples, Figures::Last, deadline).await
    }

    async fn submit(
        &self,
        samples: Vec<(KernelId, Sample)>,
        figures: Figures,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { samples, figures, deadline, answer };
        match timeout_at(deadline, self.jobs.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(StoreError::Stopped),
            Err(_) => return Err(StoreError::Busy),
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Stopped),
            Err(_) => Err(StoreError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests;
