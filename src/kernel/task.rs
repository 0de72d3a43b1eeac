//! The task that owns one kernel's life.
//!
//! Channels, all from the registry's handle: `terminate` (why it shall end), `deaths` (Docker or the reconciliation
//! says its container ended), `restarts` (with an answer each), `used` (a use that is no run), `unwanted` (nobody
//! heard that it was made). Out of it goes the phase, a `watch`. When the task is over the phase's sender is dropped, and only then may the id be used anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::end::SETTLE;
use super::error::{Failure, KernelError};
use super::live::Live;
use super::make::Made;
use super::notes::{KernelNote, NotedPhase, unix_now};
use super::pen::Pen;
use super::{Node, Outcome, Phase};
use crate::ids::{ContainerId, KernelId, RunId};
use crate::resources::Allocation;
use crate::runner::Activity;
use crate::wire::config::{ConfigPatch, KernelConfig};
use crate::wire::event::EndReason;
use crate::wire::reply::KernelPlace;

/// How long the manager waits for a restart.
const MANAGER_RESTART: Duration = Duration::from_secs(30);
/// How long a restart may take.
const RESTART_LIMIT: Duration = Duration::from_secs(28);

/// How long Docker may take to notice the end of a container's process.
const DOCKER_LAG: Duration = Duration::from_secs(5);

/// How a kernel comes into a task.
pub(super) enum Birth {
    /// The manager asks for it; its limit counts from when the request was received.
    Asked(KernelConfig, Option<Instant>),
    /// A container of an earlier life of the agent, or of the Python agent.
    /// With its note, and its last statistics if it turns out to be dead.
    Found(ContainerId, Option<KernelNote>, Option<crate::wire::sample::Sample>),
    /// An earlier life was ending it, or noted a kernel whose container is gone; with its last statistics, and whether
    /// a restart of it was cut off.
    Ended { reason: EndReason, sample: Option<crate::wire::sample::Sample>, was_restarting: bool },
    /// An earlier life was making it, and nobody was answered.
    HalfMade,
}

/// What the handle sends.
pub(super) struct Inbox {
    pub(super) terminate: mpsc::UnboundedReceiver<EndReason>,
    pub(super) deaths: mpsc::UnboundedReceiver<ContainerId>,
    pub(super) restarts: mpsc::UnboundedReceiver<Restart>,
    pub(super) used: watch::Receiver<Instant>,
    /// Cancelled when whoever asked for it has left without an answer, and so knows of no kernel.
    pub(super) unwanted: CancellationToken,
}

/// One request to restart.
pub(super) struct Restart {
    pub(super) config: ConfigPatch,
    pub(super) answer: oneshot::Sender<Result<KernelPlace, Failure>>,
}

/// One kernel.
pub(super) struct Kernel {
    /// What all kernels share.
    pub(super) node: Arc<Node>,
    /// Which.
    pub(super) id: KernelId,
    /// What it is made of; a restart changes it.
    pub(super) config: KernelConfig,
    /// Its cores and GPUs; freed when this is dropped, whatever happens to its files.
    pub(super) allocation: Option<Allocation>,
    /// Tells everybody how far it is.
    pub(super) phase: watch::Sender<Phase>,
    /// What the agent remembers of it on disk.
    pub(super) note: KernelNote,
    /// When it was used last, for the idle check.
    pub(super) last_use: Instant,
    /// Before this the manager would not hear of its end, unless it asks for that.
    pub(super) quiet_until: Option<Instant>,
    /// Writes the note.
    pub(super) pen: Pen,
    pub(super) inbox: Inbox,
}

/// Why serving a kernel stopped.
enum Next {
    End(EndReason),
    Restart(Restart),
    /// Nobody knows of it.
    Undo,
    /// The agent stops; the container lives on.
    Detach,
}

impl Kernel {
    pub(super) fn new(node: Arc<Node>, id: KernelId, phase: watch::Sender<Phase>, inbox: Inbox) -> Self {
        // Until its birth says what it is made of.
        let config = KernelConfig::default();
        let noted = KernelNote::new(id, NotedPhase::Creating);
        Self {
            node,
            id,
            config,
            allocation: None,
            phase,
            note: noted,
            last_use: Instant::now(),
            quiet_until: None,
            pen: Pen::default(),
            inbox,
        }
    }

