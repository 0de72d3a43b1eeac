//! The registry of kernels: a handle for each, whose task it starts.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Failure, KernelError};
use super::inbox::{Birth, Cuts, Inbox, Restart};
use super::life::{self, Begin, Stage};
use super::node::Node;
use super::phase::{Outcome, Phase};
use super::task::Kernel;
use crate::ids::{ContainerId, KernelId};
use crate::patience::Tally;
use crate::stats::Target;
use crate::wire::event::EndReason;

/// The pause before a kernel whose task panicked is taken up anew. Not shorter than [`life::SETTLE`]: an end that was
/// just waiting until the manager hears waits no more.
const REBIRTH_PAUSE: Duration = life::SETTLE;

/// A kernel's handle, in the registry.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) terminate: mpsc::UnboundedSender<EndReason>,
    pub(super) deaths: mpsc::UnboundedSender<ContainerId>,
    pub(super) restarts: mpsc::UnboundedSender<Restart>,
    pub(super) used: Arc<watch::Sender<Instant>>,
    pub(super) unwanted: CancellationToken,
}

/// The registry of this agent's kernels; clones are the same registry.
#[derive(Clone)]
pub struct Kernels {
    pub(super) node: Arc<Node>,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// Std mutex: held for a look-up, never over an await.
    registry: Mutex<Registry>,
    /// What statistics are taken of.
    targets: watch::Sender<Arc<Vec<Target>>>,
    /// Whether what an earlier life left is known; until then "no such kernel" can't be said.
    pub(super) recovered: watch::Sender<bool>,
    /// Whether Docker answers; heartbeats and readiness go by it.
    pub(super) docker_answers: watch::Sender<bool>,
    /// One permit a kernel that is being made or undone.
    pub(super) creates: Arc<Semaphore>,
    /// How often Docker told that a kernel's container is out of memory, for the log.
    pub(super) wants: Mutex<Tally>,
    /// Creates that found no place; anybody can ask for many.
    pub(super) crowded: Mutex<Tally>,
}

#[derive(Default)]
struct Registry {
    handles: HashMap<KernelId, Handle>,
    /// All kernels are to end, and the recovery has not found all of them yet: it ends what it finds.
    standing: Option<EndReason>,
    /// Kernels that were killed for their memory lately, and what requests about them are told: whoever follows a run asks
    /// again after the kernel is gone, and should hear why.
    out_of_memory: VecDeque<(KernelId, Failure)>,
}

/// How many kernels that were killed for their memory are remembered.
const REMEMBERED: usize = 64;

impl Kernels {
    /// An empty registry; [`Kernels::recover`] fills it.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let shared = Shared {
            registry: Mutex::default(),
            targets: watch::Sender::default(),
            recovered: watch::Sender::new(false),
            docker_answers: watch::Sender::new(true),
            creates: Arc::new(Semaphore::new(node.config.creates)),
            wants: Mutex::default(),
            crowded: Mutex::default(),
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
        self.registry().handles.len()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.shared.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle(&self, kernel: KernelId) -> Option<Handle> {
        self.registry().handles.get(&kernel).cloned()
    }

    /// How far each kernel is.
    pub(super) fn phases(&self) -> Vec<(KernelId, Phase)> {
        self.registry().handles.iter().map(|(id, handle)| (*id, handle.phase.borrow().clone())).collect()
    }

    /// Every kernel there is.
    pub(super) fn ids(&self) -> Vec<KernelId> {
        self.registry().handles.keys().copied().collect()
    }

    /// The containers whose ends would be their kernels'.
    pub(super) fn containers(&self) -> Vec<ContainerId> {
        let registry = self.registry();
        registry.handles.values().filter_map(|h| h.phase.borrow().container().cloned()).collect()
    }

    /// The kernel that runs in this container.
    pub(super) fn kernel_in(&self, container: &ContainerId) -> Option<KernelId> {
        let registry = self.registry();
        let mut handles = registry.handles.iter();
        handles.find(|(_, handle)| handle.phase.borrow().container() == Some(container)).map(|(id, _)| *id)
    }

