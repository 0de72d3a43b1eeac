//! The task that owns one kernel's life, and the one place that changes a kernel's state. [`restarting`] is the part of it
//! that gives the kernel a new container.
//!
//! [`Life`] decides, this task does: each [`Step`] is a method that does it and comes back with what happened. The phase
//! is set in one place, [`Kernel::publish`].
//!
//! Channels, all from the registry's handle: `terminate` (why it shall end), `deaths` (Docker or the reconciliation
//! says its container ended), `restarts` (with an answer each), `used` (a use that is no run), `unwanted` (nobody
//! heard that it was made). Out of it goes the phase, a `watch`. When the task is over the phase's sender is dropped, and
//! only then may the id be used anew.

mod restarting;

use std::sync::Arc;
use std::time::{Instant as StdInstant, SystemTime};

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::container::{self, Made, Seen};
use super::error::{Failure, KernelError};
use super::inbox::{Birth, Deadline, Inbox, Restart, RestartAnswer, cut};
use super::life::{Input, Life, Stage, Step};
use super::live::Live;
use super::node::Node;
use super::notes::NotedPhase;
use super::pen::{Pen, RunPen};
use super::phase::{Outcome, Phase};
use super::remaking::Prepared;
use super::takeover::{self, TakenBack};
use super::telling::{QueuedTelling, Telling};
use crate::figures::{self, table};
use crate::ids::{ContainerId, KernelId, RunId};
use crate::patience::seconds;
use crate::resources::{Allocation, cpuset_text};
use crate::runner::{Activity, GoingRun, RunMemory, Runs};
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

    async fn make(&mut self) -> Input {
        let begun = StdInstant::now();
        self.born = Some(SystemTime::now());
        let Self { node, id, config, allocation, inbox, deadline, .. } = self;
        let made = tokio::select! {
            biased;
            input = cut(&mut inbox.cuts, node) => Err((
                match input {
                    Input::AskerLeft => KernelError::Unwanted(*id),
                    _ => KernelError::Cancelled(*id),
                },
                input,
            )),
            () = at(deadline.map(|deadline| deadline.at)) => {
                Err((KernelError::Late(deadline.map(|deadline| deadline.limit).unwrap_or_default()), Input::Failed))
            }
            made = container::make(node, *id, config, deadline.map(|deadline| deadline.limit), allocation) => made.map_err(|e| (e, Input::Failed)),
        };
        let mut result = made.map(|made| self.connect(made, Runs::default(), Some(GoingRun::default())));
        self.pen.made_with(&self.config.environ);
        if let Ok(live) = &result
            // On the disk before the answer: the next life undoes what is noted as being made.
            && let Err(source) = self.pen.note_durably(NotedPhase::Running, self.last_use).await
        {
            live.runner.close();
            result = Err((self.node.not_noted(source), Input::Failed));
        }
        if let Ok(live) = &result
            && live.vigil.ended().now_or_never().is_some()
        {
            live.runner.close();
            let error = container::ended_at_once(&self.node, &live.place.container).await;
            result = Err((error, Input::Failed));
        }
        match result {
            Ok(live) => {
                self.place = None;
                tracing::info!(kernel = %self.id, lang = self.config.lang, container = live.place.container.short(),
                    cpus = cpuset_text(&live.place.cpu_set), seconds = seconds(begun.elapsed()), "created");
                figures::count(&table::KERNEL_CREATES, &["done"]);
                figures::took(&table::KERNEL_CREATE_SECONDS, &[], begun.elapsed());
                self.runs_in(live)
            }
            Err((error, input)) => {
                tracing::warn!(kernel = %self.id, lang = self.config.lang, %error, "could not create the kernel; undoing the create");
                figures::count(&table::KERNEL_CREATES, &[error.result()]);
                self.fail(error);
                input
            }
        }
    }

    /// Takes a running container back, or finds that it runs no more.
    async fn look(&mut self) -> Input {
        let Self { node, id, inbox, found, .. } = self;
        let Some(container) = found.clone() else { return Input::Dead };
        let looked = tokio::select! {
            biased;
            input = cut(&mut inbox.cuts, node) => return input,
            looked = takeover::look(node, *id, &container) => looked,
        };
        match looked {
            None => Input::Dead,
            Some(Ok(taken)) => self.take_back(*taken).await,
            Some(Err(error)) => {
                // Odd, but somebody's session: it keeps running for a better agent to look at.
                tracing::error!(kernel = %self.id, container = container.short(), %error,
                    "left alone: can't take back this running kernel");
                self.fail(KernelError::LeftAlone { kernel: self.id, source: Box::new(error) });
                Input::Odd(container)
            }
        }
    }

    async fn take_back(&mut self, taken: TakenBack) -> Input {
        let TakenBack { made, config, allocation, runs, going, born, unused, is_adopted } = taken;
        (self.config, self.allocation, self.born) = (config, Some(allocation), born);
        let run = going.as_ref().and_then(|going| going.run.clone());
        let live = self.connect(made, runs, going);
        self.last_use = Instant::now().checked_sub(unused).unwrap_or(self.last_use);
        self.pen.made_with(&self.config.environ);
        if is_adopted {
            self.pen.adopted(&live.place.container);
        }
        self.pen.note(NotedPhase::Running, self.last_use).await;
        if let Some(run) = &run {
            // Files that are new from now on are its own.
            live.remember_output(run).await;
        }
        tracing::info!(kernel = %self.id, lang = self.config.lang, container = live.place.container.short(),
            run = run.as_ref().map(RunId::as_str), cpus = cpuset_text(&live.place.cpu_set), "took back a running kernel");
        figures::count(&table::KERNELS_TAKEN_BACK, &[]);
        self.runs_in(live)
    }

    /// A made container becomes a live kernel. `going`: what the note of its run says, if that is known.
    fn connect(&mut self, made: Made, runs: Runs, going: Option<GoingRun>) -> Arc<Live> {
        self.last_use = Instant::now();
        let memory = (Arc::new(self.run_pen.clone()) as Arc<dyn RunMemory>, going);
        Arc::new(Live::connect(&self.node, self.id, made, runs, memory, (self.config.clone(), self.born)))
    }

    fn runs_in(&mut self, live: Arc<Live>) -> Input {
        let container = live.place.container.clone();
        self.activity = live.runner.activity();
        self.live = Some(live);
        Input::Ready(container)
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

    /// The journal first, with the last statistics in it.
    async fn note_end(&mut self, reason: EndReason) -> Input {
        self.ending_since = Some(StdInstant::now());
        if let Some(live) = self.live.take() {
            live.runner.close();
            self.sample = self.node.last_sample(&live.target).await.or(self.sample);
        }
        self.telling = Some(Telling::begin(&self.node, self.id, reason, self.sample).await);
        Input::Done
    }

    /// Nothing is left of it but its event.
    async fn clear(&mut self, has_containers: bool) -> Input {
        let Some(telling) = self.telling.take() else { return Input::Done };
        {
            let mut clearing = std::pin::pin!(telling.clear(has_containers));
            loop {
                tokio::select! {
                    () = &mut clearing => break,
                    Some(request) = self.inbox.restarts.recv() => {
                        request.refuse(self.failure());
                        self.life.take(Input::RestartAsked, StdInstant::now());
                    }
                }
            }
        }
        self.telling = Some(telling);
        if let Some(since) = self.ending_since {
            figures::took(&table::KERNEL_END_SECONDS, &[], since.elapsed());
        }
        // Whatever becomes of its files (section 12, item 23).
        self.allocation = None;
        if has_containers {
            container::discard(&self.node, self.id).await;
        }
        self.node.collector.forget(self.id);
        Input::Done
    }

    async fn settle(&mut self, until: Instant) -> Input {
        tokio::select! {
            biased;
            Some(request) = self.inbox.restarts.recv() => {
                request.refuse(self.failure());
                Input::RestartAsked
            }
            Some(reason) = self.inbox.cuts.terminate.recv() => Input::Terminate(reason),
            () = self.node.detach.cancelled() => Input::Detach,
            () = sleep_until(until) => Input::Done,
        }
    }

    async fn tell(&mut self) -> Input {
        // One that came too late is refused first: the manager's status goes with its answer.
        if let Ok(request) = self.inbox.restarts.try_recv() {
            request.refuse(self.failure());
            return Input::RestartAsked;
        }
        if let (Some(telling), Stage::Ending(reason)) = (self.telling.take(), self.life.stage()) {
            self.queued = Some(telling.queue());
            let seconds = self.ending_since.map(|since| seconds(since.elapsed()));
            tracing::info!(kernel = %self.id, %reason, seconds, "ended");
            figures::count(&table::KERNEL_ENDS, &[reason.as_str()]);
        }
        self.pen.forget(&self.run_pen).await;
        Input::Done
    }

    /// Removes whatever there is of a kernel that nobody knows of. Tries until it is done.
    async fn undo(&mut self) -> Input {
        if let Some(live) = self.live.take() {
            tracing::warn!(kernel = %self.id, "whoever asked for the kernel left before the answer; undoing the create");
            live.runner.close();
            // A crash from here on finds a kernel that was never answered.
            self.pen.note(NotedPhase::Creating, self.last_use).await;
        }
        self.allocation = None;
        container::clear(&self.node, self.id).await;
        container::discard(&self.node, self.id).await;
        self.pen.forget(&self.run_pen).await;
        Input::Done
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
