//! Kernels: containers with a scratch directory and a runner each, from the manager's request to the told end.
//!
//! ```text
//!                 failed, late: undone, nothing reported
//!          ┌────────────────────────────────────────────▶ Gone(Failed)
//!   create │
//!  ──▶ Creating ──▶ Running ◀──▶ Restarting
//!          │           │              │      destroy, reset, idle, too long, died by itself, restart failed
//!          ▼           ▼              ▼
//!        Ending ◀──────┴──────────────┘ ────────────────▶ Gone(Ended)   one kernel_terminated
//! ```
//!
//! After a start of the agent a kernel is `Creating` until its container was looked at; one that can't be taken back is
//! left alone (`LeftAlone`) until its end is asked for or noticed.
//!
//! One task per kernel owns its life ([`task`]); everybody else holds a handle: channels into the task, and a
//! `watch` of its [`Phase`] out of it. [`Kernels`] is the registry of handles. Ends race whatever else goes on, and
//! an end is in the journal ([`notes`]) before anything is done about it. Waiting for output happens in the
//! caller's task ([`requests`]). [`recover`] takes back what an earlier life left, [`reconcile`] notices what happens
//! behind the agent's back.

mod end;
pub mod error;
mod folders;
pub mod labels;
mod live;
mod make;
pub mod notes;
mod pen;
pub mod plan;
mod reach;
pub mod reconcile;
pub mod recover;
mod requests;
mod task;
mod vigil;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::error::{Failure, Fault, KernelError};
pub use self::folders::FolderChecks;
use self::labels::Owner;
pub use self::live::Live;
use self::notes::Notes;
pub use self::requests::Created;
use self::task::{Birth, Inbox, Kernel, Restart};
use crate::cluster::ManagerSettings;
use crate::docker::Docker;
use crate::events::Events;
use crate::ids::{ContainerId, KernelId};
use crate::images::ImagesHandle;
use crate::resources::Resources;
use crate::scratch::{OutputStore, ScratchRoot};
use crate::stats::{Collector, Store, Target};
use crate::wire::event::EndReason;
use crate::wire::sample::Sample;

/// What the operator decides about kernels.
#[derive(Debug, Clone)]
pub struct KernelsConfig {
    /// How long a create may take, from the receipt of its request; `None` for no limit.
    pub create_deadline: Option<Duration>,
    /// After how long without use a kernel is ended; `None` for never.
    pub idle_timeout: Option<Duration>,
    /// Whether the images' limit of one execution ends kernels (section 12, item 27).
    pub enforce_exec_timeout: bool,
    /// Runner code to mount over the images' own.
    pub debug_kernel: Option<PathBuf>,
    /// The most processes and threads in a kernel; `None` for no limit.
    pub pids_limit: Option<i64>,
    /// Whether the Python agent's containers are taken over.
    pub adopt: bool,
    /// The time between two comparisons with Docker's list.
    pub reconcile_every: Duration,
}

/// What all kernels share: handles of the other rooms.
pub struct Node {
    /// What the operator decided.
    pub config: KernelsConfig,
    /// The host that the manager connects to for terminals; part of the answers.
    pub kernel_host: String,
    /// Whose kernels these are.
    pub owner: Owner,
    /// The engine.
    pub docker: Docker,
    /// The kernel images.
    pub images: ImagesHandle,
    /// Cores and GPUs.
    pub resources: Resources,
    /// The scratch directories.
    pub scratch: ScratchRoot,
    /// Where output files go.
    pub outputs: OutputStore,
    /// The statistics' source.
    pub collector: Arc<Collector>,
    /// The statistics' destination.
    pub store: Store,
    /// The queue to the manager.
    pub events: Events,
    /// The manager's settings, for where virtual folders are mounted.
    pub settings: watch::Receiver<Option<ManagerSettings>>,
    /// What is remembered on disk.
    pub notes: Notes,
    /// Look-ups of virtual folders.
    pub folder_checks: FolderChecks,
    /// Every task of this room, so that a stop can wait for them.
    pub tracker: TaskTracker,
    /// Cancelled when the agent stops and its kernels live on.
    pub detach: CancellationToken,
}