    /// Tells the kernel of this container that it has ended.
    pub(super) fn tell_death(&self, container: &ContainerId) {
        for handle in self.registry().handles.values() {
            if handle.phase.borrow().container() == Some(container) {
                // Fails only when the kernel is over already.
                let _ = handle.deaths.send(container.clone());
            }
        }
    }

    /// Tells all kernels to end, those that the recovery has still to find included; how many are known.
    #[must_use]
    pub fn end_all(&self, reason: EndReason) -> usize {
        let mut registry = self.registry();
        if !*self.shared.recovered.borrow() {
            registry.standing = Some(reason);
        }
        for handle in registry.handles.values() {
            // Fails only when the kernel is over already.
            let _ = handle.terminate.send(reason);
        }
        registry.handles.len()
    }

    /// What an earlier life left is known.
    pub(super) fn now_recovered(&self) {
        let mut registry = self.registry();
        registry.standing = None;
        self.shared.recovered.send_replace(true);
    }

    /// Starts the task of a kernel that the recovery has found.
    pub(super) fn spawn_found(&self, kernel: KernelId, birth: Birth) {
        let mut registry = self.registry();
        let standing = registry.standing;
        if let Some((handle, reason)) = self.spawn_in(&mut registry, kernel, birth).zip(standing) {
            tracing::info!(%kernel, %reason, "all kernels were to end before this one was found");
            // The kernel's task has just begun.
            let _ = handle.terminate.send(reason);
        }
    }

    /// The kernel's handle; an existing one, or (`true`) that of a new task.
    pub(super) fn spawn(&self, kernel: KernelId, birth: Birth) -> (Handle, bool) {
        let mut registry = self.registry();
        if let Some(handle) = registry.handles.get(&kernel) {
            return (handle.clone(), false);
        }
        (self.insert(&mut registry, kernel, birth), true)
    }

    /// Whether there is a task that tells the kernel's end; one is started if it must be told and there is none.
    pub(super) fn tells_end(&self, kernel: KernelId) -> bool {
        let mut registry = self.registry();
        if registry.handles.contains_key(&kernel) {
            return true;
        }
        let Some(ending) = self.node.notes.journal.to_be_told(kernel) else { return false };
        let reason = ending.reason();
        tracing::info!(%kernel, %reason, "asked to destroy a kernel that this agent does not have; telling that it is over");
        self.insert(&mut registry, kernel, Birth::Unheard(reason, ending.sample));
        true
    }

    /// A new task's handle; none where the kernel has one.
    fn spawn_in(&self, registry: &mut Registry, kernel: KernelId, birth: Birth) -> Option<Handle> {
        (!registry.handles.contains_key(&kernel)).then(|| self.insert(registry, kernel, birth))
    }

    fn insert(&self, registry: &mut Registry, kernel: KernelId, birth: Birth) -> Handle {
        let (phase_tx, phase) = watch::channel(Phase::Creating);
        let (terminate, terminate_rx) = mpsc::unbounded_channel();
        let (deaths, deaths_rx) = mpsc::unbounded_channel();
        let (restarts, restarts_rx) = mpsc::unbounded_channel();
        let (used, used_rx) = watch::channel(Instant::now());
        let unwanted = CancellationToken::new();
        let handle =
            Handle { phase, terminate, deaths, restarts, used: Arc::new(used), unwanted: unwanted.clone() };
        registry.handles.insert(kernel, handle.clone());
        let cuts = Cuts { terminate: terminate_rx, unwanted };
        let inbox = Inbox { cuts, deaths: deaths_rx, restarts: restarts_rx, used: used_rx };
        let task = Kernel::new(self.node.clone(), kernel, birth, phase_tx.clone(), inbox);
        self.node.tracker.spawn(self.clone().keep(kernel, task, phase_tx));
        handle
    }

