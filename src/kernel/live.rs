//! A kernel that runs: what callers need of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::container::Made;
use super::node::Node;
use super::signs::Processes;
use super::vigil::Vigil;
use crate::ids::{KernelId, RunId};
use crate::runner::{Memory, Runner, Runs};
use crate::scratch::{OutputFile, OutputSnapshot, Scratch, Tree};
use crate::stats::Target;
use crate::wire::config::KernelConfig;
use crate::wire::reply::KernelPlace;

/// How many runs' snapshots are kept: the current one and those whose last answer was not collected.
const MAX_SNAPSHOTS: usize = 8;

/// One container's worth of a kernel; a restart makes a new one.
pub(super) struct Live {
    /// What the manager was answered.
    pub(super) place: KernelPlace,
    /// The container and its first process, for statistics and to notice a restart by hand.
    pub(super) target: Target,
    /// Tells when that process has ended, before Docker does.
    pub(super) vigil: Vigil,
    /// What it was made of.
    pub(super) config: KernelConfig,
    /// When the kernel was created; `None` where its file system does not know.
    pub(super) born: Option<SystemTime>,
    /// When somebody used it last, for those who look.
    pub(super) last_use: watch::Sender<Instant>,
    /// The limit of one execution that the image declares; `None` for no limit.
    pub(super) exec_timeout: Option<Duration>,
    /// The connection to its runner.
    pub(super) runner: Runner,
    /// The kernel's files.
    pub(super) scratch: Scratch,
    /// What its user sees of them, and of folders.
    pub(super) tree: Arc<Tree>,
    /// What `.output` held when a run began, by run. A std mutex, held for a push or a look.
    snapshots: Mutex<VecDeque<(RunId, Arc<OutputSnapshot>)>>,
}

impl Live {
    /// Connects to the runner of a container.
    pub(super) fn connect(
        node: &Node,
        kernel: KernelId,
        made: Made,
        runs: Runs,
        memory: Memory,
        (config, born): (KernelConfig, Option<SystemTime>),
    ) -> Self {
        let target = Target {
            kernel,
            container: made.place.container.clone(),
            pid: made.pid,
            scratch: made.scratch.home().to_owned(),
        };
        let signs = Arc::new(Processes { collector: node.collector.clone(), target: target.clone() });
        let runs = runs.among(&node.held);
        let runner = Runner::connect(kernel, made.runner, runs, memory, signs, &node.tracker);
        let vigil = Vigil::over(made.pid, &made.place.container);
        Self {
            place: made.place,
            target,
            vigil,
            config,
            born,
            last_use: watch::Sender::new(Instant::now()),
            exec_timeout: made.exec_timeout,
            runner,
            scratch: made.scratch,
            tree: Arc::new(made.tree),
            snapshots: Mutex::default(),
        }
    }

    /// Remembers what `.output` holds, at the start of a run.
    pub(super) async fn remember_output(&self, run: &RunId) {
        let snapshot = Arc::new(self.scratch.output_snapshot().await);
        let mut snapshots = self.snapshots();
        snapshots.retain(|(r, _)| r != run);
        snapshots.push_back((run.clone(), snapshot));
        if snapshots.len() > MAX_SNAPSHOTS {
            snapshots.pop_front();
        }
    }

    /// The files that are new or changed there since the run began; none for a run that was begun without.
    pub(super) async fn output_changes(&self, run: &RunId) -> Vec<OutputFile> {
        let before = self.snapshots().iter().find(|(of, _)| of == run).map(|(_, snapshot)| snapshot.clone());
        match before {
            Some(before) => self.scratch.output_changes(&before).await,
            None => Vec::new(),
        }
    }

    /// The run's end was answered.
    pub(super) fn forget_output(&self, run: &RunId) {
        self.snapshots().retain(|(of, _)| of != run);
    }

    fn snapshots(&self) -> MutexGuard<'_, VecDeque<(RunId, Arc<OutputSnapshot>)>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
