//! Collects the samples of kernels and remembers the last one of each.
//!
//! A kernel that can't be read is its own failure: the others of the same call get their samples.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::docker_figures::DockerFigures;
use super::places::{Kept, Roots};
use super::reading::Reading;
use super::scratch_walk::{ScratchMeter, WalkLimits};
use super::sysread::{Outcome, read_container};
use crate::ids::{ContainerId, KernelId};
use crate::patience::Outage;
use crate::wire::sample::Sample;

/// Threads that may be stuck in the kernel's files at the same time; more calls than that fail instead.
const MAX_READERS: usize = 4;
/// How long a sample waits for the measurement of scratch directories; after it the last known size is taken.
const SCRATCH_WAIT: Duration = Duration::from_millis(250);
/// Questions to Docker at the same time; each takes an old engine a second.
const DOCKER_AT_ONCE: usize = 50;

/// A kernel to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kernel, under whose id the statistics are stored.
    pub kernel: KernelId,
    /// The kernel's container.
    pub container: ContainerId,
    /// The container's first process, as the host numbers it.
    pub pid: u32,
    /// The kernel's scratch directory on the host.
    pub scratch: PathBuf,
}

/// Asks Docker for a container's figures.
pub type DockerHook = Arc<
    dyn Fn(ContainerId) -> BoxFuture<'static, Result<DockerFigures, Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Sync,
>;

/// Where and how to look.
#[derive(Clone)]
pub struct CollectorConfig {
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// The host's `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
    /// Limits of measuring one scratch directory.
    pub walk: WalkLimits,
    /// For reading the files of all kernels of one call.
    pub read_limit: Duration,
    /// Used for containers whose files can't be found, as in an agent that runs in a container itself.
    pub docker: Option<DockerHook>,
    /// For one question to Docker.
    pub docker_limit: Duration,
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self {
            proc_root: "/proc".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            walk: WalkLimits::default(),
            read_limit: Duration::from_secs(2),
            docker: None,
            docker_limit: Duration::from_secs(3),
        }
    }
}

/// Why a kernel has no sample now; [`Collector::last_seen`] may know an earlier one.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// No file of the container's control groups, and no figures from Docker.
    #[error(
        "container {container} has no cgroup files below the cgroup root: it has ended, or this agent does not see \
         the host's /proc and /sys/fs/cgroup"
    )]
    Gone {
        /// The container's short id.
        container: String,
    },
    /// The kernel's files did not answer.
    #[error("reading cgroup files took longer than {limit:?}: the machine is overloaded or its kernel hangs")]
    Slow {
        /// The limit.
        limit: Duration,
    },
    /// Docker could not say.
    #[error("asking Docker for the figures of container {container} failed")]
    Docker {
        /// The container's short id.
        container: String,
        /// What Docker said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Docker did not answer.
    #[error("Docker did not give the figures of container {container} within {limit:?}")]
    DockerSlow {
        /// The container's short id.
        container: String,
        /// The limit.
        limit: Duration,
    },
}

/// Collects samples. Shared behind an `Arc`.
pub struct Collector {
    /// See there.
    config: CollectorConfig,
    /// What is remembered of each kernel. A mutex rather than a task: a dying kernel asks for its last sample from
    /// wherever it is, and no critical section does more than look-ups. Never held over an await.
    kernels: Mutex<HashMap<KernelId, Remembered>>,
    /// The scratch directories' sizes.
    scratch: ScratchMeter,
    /// Permits for threads that read; see [`MAX_READERS`].
    readers: Arc<Semaphore>,
}

/// From when on a kernel without statistics is worth a line; less than the time between two rounds.
const NEWS: Duration = Duration::from_secs(3);

/// What is remembered of one kernel.
struct Remembered {
    /// Whose figures they are: after a restart the counters begin anew.
    container: ContainerId,
    /// The last sample of this container.
    last: Option<Sample>,
    /// Failures since the last sample.
    outage: Outage,
    /// Whether that has been logged.
    outage_told: bool,
    /// Whether a damaged file of this container has been logged.
    trouble_logged: bool,
    /// Where its figures are.
    kept: Arc<Kept>,
}

impl Collector {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(config: CollectorConfig) -> Self {
        let scratch = ScratchMeter::new(config.walk);
        Self { config, kernels: Mutex::default(), scratch, readers: Arc::new(Semaphore::new(MAX_READERS)) }
    }

    /// A sample of each target, in their order. Takes up to the limits of the configuration, and a quarter of a
    /// second longer where scratch directories are large.
    pub async fn collect(&self, targets: &[Target]) -> Vec<(KernelId, Result<Sample, CollectError>)> {
        let kept = self.admit(targets);
        let directories = targets.iter().map(|target| (target.kernel, target.scratch.clone())).collect();
        let measuring = tokio::time::timeout(SCRATCH_WAIT, self.scratch.measure(directories));
        let (outcomes, _) = tokio::join!(self.read(targets, kept), measuring);
        let Some(outcomes) = outcomes else {
            let slow = || CollectError::Slow { limit: self.config.read_limit };
            return targets
                .iter()
                .map(|target| (target.kernel, self.conclude(target, Err(slow()))))
                .collect();
        };
        let finishing: Vec<_> =
            targets.iter().zip(outcomes).map(|(target, outcome)| self.finish(target, outcome)).collect();
        futures_util::stream::iter(finishing).buffered(DOCKER_AT_ONCE).collect().await
    }

