//! The kernels as whoever looks at the agent sees them.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::phase::Phase;
use super::registry::Kernels;
use crate::ids::{ContainerId, KernelId, RunId};
use crate::units::Memory;
use crate::wire::event::EndReason;
use crate::wire::sample::Sample;

/// How far a kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being made.
    Creating,
    /// The agent has just started, and looks at it.
    Looking,
    /// It runs.
    Running,
    /// Between two containers.
    Restarting,
    /// It runs, and the agent can't work with it.
    LeftAlone,
    /// It is being ended.
    Ending(EndReason),
    /// It was never ready, and is being removed.
    Undoing,
}

impl State {
    /// What it is called in `/status` and by the figures (`figures::table::STATES`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Looking => "looking",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::LeftAlone => "left-alone",
            Self::Ending(_) => "ending",
            Self::Undoing => "undoing",
        }
    }
}

/// One kernel at one moment. Holds nothing of what its user gave it: no environment, no code, no output.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// Which.
    pub kernel: KernelId,
    /// How far it is.
    pub state: State,
    /// Why it can't be used, where that is not what its state says.
    pub problem: Option<String>,
    /// What it runs in; `None` unless it runs.
    pub running: Option<RunningKernel>,
}

/// A kernel that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningKernel {
    /// Its image without the prefix, `python:3.6-debian`.
    pub image: String,
    /// Its container.
    pub container: ContainerId,
    /// When it was created; `None` where its file system does not know.
    pub born: Option<SystemTime>,
    /// Its cores.
    pub cpu_set: Vec<u32>,
    /// Its GPUs.
    pub gpu_set: Vec<u32>,
    /// What its containers may use of memory; 0 for no limit.
    pub memory_limit: Memory,
    /// The run that goes on.
    pub run: Option<RunId>,
    /// For how long code runs; `None` while none does.
    pub runs_for: Option<Duration>,
    /// Whether the run waits for input.
    pub wants_input: bool,
    /// Callers whose runs wait for their turn.
    pub queue: usize,
    /// For how long nobody has used it; `None` while somebody does.
    pub idle_for: Option<Duration>,
    /// Its figures, once they were taken.
    pub sample: Option<Sample>,
}

impl Kernels {
    /// All kernels, the oldest first. Waits for nobody.
    #[must_use]
    pub fn overview(&self) -> Vec<Overview> {
        let phases = self.phases();
        let look = |(kernel, phase): &(KernelId, Phase)| self.look_at(*kernel, phase);
        let mut kernels: Vec<Overview> = phases.iter().map(look).collect();
        let born = |kernel: &Overview| kernel.running.as_ref().and_then(|running| running.born);
        kernels.sort_by_key(|kernel| (born(kernel).is_none(), born(kernel), kernel.kernel.to_string()));
        kernels
    }

    fn look_at(&self, kernel: KernelId, phase: &Phase) -> Overview {
        let (state, problem, running) = match phase {
            Phase::Creating => (State::Creating, None, None),
            Phase::Looking(_) => (State::Looking, None, None),
            Phase::Restarting => (State::Restarting, None, None),
            Phase::LeftAlone(_, why) => (State::LeftAlone, Some(why.to_string()), None),
            Phase::Ending(reason, _) => (State::Ending(*reason), None, None),
            Phase::Gone(_) => (State::Undoing, None, None),
            Phase::Running(live) => {
                // One after the other: the runner publishes its activity with its queue locked, so whoever looks at the
                // activity must not wait for the queue.
                let activity = live.runner.activity().borrow().clone();
                let queue = live.runner.queue();
                let running = RunningKernel {
                    image: live.config.lang.clone(),
                    container: live.place.container.clone(),
                    born: live.born,
                    cpu_set: live.place.cpu_set.clone(),
                    gpu_set: live.place.gpu_set.clone(),
                    memory_limit: live.config.limits.mem_slot,
                    run: activity.run.clone(),
                    runs_for: activity.running_since.map(|since| since.elapsed()),
                    wants_input: activity.waits,
                    queue,
                    idle_for: (!activity.in_use).then(|| Instant::now() - *live.last_use.borrow()),
                    sample: self.node.collector.last_seen(kernel),
                };
                (State::Running, None, Some(running))
            }
        };
        Overview { kernel, state, problem, running }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::table;

    #[test]
    fn each_state_is_one_of_the_figures() {
        let states = [
            State::Creating,
            State::Looking,
            State::Running,
            State::Restarting,
            State::LeftAlone,
            State::Ending(EndReason::AgentReset),
            State::Undoing,
        ];
        assert_eq!(states.map(State::name), table::STATES);
    }
}
