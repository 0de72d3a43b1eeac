//! A kernel that runs: what callers need of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Node;
use super::make::Made;
use super::vigil::Vigil;
use crate::ids::{KernelId, RunId};
use crate::runner::{Runner, Runs};
use crate::scratch::{OutputSnapshot, Scratch};
use crate::stats::Target;
use crate::wire::config::KernelConfig;
use crate::wire::reply::KernelPlace;

/// How many runs' snapshots are kept: the current one and those whose last answer was not collected.
const MAX_SNAPSHOTS: usize = 8;

/// How long a run waits for its note.
const NOTE_LIMIT: Duration = Duration::from_secs(1);

/// One container's worth of a kernel; a restart makes a new one.
pub struct Live {
    /// What the manager was answered.
    pub place: KernelPlace,
    /// The container's first process, for statistics and to notice a restart by hand.
    pub pid: u32,
    /// Tells when that process has ended, before Docker does.
    pub(super) vigil: Vigil,
    /// What it was made of.
    pub config: KernelConfig,
    /// The limit of one execution that the image declares; `None` for no limit.
    pub exec_timeout: Option<Duration>,
    /// The connection to its runner.
    pub runner: Runner,
    /// Its files.
    pub scratch: Scratch,
    /// The run that the note on disk speaks of; set by the kernel's task once it is written.
    noted: watch::Sender<Option<String>>,
    /// What `.output` held when a run began, by run. A std mutex, held for a push or a look.
    snapshots: Mutex<VecDeque<(RunId, Arc<OutputSnapshot>)>>,
}

impl Live {
    /// Connects to the runner of a container.
    pub(super) fn connect(
        node: &Node,
        kernel: KernelId,
        made: Made,
        run: Option<(RunId, bool)>,
        config: KernelConfig,
    ) -> Self {
        let runs = if made.is_new { Runs::default() } else { Runs::taken_over(run, Instant::now()) };
        let runner = Runner::connect(kernel, made.runner, runs, &node.tracker);
        let vigil = Vigil::over(made.pid, &made.place.container);
        Self {
            place: made.place,
            pid: made.pid,
            vigil,
            config,
            exec_timeout: made.exec_timeout,
            runner,
            scratch: made.scratch,
            noted: watch::Sender::default(),
            snapshots: Mutex::default(),
        }
    }

    /// For the statistics.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            kernel: self.place.kernel,
            container: self.place.container.clone(),
            pid: self.pid,
            scratch: self.scratch.path().to_owned(),
        }
    }

    /// The note on disk speaks of this run now, or of none.
    pub(super) fn set_noted(&self, run: Option<String>) {
        self.noted.send_replace(run);
    }

    /// Waits until the note on disk speaks of the run (before its code is sent), or no more (before its end is
    /// answered): otherwise a kill of the agent in between would let the next life wait for an end that was told, or
    /// take the end of this run for that of the next. A disk that hangs must not hold the answer up for long.
    pub(super) async fn await_note(&self, run: &RunId, is_begun: bool) {
        let mut noted = self.noted.subscribe();
        let fits = |noted: &Option<String>| (noted.as_deref() == Some(run.as_str())) == is_begun;
        if tokio::time::timeout(NOTE_LIMIT, noted.wait_for(fits)).await.is_err() {
            tracing::warn!(kernel = %self.place.kernel, "the note of a run is slow to be written; check the disk below the scratch root");
        }
    }

    /// Remembers what `.output` holds, at the start of a run.
    pub async fn remember_output(&self, run: &RunId) {
        let snapshot = Arc::new(self.scratch.output_snapshot().await);
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.retain(|(r, _)| r != run);
        snapshots.push_back((run.clone(), snapshot));
        if snapshots.len() > MAX_SNAPSHOTS {
            snapshots.pop_front();
        }
    }

    /// For a run that an earlier agent began: files that are new from now on are its own.
    pub async fn remember_if_running(&self, run: &Option<String>) {
        if let Some(run) = run {
            self.remember_output(&RunId::new(run.as_str())).await;
        }
    }

    /// What it held when the run began; `None` for a run that was begun without.
    #[must_use]
    pub fn forget_output(&self, run: &RunId) -> Option<Arc<OutputSnapshot>> {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let at = snapshots.iter().position(|(r, _)| r == run)?;
        snapshots.remove(at).map(|(_, snapshot)| snapshot)
    }
}
