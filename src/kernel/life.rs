//! A kernel's life, decided: from its state and what happened to what is to be done next. Pure; times come in.
//!
//! The kernel's task ([`task`](super::task)) does each [`Step`] and comes back with the [`Input`] that ended it. What may
//! cut a step short is an input like any other, so that an end, a stop or an asker who has left is heard whatever goes
//! on. What the manager may hear, and when, is decided here alone: see [`Life::may_tell`].

use std::time::{Duration, Instant};

use crate::ids::ContainerId;
use crate::wire::event::EndReason;

/// How long the manager may take to write down an answer; a transaction of its database, as a rule milliseconds.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// How long the manager waits for a restart.
const MANAGER_RESTART: Duration = Duration::from_secs(30);
/// How long Docker may take to notice the end of a container's process.
const DOCKER_LAG: Duration = Duration::from_secs(5);

/// How a kernel comes to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// The manager asks for it.
    Asked,
    /// An earlier life left a container of it.
    Found {
        /// While it restarted the kernel.
        restarting: bool,
    },
    /// An earlier life was ending it, or its container is gone.
    Ended {
        /// Why it ends.
        reason: EndReason,
        /// A restart of it was cut off.
        restarting: bool,
    },
    /// An earlier life was making it, or told its end already: nobody waits for it.
    Leftover,
    /// The manager asks for the end of a kernel that is over, or that this agent never had.
    Unheard(EndReason),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the container.
    Make,
    /// Look at the container of an earlier life, and take it back.
    Look,
    /// The kernel runs: serve it until something happens.
    Serve,
    /// Somebody says that its container has ended: look.
    Check,
    /// The kernel runs and can't be worked with: leave it alone until something happens.
    LeaveAlone,
    /// A restart is wanted: get ready all that it needs, while the kernel runs on. Whatever is refused is refused here.
    Prepare,
    /// Take the container away and start the new one.
    Remake,
    /// Note the kernel's end, before anything is done about it.
    Note(EndReason),
    /// Statistics into Redis; containers, cores and files away.
    Clear {
        /// Whether there may be any.
        has_containers: bool,
    },
    /// Wait until the manager may hear of the end.
    Settle(Instant),
    /// Queue the event of the end.
    Tell,
    /// Remove everything, silently.
    Undo,
    /// The agent stops; what there is lives on for the next one.
    LetGo,
    /// Nothing.
    Over,
}

/// What ended a step, or happened during it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// The container runs, whether made, made anew or taken back.
    Ready(ContainerId),
    /// There is no such container, and will be none; or there is no way to a new one.
    Failed,
    /// The container of an earlier life runs, but can't be worked with.
    Odd(ContainerId),
    /// The container has ended.
    Dead,
    /// The container has not ended, as far as can be told.
    NotDead,
    /// Somebody says that this container has ended.
    Death(ContainerId),
    /// The container's first process has ended, which Docker may not know yet.
    ProcessEnded,
    /// The end is wanted.
    Terminate(EndReason),
    /// The kernel was not used for too long, or its run takes too long, or Docker never noticed its end.
    TimeUp(EndReason),
    /// Whoever asked for it has left without an answer, and knows of no kernel.
    AskerLeft,
    /// A restart is wanted. Where none can be, it has just been refused.
    RestartAsked,
    /// The agent stops.
    Detach,
    /// The step is done.
    Done,
}

/// How far a kernel is, for everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The kernel is being made.
    Creating,
    /// The container of an earlier life is being looked at.
    Looking,
    /// The kernel runs.
    Running,
    /// Between two containers.
    Restarting,
    /// The container runs, and can't be worked with.
    LeftAlone,
    /// The kernel is being ended.
    Ending(EndReason),
    /// The kernel is being undone.
    Undoing,
    /// The kernel is over, and its event is queued.
    Ended(EndReason),
}

/// One kernel's life.
#[derive(Debug)]
pub(super) struct Life {
    /// What is being done.
    step: Step,
    /// Why it ends; `None` while it does not.
    reason: Option<EndReason>,
    /// The container whose end would be the kernel's.
    container: Option<ContainerId>,
    /// Whether that can't be worked with.
    is_odd: bool,
    /// Whether there may be containers to clear.
    has_containers: bool,
    /// Before this the manager would not hear of its end, unless it asks for that.
    quiet_until: Option<Instant>,
    /// Whether the manager asks for its end, and so hears of it.
    is_asked_for: bool,
    /// When the end of its process counts although Docker does not know of it.
    process_ended: Option<Instant>,
}