    pub(super) async fn run(mut self, birth: Birth) {
        let mut live = match birth {
            Birth::Asked(config, deadline) => {
                self.config = config;
                match self.create(deadline).await {
                    Some(live) => live,
                    None => return,
                }
            }
            Birth::Found(container, note, sample) => match self.take_over(container, note, sample).await {
                Some(live) => live,
                None => return,
            },
            Birth::Ended { reason, sample, was_restarting } => {
                if was_restarting {
                    self.expect_deaf_manager();
                }
                return self.finish(reason, sample, None).await;
            }
            Birth::HalfMade => {
                tracing::warn!(kernel = %self.id, "undoing a kernel whose creation was cut off");
                return self.undo().await;
            }
        };
        loop {
            self.phase.send_replace(Phase::Running(live.clone()));
            match self.serve(&live).await {
                Next::End(reason) => return self.end(&live, reason).await,
                Next::Detach => return live.runner.let_go(),
                Next::Undo => {
                    tracing::warn!(kernel = %self.id, "whoever asked for it left before the answer; undoing it");
                    self.phase
                        .send_replace(Phase::Gone(Outcome::Failed(Arc::new(KernelError::Unwanted(self.id)))));
                    live.runner.close();
                    // A crash from here on finds a kernel that was never answered.
                    self.note_phase(NotedPhase::Creating).await;
                    return self.undo().await;
                }
                Next::Restart(request) => match self.restart(&live, request.config).await {
                    Ok(made) => {
                        live = made;
                        self.quiet_until = Some(Instant::now() + SETTLE);
                        // The asker may be gone; the kernel runs all the same.
                        let _ = request.answer.send(Ok(live.place.clone()));
                        tracing::info!(kernel = %self.id, container = live.place.container.short(), "restarted");
                    }
                    Err((reason, error)) => {
                        tracing::warn!(kernel = %self.id, error = %error, "could not restart; ending it");
                        let _ = request.answer.send(Err(error));
                        self.quiet_until = Some(Instant::now() + SETTLE);
                        return self.end(&live, reason).await;
                    }
                },
            }
        }
    }

    async fn serve(&mut self, live: &Arc<Live>) -> Next {
        let mut activity = live.runner.activity();
        // When the end of its process counts although Docker does not know of it.
        let mut ended: Option<Instant> = None;
        loop {
            let now = activity.borrow_and_update().clone();
            self.take_note(live, &now).await;
            let expires = self.expiry(live, &now);
            let idles = self.idle_deadline(&now);
            tokio::select! {
                biased;
                // An end that was asked for goes before everything, so that nothing can prevent it.
                Some(reason) = self.inbox.terminate.recv() => return Next::End(reason),
                () = self.node.detach.cancelled() => return Next::Detach,
                () = self.inbox.unwanted.cancelled() => return Next::Undo,
                // A dead container can't run out of time or be restarted.
                Some(container) = self.inbox.deaths.recv() => {
                    if self.has_died(live, &container).await {
                        return Next::End(EndReason::SelfTerminated);
                    }
                }
                // Docker may give its address away before it says so; nothing of this kernel must reach the next one.
                () = live.vigil.ended(), if ended.is_none() => {
                    ended = Some(Instant::now() + DOCKER_LAG);
                    live.runner.close();
                    if self.has_died(live, &live.place.container).await {
                        return Next::End(EndReason::SelfTerminated);
                    }
                }
                () = at(self.pen.again()) => self.note_phase(NotedPhase::Running).await,
                () = at(ended) => {
                    tracing::warn!(kernel = %self.id, "its process ended, and Docker does not say so; ending it");
                    return Next::End(EndReason::SelfTerminated);
                }
                () = at(expires) => {
                    tracing::info!(kernel = %self.id, "the run took longer than the image allows");
                    live.runner.expire();
                    return Next::End(EndReason::ExecTimeout);
                }
                () = at(idles) => {
                    tracing::info!(kernel = %self.id, "nobody used it for the idle timeout");
                    return Next::End(EndReason::IdleTimeout);
                }
                // Requests last: each is served within its caller's limit, ends are not.
                Some(request) = self.inbox.restarts.recv() => return Next::Restart(request),
                Ok(()) = activity.changed() => self.last_use = Instant::now(),
                Ok(()) = self.inbox.used.changed() => {
                    self.last_use = *self.inbox.used.borrow_and_update();
                    self.note_phase(NotedPhase::Running).await;
                }
            }
        }
    }

    fn expiry(&self, live: &Live, activity: &Activity) -> Option<Instant> {
        let limit = live.exec_timeout.filter(|_| self.node.config.enforce_exec_timeout)?;
        // An image may declare anything; what no clock can count to is no limit.
        activity.running_since.and_then(|since| Instant::from_std(since).checked_add(limit))
    }

    /// Last use counts from the end of the last run; a kernel whose run goes on is not idle (section 12, item 22).
    fn idle_deadline(&self, activity: &Activity) -> Option<Instant> {
        let timeout = self.node.config.idle_timeout?;
        (!activity.in_use).then(|| self.last_use.checked_add(timeout)).flatten()
    }

    /// A restart was cut off by the agent's end. The manager waits for its answer, and hears of no end meanwhile.
    pub(super) fn expect_deaf_manager(&mut self) {
        self.quiet_until = Some(Instant::now() + MANAGER_RESTART + SETTLE);
    }