impl Node {
    fn volume_mount(&self) -> PathBuf {
        self.settings.borrow().as_ref().map_or_else(|| PathBuf::from("/mnt"), |s| s.volume_mount.clone())
    }

    /// A sample of this moment; of a container that is dead already, the last one that was taken.
    async fn last_sample(&self, target: &Target) -> Option<Sample> {
        let fresh = tokio::time::timeout(Duration::from_secs(1), self.collector.collect_one(target)).await;
        match fresh {
            Ok(Ok(sample)) => Some(sample),
            Ok(Err(_)) | Err(_) => self.collector.last_seen(target.kernel),
        }
    }
}

/// How far a kernel is.
#[derive(Clone)]
pub enum Phase {
    /// It is being made, or being taken back after a start of the agent.
    Creating,
    /// It runs.
    Running(Arc<Live>),
    /// Between two containers.
    Restarting,
    /// Its container runs, but an agent that started found it odd and can't work with it: until its end is wanted
    /// or noticed (section 12, item 20).
    LeftAlone(ContainerId, Failure),
    /// It is being ended.
    Ending,
    /// It is over; files may still be going.
    Gone(Outcome),
}

impl Phase {
    /// The container whose end would be the kernel's.
    fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Running(live) => Some(&live.place.container),
            Self::LeftAlone(container, _) => Some(container),
            Self::Creating | Self::Restarting | Self::Ending | Self::Gone(_) => None,
        }
    }
}

/// How it came to be over.
#[derive(Clone)]
pub enum Outcome {
    /// It was never ready.
    Failed(Failure),
    /// It ended; its last statistics.
    Ended(Option<Sample>),
}

/// A kernel's handle, in the registry.
#[derive(Clone)]
struct Handle {
    phase: watch::Receiver<Phase>,
    terminate: mpsc::UnboundedSender<EndReason>,
    deaths: mpsc::UnboundedSender<ContainerId>,
    restarts: mpsc::UnboundedSender<Restart>,
    used: Arc<watch::Sender<Instant>>,
    unwanted: CancellationToken,
}

/// The registry of this agent's kernels; clones are the same registry.
#[derive(Clone)]
pub struct Kernels {
    node: Arc<Node>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Std mutex: held for a look-up, never over an await.
    handles: Mutex<HashMap<KernelId, Handle>>,
    /// What statistics are taken of.
    targets: watch::Sender<Arc<Vec<Target>>>,
    /// Whether what an earlier life left is known; until then "no such kernel" can't be said.
    recovered: watch::Sender<bool>,
    /// Whether Docker answers; heartbeats and readiness go by it.
    docker_answers: watch::Sender<bool>,
    /// How often Docker told that a kernel's container is out of memory, for the log.
    wants: AtomicU64,
}