impl Life {
    /// A life that begins.
    #[must_use]
    pub(super) fn new(begin: Begin, now: Instant) -> Self {
        let mut life = Self {
            step: Step::Over,
            reason: None,
            container: None,
            is_odd: false,
            has_containers: true,
            quiet_until: None,
            is_asked_for: false,
            process_ended: None,
        };
        life.step = match begin {
            Begin::Asked => Step::Make,
            Begin::Found { restarting } => {
                life.expect_deaf_manager(restarting, now);
                Step::Look
            }
            Begin::Ended { reason, restarting } => {
                // A destroy came after the restart, and the manager hears; but for how it was asked since, nobody knows.
                life.expect_deaf_manager(restarting && reason != EndReason::UserRequested, now);
                life.end(reason);
                life.is_asked_for = false;
                Step::Note(reason)
            }
            Begin::Leftover => Step::Undo,
            Begin::Unheard(reason) => {
                life.has_containers = false;
                life.end(reason);
                life.is_asked_for = true;
                Step::Note(reason)
            }
        };
        life
    }

    /// What is to be done.
    #[must_use]
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// How far it is.
    #[must_use]
    pub(super) fn stage(&self) -> Stage {
        match (self.step, self.reason) {
            (Step::Over, Some(reason)) => Stage::Ended(reason),
            (_, Some(reason)) => Stage::Ending(reason),
            (Step::Undo | Step::Over, None) => Stage::Undoing,
            (Step::Remake, None) => Stage::Restarting,
            (Step::Look, None) => Stage::Looking,
            (_, None) if self.container.is_none() => Stage::Creating,
            (_, None) if self.is_odd => Stage::LeftAlone,
            (_, None) => Stage::Running,
        }
    }

    /// When the end of its process counts although Docker does not know of it.
    #[must_use]
    pub(super) fn process_ended(&self) -> Option<Instant> {
        self.process_ended
    }

    /// Takes in what happened; [`Life::step`] tells what is to be done now. What makes no sense in a step changes nothing.
    pub(super) fn take(&mut self, input: Input, now: Instant) {
        self.step = match (self.step, input) {
            // A stop does not wait for a create, and a kernel that nobody was told of is not kept.
            (Step::Make, Input::Failed | Input::AskerLeft | Input::Detach) => Step::Undo,
            (Step::Make, Input::Terminate(reason)) => {
                // Whoever asked for it is told so by an error.
                self.answered(now);
                self.end(reason)
            }
            (Step::Make | Step::Remake, Input::Ready(container)) => {
                self.answered(now);
                self.runs_in(container)
            }

            (Step::Look, Input::Ready(container)) => self.runs_in(container),
            (Step::Look, Input::Odd(container)) => {
                (self.container, self.is_odd) = (Some(container), true);
                Step::LeaveAlone
            }
            (Step::Look | Step::Check, Input::Dead) => self.end(EndReason::SelfTerminated),
            // What was odd about it may be mended.
            (Step::Check, Input::NotDead) if self.is_odd => Step::Look,
            (Step::Check, Input::NotDead) => self.idle(),

            (Step::Serve | Step::LeaveAlone, Input::Death(container))
                if self.container == Some(container.clone()) =>
            {
                Step::Check
            }
            (Step::Serve, Input::ProcessEnded) => {
                self.process_ended = Some(now + DOCKER_LAG);
                Step::Check
            }
            (Step::Serve, Input::TimeUp(reason)) => self.end(reason),
            (Step::Serve, Input::RestartAsked) => Step::Prepare,
            (Step::Prepare, Input::Done) => {
                self.container = None;
                Step::Remake
            }
            // Refused, and nothing has happened to the kernel. The manager writes the refusal down.
            (Step::Prepare, Input::Failed) => {
                self.answered(now);
                Step::Serve
            }
            (Step::Prepare, Input::ProcessEnded) => {
                self.answered(now);
                self.process_ended = Some(now + DOCKER_LAG);
                Step::Check
            }
            (Step::Prepare | Step::Remake, Input::Terminate(reason)) => {
                // Whoever wants the kernel gone wins over a restart; either way the restart is answered.
                self.answered(now);
                self.end(reason)
            }
            (Step::LeaveAlone, Input::RestartAsked) => {
                self.answered(now);
                Step::LeaveAlone
            }
            (Step::Serve | Step::Prepare | Step::Check, Input::AskerLeft) if !self.is_odd => {
                self.container = None;
                Step::Undo
            }
            // An end that is in the journal is told by the next life.
            (
                Step::Look | Step::Serve | Step::LeaveAlone | Step::Prepare | Step::Check | Step::Settle(_),
                Input::Detach,
            ) => Step::LetGo,
            (Step::Look | Step::Serve | Step::LeaveAlone | Step::Check, Input::Terminate(reason)) => {
                self.end(reason)
            }

            (Step::Remake, Input::Failed) => {
                self.answered(now);
                self.end(EndReason::SelfTerminated)
            }

            (Step::Note(_), Input::Done) => Step::Clear { has_containers: self.has_containers },
            (Step::Clear { .. } | Step::Settle(_), Input::Done) => self.may_tell(now),
            (Step::Settle(_), Input::Terminate(EndReason::UserRequested)) => {
                self.is_asked_for = true;
                self.may_tell(now)
            }
            (step @ (Step::Note(_) | Step::Clear { .. }), Input::Terminate(EndReason::UserRequested)) => {
                self.is_asked_for = true;
                step
            }
            // The manager's status goes with the refusal, and it hears only then.
            (step @ (Step::Note(_) | Step::Clear { .. }), Input::RestartAsked) => {
                self.refused(now);
                step
            }
            (Step::Settle(_) | Step::Tell, Input::RestartAsked) => {
                self.refused(now);
                self.may_tell(now)
            }
            (Step::Tell | Step::Undo, Input::Done) => Step::Over,
            (step, _) => step,
        };
    }