    /// Runs a kernel's task, and gives its place in the registry up when it is over.
    async fn keep(self, kernel: KernelId, task: Kernel, phase: watch::Sender<Phase>) {
        let mut phases = phase.subscribe();
        let watcher = self.clone();
        let census = async {
            while phases.changed().await.is_ok() {
                watcher.census();
            }
            // The sender is held here.
            std::future::pending().await
        };
        let life = async {
            tokio::select! {
                telling = task.run() => telling,
                never = census => never,
            }
        };
        let lived = AssertUnwindSafe(life).catch_unwind().await;
        if self.node.detach.is_cancelled() && !matches!(&lived, Ok(Some(_))) {
            // The agent stops and the kernel lives on: it keeps its place, or its container would be an orphan.
            return;
        }
        let reborn = lived.is_err().then(|| self.rebirth(kernel, &phase.borrow())).flatten();
        if reborn.is_some() {
            tracing::error!(%kernel, "a mistake of the agent's ended this kernel's task; taking the kernel up anew");
            // What went wrong at once must not do so without end, and a runner has one owner at a time: what is left of the
            // connection before could take output away from the next one, and write notes over its.
            tokio::join!(tokio::time::sleep(REBIRTH_PAUSE), connection_ends(&phase));
        }
        {
            let mut registry = self.registry();
            registry.handles.remove(&kernel);
            if let Phase::Gone(Outcome::Ended(_, why)) = &*phase.borrow()
                && matches!(**why, KernelError::OutOfMemory { .. })
            {
                registry.out_of_memory.truncate(REMEMBERED - 1);
                registry.out_of_memory.push_front((kernel, why.clone()));
            }
            if let Some(birth) = reborn {
                self.insert(&mut registry, kernel, birth);
            }
        }
        self.census();
        // Whoever waits for the id to be free waits for this.
        drop(phase);
        if let Ok(Some(telling)) = lived {
            telling.tell().await;
        }
    }

    /// What becomes of a kernel whose task panicked in this phase.
    fn rebirth(&self, kernel: KernelId, phase: &Phase) -> Option<Birth> {
        let stage = match phase {
            Phase::Creating => Stage::Creating,
            Phase::Looking(_) => Stage::Looking,
            Phase::Running(_) => Stage::Running,
            Phase::Restarting => Stage::Restarting,
            Phase::LeftAlone(..) => Stage::LeftAlone,
            Phase::Ending(reason, _) => Stage::Ending(*reason),
            Phase::Gone(Outcome::Failed(_)) => Stage::Undoing,
            // The telling of the end goes on.
            Phase::Gone(Outcome::Ended(..)) => return None,
        };
        let looked_at = match phase {
            Phase::Looking(container) => Some(container),
            phase => phase.container(),
        };
        let sample = self.node.collector.last_seen(kernel);
        Some(match life::reborn(stage)? {
            Begin::Found { restarting } => Birth::Found { container: looked_at?.clone(), sample, restarting },
            Begin::Ended { reason, restarting } => Birth::Ended { reason, sample, restarting },
            Begin::Asked | Begin::Leftover | Begin::Unheard(_) => Birth::Leftover,
        })
    }

    /// What is told of a kernel that is not here.
    pub(super) fn not_here(&self, kernel: KernelId) -> Failure {
        let registry = self.registry();
        let known = registry.out_of_memory.iter().find(|(id, _)| *id == kernel);
        known.map_or_else(|| Arc::new(KernelError::NotRunning(kernel)), |(_, why)| why.clone())
    }

    /// Publishes whom statistics are taken of.
    fn census(&self) {
        let running = self
            .registry()
            .handles
            .values()
            .filter_map(|h| match &*h.phase.borrow() {
                Phase::Running(live) => Some(live.target.clone()),
                _ => None,
            })
            .collect();
        self.shared.targets.send_replace(Arc::new(running));
    }
}

/// Lets go of the runner of a kernel whose task panicked, and waits until that is done.
async fn connection_ends(phase: &watch::Sender<Phase>) {
    let live = match &*phase.borrow() {
        Phase::Running(live) => live.clone(),
        // In every other phase there was none, or it was closed.
        _ => return,
    };
    live.runner.let_go();
    live.runner.over().await;
}