impl Kernels {
    /// An empty registry; [`Kernels::recover`] fills it.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let shared = Shared {
            handles: Mutex::default(),
            targets: watch::Sender::default(),
            recovered: watch::Sender::new(false),
            docker_answers: watch::Sender::new(true),
            wants: AtomicU64::new(0),
        };
        Self { node: Arc::new(node), shared: Arc::new(shared) }
    }

    /// What statistics are to be taken of.
    #[must_use]
    pub fn targets(&self) -> watch::Receiver<Arc<Vec<Target>>> {
        self.shared.targets.subscribe()
    }

    /// Whether Docker answers.
    #[must_use]
    pub fn docker_answers(&self) -> watch::Receiver<bool> {
        self.shared.docker_answers.subscribe()
    }

    /// Whether what an earlier life left is known.
    #[must_use]
    pub fn recovered(&self) -> watch::Receiver<bool> {
        self.shared.recovered.subscribe()
    }

    /// How many kernels there are, in any phase.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles().len()
    }

    /// Figures for the metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let handles = self.handles();
        let mut figures = Figures { kernels: handles.len() as u64, ..Figures::default() };
        for handle in handles.values() {
            match &*handle.phase.borrow() {
                Phase::Running(live) => {
                    figures.runs += u64::from(live.runner.activity().borrow().run.is_some());
                    figures.memory_bytes += live.config.limits.mem_slot.bytes();
                }
                Phase::Ending | Phase::Gone(_) => figures.ending += 1,
                Phase::Creating | Phase::Restarting | Phase::LeftAlone(..) => {}
            }
        }
        figures
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<KernelId, Handle>> {
        self.shared.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, kernel: KernelId) -> Option<Handle> {
        self.handles().get(&kernel).cloned()
    }

    /// The kernel's handle; an existing one, or that of a new task.
    fn spawn(&self, kernel: KernelId, birth: Birth) -> (Handle, bool) {
        let mut handles = self.handles();
        if let Some(handle) = handles.get(&kernel) {
            return (handle.clone(), false);
        }
        let (phase_tx, phase) = watch::channel(Phase::Creating);
        let (terminate, terminate_rx) = mpsc::unbounded_channel();
        let (deaths, deaths_rx) = mpsc::unbounded_channel();
        let (restarts, restarts_rx) = mpsc::unbounded_channel();
        let (used, used_rx) = watch::channel(Instant::now());
        let unwanted = CancellationToken::new();
        let handle =
            Handle { phase, terminate, deaths, restarts, used: Arc::new(used), unwanted: unwanted.clone() };
        handles.insert(kernel, handle.clone());
        drop(handles);
        let inbox = Inbox {
            terminate: terminate_rx,
            deaths: deaths_rx,
            restarts: restarts_rx,
            used: used_rx,
            unwanted,
        };
        let task = Kernel::new(self.node.clone(), kernel, phase_tx.clone(), inbox);
        let registry = self.clone();
        self.node.tracker.spawn(async move {
            let mut phases = phase_tx.subscribe();
            let watcher = registry.clone();
            let census = async {
                while phases.changed().await.is_ok() {
                    watcher.census();
                }
            };
            let life = async {
                tokio::select! {
                    () = task.run(birth) => {}
                    () = census => {}
                }
            };
            let panicked = AssertUnwindSafe(life).catch_unwind().await.is_err();
            if registry.node.detach.is_cancelled() {
                // The agent stops and the kernel lives on: it keeps its place, or its container would be an orphan.
                return;
            }
            let reborn = panicked.then(|| rebirth(&phase_tx.borrow()));
            if reborn.is_some() {
                tracing::error!(%kernel, "a mistake of the agent's ended this kernel's task; taking the kernel up anew");
                // What went wrong at once must not do so without end.
                tokio::time::sleep(REBIRTH_PAUSE).await;
            }
            registry.handles().remove(&kernel);
            if let Some(birth) = reborn {
                registry.spawn(kernel, birth);
            }
            registry.census();
            // Whoever waits for the id to be free waits for this.
            drop(phase_tx);
        });
        (handle, true)
    }

    /// Publishes whom statistics are taken of.
    fn census(&self) {
        let running = self
            .handles()
            .values()
            .filter_map(|h| match &*h.phase.borrow() {
                Phase::Running(live) => Some(live.target()),
                _ => None,
            })
            .collect();
        self.shared.targets.send_replace(Arc::new(running));
    }
}

/// The pause before a kernel whose task panicked is taken up anew.
const REBIRTH_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of a kernel whose task panicked in this phase.
fn rebirth(phase: &Phase) -> Birth {
    match phase.container() {
        Some(container) => Birth::Found(container.clone(), None, None),
        None => match phase {
            // Nobody was answered.
            Phase::Creating | Phase::Gone(Outcome::Failed(_)) => Birth::HalfMade,
            _ => Birth::Ended {
                reason: EndReason::SelfTerminated,
                sample: None,
                was_restarting: matches!(phase, Phase::Restarting),
            },
        },
    }
}

/// What the registry holds, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Kernels in any phase.
    pub kernels: u64,
    /// Kernels with a run that goes on.
    pub runs: u64,
    /// Kernels that are ending.
    pub ending: u64,
    /// Memory limits together, in bytes.
    pub memory_bytes: u64,
}