    /// Whether the manager may hear of the end, or when.
    ///
    /// The manager ignores the end of a kernel whose create it has not committed, or whose status is still RESTARTING (its
    /// `kernel_terminated` handler), and a session would keep a dead kernel for ever. So an end waits until the manager has
    /// written down the last answer about the kernel, unless the manager has asked for the end since.
    fn may_tell(&self, now: Instant) -> Step {
        match self.quiet_until.filter(|until| !self.is_asked_for && *until > now) {
            Some(until) => Step::Settle(until),
            None => Step::Tell,
        }
    }

    fn answered(&mut self, now: Instant) {
        self.quiet_until = Some(now + SETTLE);
    }

    fn refused(&mut self, now: Instant) {
        self.answered(now);
        self.is_asked_for = false;
    }

    fn runs_in(&mut self, container: ContainerId) -> Step {
        (self.container, self.process_ended, self.is_odd) = (Some(container), None, false);
        self.idle()
    }

    fn idle(&self) -> Step {
        if self.is_odd { Step::LeaveAlone } else { Step::Serve }
    }

    fn end(&mut self, reason: EndReason) -> Step {
        (self.reason, self.is_asked_for) = (Some(reason), reason == EndReason::UserRequested);
        Step::Note(reason)
    }

    /// An earlier life may have answered just before its end. Where it was cut off in a restart, the manager waits for the
    /// answer of that.
    fn expect_deaf_manager(&mut self, restarting: bool, now: Instant) {
        let waits = if restarting { MANAGER_RESTART } else { Duration::ZERO };
        self.quiet_until = Some(now + waits + SETTLE);
    }
}

/// What becomes of a kernel whose task panicked; `None` when nothing is left to do.
#[must_use]
pub(super) fn reborn(stage: Stage) -> Option<Begin> {
    match stage {
        // Nobody was answered.
        Stage::Creating | Stage::Undoing => Some(Begin::Leftover),
        Stage::Looking | Stage::Running | Stage::LeftAlone => Some(Begin::Found { restarting: false }),
        Stage::Restarting => Some(Begin::Ended { reason: EndReason::SelfTerminated, restarting: true }),
        Stage::Ending(reason) => Some(Begin::Ended { reason, restarting: false }),
        // The telling of the end goes on.
        Stage::Ended(_) => None,
    }
}

#[cfg(test)]
mod tests;