    /// A sample of one kernel: the one that is stored last, just before it is killed.
    pub async fn collect_one(&self, target: &Target) -> Result<Sample, CollectError> {
        let gone = || CollectError::Gone { container: target.container.short().to_owned() };
        let collected = self.collect(std::slice::from_ref(target)).await;
        collected.into_iter().next().map_or_else(|| Err(gone()), |(_, sample)| sample)
    }

    /// The last sample of a kernel. A kernel that died has no control group any more, and this is what is billed.
    #[must_use]
    pub fn last_seen(&self, kernel: KernelId) -> Option<Sample> {
        self.lock().get(&kernel)?.last
    }

    /// The kernel's end has been reported; nobody will ask for it again.
    pub fn forget(&self, kernel: KernelId) {
        self.lock().remove(&kernel);
        self.scratch.forget(kernel);
    }

    /// Makes room for kernels that are new, or whose container is, and gives each target's places. What is forgotten while a
    /// collection goes on is not remembered any more and stays forgotten.
    fn admit(&self, targets: &[Target]) -> Vec<Arc<Kept>> {
        let mut kernels = self.lock();
        let admit = |target: &Target| {
            let new = || Remembered {
                container: target.container.clone(),
                last: None,
                outage: Outage::default(),
                outage_told: false,
                trouble_logged: false,
                kept: Arc::default(),
            };
            let known = kernels.entry(target.kernel).or_insert_with(new);
            if known.container != target.container {
                *known = new();
            }
            Arc::clone(&known.kept)
        };
        targets.iter().map(admit).collect()
    }

    /// Reads all targets on one thread of the blocking pool; `None` if that takes too long.
    async fn read(&self, targets: &[Target], kept: Vec<Arc<Kept>>) -> Option<Vec<Outcome>> {
        let roots = Roots { proc: self.config.proc_root.clone(), cgroup: self.config.cgroup_root.clone() };
        let wanted: Vec<(ContainerId, u32)> =
            targets.iter().map(|target| (target.container.clone(), target.pid)).collect();
        let reading = async {
            let permit = Arc::clone(&self.readers).acquire_owned().await.ok()?;
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = Vec::new();
                let outcomes = wanted
                    .iter()
                    .zip(kept)
                    .map(|((container, pid), kept)| {
                        read_container(&roots, container.as_str(), *pid, &kept, &mut buffer)
                    })
                    .collect();
                drop(permit);
                outcomes
            });
            read.await.ok()
        };
        tokio::time::timeout(self.config.read_limit, reading).await.ok().flatten()
    }

    async fn finish(&self, target: &Target, outcome: Outcome) -> (KernelId, Result<Sample, CollectError>) {
        let reading = self.complete(target, outcome).await;
        (target.kernel, self.conclude(target, reading))
    }

    /// Turns to Docker where the files gave nothing.
    async fn complete(&self, target: &Target, outcome: Outcome) -> Result<Reading, CollectError> {
        let container = || target.container.short().to_owned();
        if let Some(trouble) = outcome.trouble {
            self.log_trouble(target, &trouble);
        }
        if !outcome.reading.is_gone() {
            return Ok(outcome.reading);
        }
        let Some(docker) = &self.config.docker else {
            return Err(CollectError::Gone { container: container() });
        };
        let limit = self.config.docker_limit;
        match tokio::time::timeout(limit, docker(target.container.clone())).await {
            Ok(Ok(figures)) => match figures.reading() {
                reading if reading.is_gone() => Err(CollectError::Gone { container: container() }),
                reading => Ok(reading),
            },
            Ok(Err(source)) => Err(CollectError::Docker { container: container(), source }),
            Err(_) => Err(CollectError::DockerSlow { container: container(), limit }),
        }
    }

    /// Makes the sample and remembers it.
    fn conclude(
        &self,
        target: &Target,
        reading: Result<Reading, CollectError>,
    ) -> Result<Sample, CollectError> {
        let size = self.scratch.size(target.kernel);
        let mut kernels = self.lock();
        let known = kernels.get_mut(&target.kernel).filter(|known| known.container == target.container);
        let Some(known) = known else {
            return reading.map(|reading| reading.into_sample(None, size));
        };
        let (kernel, now) = (target.kernel, Instant::now());
        match reading {
            Ok(reading) => {
                let sample = reading.into_sample(known.last.as_ref(), size);
                known.last = Some(sample);
                let told = std::mem::take(&mut known.outage_told);
                if let Some(past) = known.outage.worked(now).filter(|_| told) {
                    info!(%kernel, seconds = past.seconds(), failures = past.failures, "statistics of a kernel can be collected again");
                }
                Ok(sample)
            }
            Err(error) => {
                let is_first = known.outage.failed(now);
                // One that ends fails as well, is noticed elsewhere, and is looked at no more.
                if known.outage.lasts(now) >= NEWS && !std::mem::replace(&mut known.outage_told, true) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%kernel, %error, cause, "no statistics of a kernel");
                } else if is_first {
                    debug!(%kernel, %error, "no statistics of a kernel");
                }
                Err(error)
            }
        }
    }

    fn log_trouble(&self, target: &Target, trouble: &str) {
        let mut kernels = self.lock();
        let Some(known) = kernels.get_mut(&target.kernel) else { return };
        if !std::mem::replace(&mut known.trouble_logged, true) {
            warn!(kernel = %target.kernel, file = trouble, "can't read a figure of a kernel, going on without it");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KernelId, Remembered>> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