    /// Keeps the note of the run that goes on, so that it goes on for the next life of the agent too.
    async fn take_note(&mut self, live: &Live, activity: &Activity) {
        let run = activity.run.as_ref().map(|run| run.as_str().to_owned());
        let is_known = self.note.phase == NotedPhase::Running
            && (&self.note.run, self.note.waits) == (&run, activity.waits);
        if !is_known {
            self.note.run.clone_from(&run);
            self.note.waits = activity.waits;
            self.note_phase(NotedPhase::Running).await;
        }
        live.set_noted(run);
    }

    /// Writes the note; a disk that is full or hangs must not stop the kernel, so a failure is only logged, and mended
    /// later.
    pub(super) async fn note_phase(&mut self, phase: NotedPhase) {
        let was_behind = self.pen.again().is_some();
        if let Err(error) = self.write_note(phase, false).await
            && !was_behind
        {
            tracing::warn!(kernel = %self.id, %error, "could not note what the kernel does, trying again; check the disk below the scratch root");
        }
    }

    /// The same for a caller that can't do without.
    pub(super) async fn write_note(&mut self, phase: NotedPhase, durable: bool) -> std::io::Result<()> {
        self.note.phase = phase;
        // Not of now: taking a kernel back, for one, is no use of it.
        self.note.last_use = unix_now().saturating_sub(self.last_use.elapsed().as_secs());
        self.pen.write(&self.node, self.id, self.note.clone(), durable).await
    }

    /// Whether the container that ended is this kernel's, and really is no more.
    async fn has_died(&mut self, live: &Arc<Live>, container: &ContainerId) -> bool {
        if *container != live.place.container {
            return false;
        }
        match self.node.docker.inspect(container.as_str()).await {
            Ok(Some(c)) if c.state.is_alive() && c.pid == Some(live.pid) => false,
            Ok(Some(c)) if c.state.is_alive() => {
                // Somebody restarted the container by hand: its state and its ports are gone.
                tracing::warn!(kernel = %self.id, "its container was restarted behind the agent's back; ending it");
                true
            }
            Ok(Some(c)) => {
                let exit_code = c.exit_code.unwrap_or(-1);
                if c.oom_killed {
                    tracing::warn!(kernel = %self.id, exit_code, "killed because it used more memory than its limit");
                } else {
                    tracing::info!(kernel = %self.id, exit_code, "its container ended by itself");
                }
                true
            }
            Ok(None) => {
                tracing::warn!(kernel = %self.id, "its container was removed behind the agent's back");
                true
            }
            Err(error) => {
                tracing::debug!(kernel = %self.id, %error, "can't tell whether its container ended; looking again later");
                false
            }
        }
    }

    /// The restart races the termination; whoever wants the kernel gone wins.
    async fn restart(
        &mut self,
        old: &Arc<Live>,
        new: ConfigPatch,
    ) -> Result<Arc<Live>, (EndReason, Failure)> {
        self.phase.send_replace(Phase::Restarting);
        old.runner.close();
        (self.note.run, self.note.waits) = (None, false);
        self.note_phase(NotedPhase::Restarting).await;
        self.node.events.emit(crate::wire::event::Event::KernelCreating(self.id));
        self.merge(new);
        let id = self.id;
        let (terminate, made) = {
            let Self { node, config, allocation, inbox, .. } = self;
            let remake = super::make::remake(node, id, config, allocation, &old.place.container);
            tokio::select! {
                biased;
                Some(reason) = inbox.terminate.recv() => (Some(reason), None),
                made = tokio::time::timeout(RESTART_LIMIT, remake) => {
                    (None, Some(made.unwrap_or(Err(KernelError::Late(RESTART_LIMIT)))))
                }
            }
        };
        match (terminate, made) {
            (Some(reason), _) => Err((reason, Arc::new(KernelError::Cancelled(id)))),
            (None, Some(Ok(made))) => Ok(self.connect(made, None)),
            (None, Some(Err(e))) => Err((EndReason::SelfTerminated, Arc::new(e))),
            (None, None) => Err((EndReason::SelfTerminated, Arc::new(KernelError::NotRunning(id)))),
        }
    }

    /// What the new config leaves empty stays as it was (section 12, item 18).
    fn merge(&mut self, patch: ConfigPatch) {
        let new = patch.apply(&self.config);
        let (old_limits, limits) = (self.config.limits, new.limits);
        if (old_limits.cpu_slot, old_limits.gpu_slot) != (limits.cpu_slot, limits.gpu_slot) {
            self.allocation = None;
        }
        self.config = new;
    }

    /// A made container becomes a live kernel.
    pub(super) fn connect(&mut self, made: Made, run: Option<(RunId, bool)>) -> Arc<Live> {
        let live = Live::connect(&self.node, self.id, made, run, self.config.clone());
        self.last_use = Instant::now();
        Arc::new(live)
    }
}

/// Waits for the moment; for ever when there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The pause before the next attempt at something that must succeed in the end: 0.2 s, doubling to 5 s.
pub(super) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(200 * 2u64.pow(attempt.min(5))).min(Duration::from_secs(5))
}
