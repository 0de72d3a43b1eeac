//! The agents that are compared, and what the system says of their processes.

use std::time::Duration;

use crate::support::{Agent, Bed, secs};

/// One agent's program.
pub(crate) struct Contender {
    /// What the table calls it.
    pub(crate) name: String,
    command: String,
}

/// What an agent's processes have used so far.
pub(crate) struct Usage {
    /// Processor time, in seconds.
    pub(crate) processor: f64,
    /// Proportional memory, in MiB.
    pub(crate) pss: f64,
    /// The most resident memory of the main process, in MiB.
    pub(crate) peak: f64,
    /// Threads of all processes.
    pub(crate) threads: f64,
}

impl Contender {
    /// The binary of this build or `BENCH_OURS`, then those of `BENCH_AGAINST`.
    pub(crate) fn all() -> Vec<Self> {
        let built = || env!("CARGO_BIN_EXE_backendai-agent").to_owned();
        let ours = Self {
            name: "ours".to_owned(),
            command: std::env::var("BENCH_OURS").unwrap_or_else(|_| built()),
        };
        let against = std::env::var("BENCH_AGAINST").unwrap_or_default();
        let others = against.split(';').filter(|pair| !pair.trim().is_empty()).map(|pair| {
            let (name, command) = pair.split_once('=').expect("BENCH_AGAINST holds name=command");
            Self { name: name.trim().to_owned(), command: command.trim().to_owned() }
        });
        std::iter::once(ours).chain(others).collect()
    }

    /// A bed of its own.
    pub(crate) async fn bed(&self) -> Bed {
        let mut bed = Bed::start().await;
        bed.program.clone_from(&self.command);
        bed
    }

    /// Whether it is the Python agent.
    pub(crate) fn is_python(&self) -> bool {
        self.command.ends_with("server")
    }

    /// Whether it takes part: the Python agent knows no engine but Docker's own.
    pub(crate) fn has(&self, part: &str) -> bool {
        !(self.is_python() && ["runs", "flood", "ends", "lives"].contains(&part))
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&self, bed: &Bed) -> Agent {
        if !self.is_python() {
            return bed.spawn_agent(&[]);
        }
        let args = [
            ("--namespace", bed.namespace.clone()),
            ("--etcd-addr", format!("127.0.0.1:{}", bed.etcd.port())),
            ("--agent-port", bed.rpc().address().port().to_string()),
            ("--scratch-root", bed.scratch().display().to_string()),
            ("--agent-host-override", "127.0.0.1".to_owned()),
            ("--kernel-host-override", "127.0.0.1".to_owned()),
        ];
        let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        bed.spawn_agent_as(&args)
    }

    /// Starts it and waits until it serves.
    pub(crate) async fn serving(&self, bed: &Bed) -> Agent {
        let agent = self.spawn(bed);
        bed.wait_event("instance_started", |_| true, secs(30)).await;
        agent
    }
}

impl Usage {
    /// Of several agents together.
    pub(crate) fn of_all(agents: &[Agent]) -> Self {
        let mut all = Self { processor: 0.0, pss: 0.0, peak: 0.0, threads: 0.0 };
        for one in agents.iter().map(Self::of) {
            all.processor += one.processor;
            all.pss += one.pss;
            all.peak += one.peak;
            all.threads += one.threads;
        }
        all
    }

    /// Of an agent and its children.
    pub(crate) fn of(agent: &Agent) -> Self {
        let mut usage = Self { processor: 0.0, pss: 0.0, peak: 0.0, threads: 0.0 };
        for pid in family(agent.pid()) {
            let read =
                |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            usage.processor += processor_of(pid);
            usage.pss += kib(&read("smaps_rollup"), "Pss:") / 1024.0;
            usage.threads += kib(&read("status"), "Threads:");
            usage.peak = f64::max(usage.peak, kib(&read("status"), "VmHWM:") / 1024.0);
        }
        usage
    }
}

/// Processor time of a process so far, in seconds: of its own clock, as `/proc/PID/stat` counts in steps of 10 ms.
pub(crate) fn processor_of(pid: u32) -> f64 {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid.try_into().unwrap()));
    // A process that has just ended has none.
    clock.and_then(nix::time::ClockId::now).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// Processor time of an agent since `before`.
pub(crate) fn processor_since(before: &Usage, agent: &Agent) -> Duration {
    Duration::from_secs_f64((Usage::of(agent).processor - before.processor).max(0.0))
}

/// The same of several.
pub(crate) fn processor_since_all(before: &Usage, agents: &[Agent]) -> Duration {
    Duration::from_secs_f64((Usage::of_all(agents).processor - before.processor).max(0.0))
}

fn kib(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse().unwrap());
    std::iter::once(pid).chain(children.flat_map(family)).collect()
}
