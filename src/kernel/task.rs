//! The task that owns one kernel's life, and the one place that changes a kernel's state. Parts of it are [`making`], how a kernel
//! comes to run, [`restarting`], which gives it a new container, and [`ending`].
//!
//! [`Life`] decides, this task does: each [`Step`] is a method that does it and comes back with what happened. The phase
//! is set in one place, [`Kernel::publish`].
//!
//! Channels, all from the registry's handle: `terminate` (why it shall end), `deaths` (Docker or the reconciliation
//! says its container ended), `restarts` (with an answer each), `used` (a use that is no run), `unwanted` (nobody
//! heard that it was made). Out of it goes the phase, a `watch`. When the task is over the phase's sender is dropped, and
//! only then may the id be used anew.

mod ending;
mod making;
mod restarting;

use std::sync::Arc;
use std::time::{Instant as StdInstant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::container::{self, Seen};
use super::error::{Failure, KernelError};
use super::inbox::{Birth, Deadline, Inbox, Restart, RestartAnswer, cut};
use super::life::{Input, Life, Stage, Step};
use super::live::Live;
use super::node::Node;
use super::notes::NotedPhase;
use super::pen::{Pen, RunPen};
use super::phase::{Outcome, Phase};
use super::remaking::Prepared;
use super::telling::{QueuedTelling, Telling};
use crate::ids::{ContainerId, KernelId};
use crate::resources::Allocation;
use crate::runner::Activity;
use crate::wire::config::KernelConfig;
use crate::wire::event::EndReason;
use crate::wire::sample::Sample;

/// One kernel.
pub(super) struct Kernel {
    /// What all kernels share.
    node: Arc<Node>,
    /// Which.
    id: KernelId,
    /// What is done when.
    life: Life,
    /// Tells everybody how far it is.
    phase: watch::Sender<Phase>,
    /// What everybody was told last.
    published: Option<Stage>,
    inbox: Inbox,
    /// What it is made of; a restart changes it.
    config: KernelConfig,
    /// Until when it must be made; `None` for no limit.
    deadline: Option<Deadline>,
    /// Its place among the kernels that are made or undone, until it runs or is gone.
    place: Option<OwnedSemaphorePermit>,
    /// The kernel's cores and GPUs; freed when this is dropped, whatever happens to its files.
    allocation: Option<Allocation>,
    /// Of an earlier life: its container, until that was looked at.
    found: Option<ContainerId>,
    /// What it runs in.
    live: Option<Arc<Live>>,
    /// What its runs do.
    activity: watch::Receiver<Activity>,
    /// A restart that is wanted.
    restart: Option<Restart>,
    /// One that is ready to be carried out, and who waits for it.
    prepared: Option<(Prepared, RestartAnswer)>,
    /// Why it can't be used, as far as that is known better than that it ends.
    failure: Option<Failure>,
    /// The kernel's last statistics.
    sample: Option<Sample>,
    /// Since when it is being restarted.
    restarting_since: Option<StdInstant>,
    /// Since when it is being ended.
    ending_since: Option<StdInstant>,
    /// The kernel's end, once that is in the journal.
    telling: Option<Telling>,
    /// The event of the end, once that has a place in the queue.
    queued: Option<QueuedTelling>,
    /// Writes what the agent remembers of it on disk.
    pen: Pen,
    /// Writes the note of its runs.
    run_pen: RunPen,
    /// When it was created; `None` where nobody knows.
    born: Option<SystemTime>,
    /// When it was used last, for the idle check.
    last_use: Instant,
}

impl Kernel {
    pub(super) fn new(
        node: Arc<Node>,
        id: KernelId,
        birth: Birth,
        phase: watch::Sender<Phase>,
        inbox: Inbox,
    ) -> Self {
        let life = Life::new(birth.begin(), StdInstant::now());
        let (mut config, mut deadline, mut found, mut sample) = (KernelConfig::default(), None, None, None);
        let mut place = None;
        match birth {
            Birth::Asked(wanted, until, held) => (config, deadline, place) = (wanted, until, Some(held)),
            Birth::Found { container, sample: last, .. } => (found, sample) = (Some(container), last),
            Birth::Ended { sample: last, .. } | Birth::Unheard(_, last) => sample = last,
            Birth::Leftover => {
                tracing::warn!(kernel = %id, "removing what was left of a kernel that nobody waits for");
            }
        }
        Self {
            life,
            phase,
            published: None,
            inbox,
            config,
            deadline,
            place,
            allocation: None,
            found,
            live: None,
            // Of no runner yet.
            activity: watch::Sender::default().subscribe(),
            restart: None,
            prepared: None,
            failure: None,
            sample,
            restarting_since: None,
            ending_since: None,
            telling: None,
            queued: None,
            pen: Pen::new(node.clone(), id),
            run_pen: RunPen::new(node.clone(), id),
            born: None,
            last_use: Instant::now(),
            node,
            id,
        }
    }

    /// Lives. What is left is the telling of its end, which needs no kernel any more.
    pub(super) async fn run(mut self) -> Option<QueuedTelling> {
        loop {
            self.publish();
            let input = match self.life.step() {
                Step::Make => self.make().await,
                Step::Look => self.look().await,
                Step::Serve => self.serve().await,
                Step::Check => self.check().await,
                Step::LeaveAlone => self.leave_alone().await,
                Step::Prepare => self.prepare().await,
                Step::Remake => self.remake().await,
                Step::Note(reason) => self.note_end(reason).await,
                Step::Clear { has_containers } => self.clear(has_containers).await,
                Step::Settle(until) => self.settle(until.into()).await,
                Step::Tell => self.tell().await,
                Step::Undo => self.undo().await,
                Step::LetGo => {
                    if let Some(live) = &self.live {
                        live.runner.let_go();
                    }
                    return None;
                }
                Step::Over => return self.queued,
            };
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        self.life.take(input, StdInstant::now());
    }

    /// Tells everybody how far it is. Nothing else sets the phase.
    fn publish(&mut self) {
        let stage = self.life.stage();
        if self.published == Some(stage) {
            return;
        }
        let phase = match (stage, &self.live) {
            (Stage::Running, Some(live)) => Phase::Running(live.clone()),
            (Stage::Looking, _) => self.found.clone().map_or(Phase::Creating, Phase::Looking),
            (Stage::LeftAlone, _) => {
                self.found.clone().map_or(Phase::Creating, |found| Phase::LeftAlone(found, self.failure()))
            }
            (Stage::Creating | Stage::Running, _) => Phase::Creating,
            (Stage::Restarting, _) => Phase::Restarting,
            (Stage::Ending(reason), _) => Phase::Ending(reason, self.failure()),
            (Stage::Undoing, _) => Phase::Gone(Outcome::Failed(self.failure())),
            (Stage::Ended(_), _) => Phase::Gone(Outcome::Ended(self.sample, self.failure())),
        };
        self.phase.send_replace(phase);
        self.published = Some(stage);
    }

    /// What requests about it are told when it can't be used.
    fn failure(&self) -> Failure {
        self.failure.clone().unwrap_or_else(|| {
            Arc::new(match self.life.stage() {
                Stage::Ending(reason) | Stage::Ended(reason) => {
                    KernelError::Ending { kernel: self.id, reason }
                }
                _ => KernelError::NotRunning(self.id),
            })
        })
    }

    fn fail(&mut self, error: KernelError) -> Failure {
        self.failure.insert(Arc::new(error)).clone()
    }

    async fn serve(&mut self) -> Input {
        let Some(live) = self.live.clone() else { return Input::TimeUp(EndReason::SelfTerminated) };
        let process_ended = self.life.process_ended();
        let mut idle_timeout = self.node.idle_timeout.clone();
        let mut settings = self.node.settings.clone();
        loop {
            if self.activity.has_changed().unwrap_or(false) {
                self.last_use = Instant::now();
            }
            live.last_use.send_replace(self.last_use);
            let now = self.activity.borrow_and_update().clone();
            let expires = self.expiry(&live, &now);
            let idles = self.idle_deadline(&now);
            if self.pen.phase() != NotedPhase::Running {
                self.pen.note(NotedPhase::Running, self.last_use).await;
            }
            tokio::select! {
                biased;
                // An end that was asked for goes before everything, so that nothing can prevent it.
                input = cut(&mut self.inbox.cuts, &self.node) => {
                    if let Input::AskerLeft = input {
                        self.fail(KernelError::Unwanted(self.id));
                    }
                    return input;
                }
                // A dead container can't run out of time or be restarted.
                Some(container) = self.inbox.deaths.recv() => return Input::Death(container),
                // Docker may give its address away before it says so; nothing of this kernel must reach the next one.
                () = live.vigil.ended(), if process_ended.is_none() => {
                    live.runner.close();
                    return Input::ProcessEnded;
                }
                () = at(process_ended.map(Instant::from_std)) => {
                    tracing::warn!(kernel = %self.id, "the kernel's process ended, and Docker does not say so; ending the kernel");
                    return Input::TimeUp(EndReason::SelfTerminated);
                }
                () = at(self.pen.again()) => self.pen.note(NotedPhase::Running, self.last_use).await,
                () = at(expires) => {
                    tracing::info!(kernel = %self.id, "the run took longer than the image allows");
                    live.runner.expire();
                    return Input::TimeUp(EndReason::ExecTimeout);
                }
                () = at(idles) => {
                    tracing::info!(kernel = %self.id, "nobody used the kernel for the idle timeout");
                    return Input::TimeUp(EndReason::IdleTimeout);
                }
                // Requests last: each is served within its caller's limit, ends are not.
                Some(request) = self.inbox.restarts.recv() => {
                    self.restart = Some(request);
                    return Input::RestartAsked;
                }
                Ok(()) = self.activity.changed() => self.last_use = Instant::now(),
                // The deadline is another one then; the cluster may have said so.
                Ok(()) = idle_timeout.changed() => {}
                Ok(()) = settings.changed() => {}
                Ok(()) = self.inbox.used.changed() => {
                    self.last_use = *self.inbox.used.borrow_and_update();
                    self.pen.note(NotedPhase::Running, self.last_use).await;
                }
            }
        }
    }

    /// Whether its container has really ended.
    async fn check(&mut self) -> Input {
        let Self { node, id, inbox, found, live, .. } = self;
        let (container, pid) = match (live, found) {
            (Some(live), _) => (&live.place.container, Some(live.target.pid)),
            (None, Some(found)) => (&*found, None),
            (None, None) => return Input::Dead,
        };
        let seen = tokio::select! {
            biased;
            input = cut(&mut inbox.cuts, node) => return input,
            seen = container::has_ended(node, *id, container, pid) => seen,
        };
        match seen {
            Seen::Alive => Input::NotDead,
            Seen::Ended => Input::Dead,
            Seen::OutOfMemory => {
                self.fail(KernelError::OutOfMemory { kernel: self.id, limit: self.config.limits.mem_slot });
                Input::Dead
            }
        }
    }

    /// Keeps the kernel's place in the registry, so that its container is no orphan and its end is told.
    async fn leave_alone(&mut self) -> Input {
        tokio::select! {
            biased;
            input = cut(&mut self.inbox.cuts, &self.node) => input,
            Some(container) = self.inbox.deaths.recv() => Input::Death(container),
            Some(request) = self.inbox.restarts.recv() => {
                request.refuse(self.failure());
                Input::RestartAsked
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
        let timeout = self.node.idle_timeout()?;
        (!activity.in_use).then(|| self.last_use.checked_add(timeout)).flatten()
    }
}

/// Waits for the moment; for ever when there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
