//! The arguments of the commands that are not the agent's own life. Each is checked by its type as it is parsed: there are few
//! of them, and a person has just typed them.

// The doc comments of fields and variants are the help texts, which a terminal shows as they are.
#![allow(clippy::doc_markdown)]

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use super::values::{self, wants};
use crate::address::HostPort;
use crate::ids::{KernelId, RunId};
use crate::units::{Cores, Gpus};
use crate::wire::config::Mount;

/// A command that talks to an agent: its own arguments, and which agent.
#[derive(Debug, Clone, Args)]
pub struct Call<T: Args> {
    /// The command's own.
    #[command(flatten)]
    pub args: T,
    /// The agent.
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Which agent to talk to, and how patiently; every such command has these.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The agent to talk to
    #[arg(long, env = "BACKENDAI_AGENT", value_name = "HOST:PORT", default_value = "127.0.0.1:6001")]
    #[arg(value_parser = wants("HOST:PORT, with or without tcp://", values::endpoint))]
    pub agent: HostPort,
    /// How long to wait for each answer [default: the manager's limit for the call, and a minute for create]
    #[arg(long, value_name = "TIME", value_parser = wants("a time such as 3, 500ms or 10m", patience))]
    pub timeout: Option<Duration>,
    /// Print answers as JSON, one value a line
    #[arg(long)]
    pub json: bool,
}

/// `ping`.
#[derive(Debug, Clone, Args)]
pub struct PingArgs {
    /// What the agent shall say back
    #[arg(default_value = "hello")]
    pub message: String,
    /// Ask so many times, and show how long each answer took
    #[arg(long, value_name = "N", default_value = "1")]
    pub count: NonZeroU64,
}

/// What a kernel gets from its machine.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
pub struct LimitArgs {
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value = "256")]
    pub mem: NonZeroU64,
    /// Cores; may be a fraction
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = wants("a number above 0", some_cores))]
    pub cpu: Cores,
    /// GPUs; may be a fraction
    #[arg(long, value_name = "DEVICES", default_value = "0")]
    pub gpu: Gpus,
}

/// `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete
    pub shell: Shell,
}

/// `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Where to put them; made if it isn't there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// `create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The kernel image without the prefix lablup/kernel-, such as python:3.6-debian
    #[arg(long, value_name = "NAME:TAG")]
    pub lang: String,
    /// The kernel's id, a UUID; made up when absent, and printed either way
    #[arg(long, value_name = "UUID")]
    pub kernel_id: Option<KernelId>,
    /// Its share of the machine.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// An environment variable for the code; repeatable
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub environ: Vec<EnvVar>,
    /// A virtual folder; repeatable
    #[arg(long = "mount", value_name = "NAME:HOST:ID", value_parser = mount)]
    pub mounts: Vec<Mount>,
}

/// `exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// The kernel
    pub kernel: KernelId,
    /// The code, or - to read it from standard input; without it, input() lines and batch commands do the work
    pub code: Option<String>,
    /// query sends the code; batch runs --build and --exec on uploaded files
    #[arg(long, value_enum, default_value = "query")]
    pub mode: ExecMode,
    /// batch: the build command; * asks the kernel for its default
    #[arg(long, value_name = "COMMAND")]
    pub build: Option<String>,
    /// batch: the command that runs what was built
    #[arg(long = "exec", value_name = "COMMAND")]
    pub exec: Option<String>,
    /// The run's id; made up when absent
    #[arg(long, value_name = "ID", value_parser = wants("a text that is not blank", run_id))]
    pub run_id: Option<RunId>,
    /// The form of the answers: 1 separates stdout and stderr, 2 and 3 keep their order
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub api_version: u8,
    /// An answer for the code's input(), in order; repeatable. When they are used up, standard input is read
    #[arg(long = "input", value_name = "TEXT", allow_hyphen_values = true)]
    pub inputs: Vec<String>,
}

/// `attach`.
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// The kernel
    pub kernel: KernelId,
    /// The run, as exec shows it
    #[arg(value_parser = wants("a text that is not blank", run_id))]
    pub run: RunId,
    /// The form of the answers, as for exec
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub api_version: u8,
    /// An answer for the code's input(), in order; repeatable. When they are used up, standard input is read
    #[arg(long = "input", value_name = "TEXT", allow_hyphen_values = true)]
    pub inputs: Vec<String>,
}

/// How code reaches a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecMode {
    /// As source.
    Query,
    /// As commands on files.
    Batch,
}

/// `complete`.
#[derive(Debug, Clone, Args)]
pub struct CompleteArgs {
    /// The kernel
    pub kernel: KernelId,
    /// What was typed so far
    pub text: String,
}

/// `interrupt` and `destroy`.
#[derive(Debug, Clone, Args)]
pub struct KernelArgs {
    /// The kernel
    pub kernel: KernelId,
}

/// `upload`.
#[derive(Debug, Clone, Args)]
pub struct UploadArgs {
    /// The kernel
    pub kernel: KernelId,
    /// The file to send
    pub file: PathBuf,
    /// Its path in the kernel's working directory [default: its own name]
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<String>,
}

/// `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The kernel
    pub kernel: KernelId,
    /// Only so many of the last lines
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// Ask the agent at this port instead, as a manager would
    #[arg(long, env = "BACKENDAI_AGENT", value_name = "HOST:PORT")]
    #[arg(value_parser = wants("HOST:PORT, with or without tcp://", values::endpoint))]
    pub agent: Option<HostPort>,
    /// How long to wait for the answer [default: 6 s]
    #[arg(long, value_name = "TIME", value_parser = wants("a time such as 3, 500ms or 10m", patience))]
    pub timeout: Option<Duration>,
    /// The agent.
    #[command(flatten)]
    pub local: LocalArgs,
}

impl LogsArgs {
    /// The agent to ask at its port; `None` for the local socket. A socket that was named wins over a port that the environment names.
    #[must_use]
    pub fn port(&self) -> Option<AgentArgs> {
        let agent = self.agent.clone().filter(|_| self.local.socket.is_none())?;
        Some(AgentArgs { agent, timeout: self.timeout, json: self.local.json })
    }
}

/// `restart`; what is not given stays as it was.
#[derive(Debug, Clone, Args)]
pub struct RestartArgs {
    /// The kernel
    pub kernel: KernelId,
    /// Another image
    #[arg(long, value_name = "NAME:TAG")]
    pub lang: Option<String>,
    /// Another limit of memory, in MiB
    #[arg(long, value_name = "MIB")]
    pub mem: Option<NonZeroU64>,
    /// Another number of cores
    #[arg(long, value_name = "CORES", value_parser = wants("a number above 0", some_cores))]
    pub cpu: Option<Cores>,
    /// Another number of GPUs
    #[arg(long, value_name = "DEVICES")]
    pub gpu: Option<Gpus>,
    /// Another environment, all of it; repeatable
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub environ: Vec<EnvVar>,
    /// Other virtual folders, all of them; repeatable
    #[arg(long = "mount", value_name = "NAME:HOST:ID", value_parser = mount)]
    pub mounts: Vec<Mount>,
}

/// `reset`.
#[derive(Debug, Clone, Args)]
pub struct ResetArgs {
    /// Yes, end every kernel of this agent
    #[arg(long, required = true)]
    pub yes: bool,
}

/// Which agent of this machine to look at; `status`, `ps` and `resume` have nothing else.
#[derive(Debug, Clone, Args)]
pub struct LocalArgs {
    /// The agent's local socket [default: the only one in /run/backendai-agent and, for an ordinary user, in that user's own directories]
    #[arg(long, env = "BACKENDAI_AGENT_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON, one value a line
    #[arg(long)]
    pub json: bool,
}

/// `top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// Look so many times [default: until ^C]
    #[arg(long, value_name = "N")]
    pub count: Option<NonZeroU64>,
    /// From one look to the next
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = wants("a time such as 2 or 500ms", patience))]
    pub every: Duration,
    /// The agent.
    #[command(flatten)]
    pub local: LocalArgs,
}

/// `drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Wait until no kernel is left, and say how many there are
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up after so long, with exit code 1; the node stays drained
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = wants("a time such as 90s, 10m or 1h", patience))]
    pub timeout: Option<Duration>,
    /// End the kernels that are there
    #[arg(long)]
    pub end: bool,
    /// The agent.
    #[command(flatten)]
    pub local: LocalArgs,
}

/// `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Listen here in the manager's place instead; nodes/manager/event_addr in etcd tells agents to come here
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "socket")]
    #[arg(value_parser = wants("HOST:PORT, with or without tcp://", values::endpoint))]
    pub bind: Option<HostPort>,
    /// End after so many events [default: at ^C]
    #[arg(long, value_name = "N")]
    pub count: Option<NonZeroU64>,
    /// Leave heartbeats out
    #[arg(long)]
    pub no_heartbeats: bool,
    /// The agent.
    #[command(flatten)]
    pub local: LocalArgs,
}

/// An environment variable for a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Not empty.
    pub name: String,
    /// Anything.
    pub value: String,
}

impl FromStr for EnvVar {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("give NAME=VALUE"),
        }
    }
}

/// A virtual folder. The agent checks the parts; here they only must be there.
fn mount(text: &str) -> Result<Mount, &'static str> {
    let mut parts = text.splitn(3, ':').map(str::to_owned).filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(host), Some(id)) => Ok(Mount { name, host, id }),
        _ => Err("give NAME:HOST:ID"),
    }
}

fn patience(text: &str) -> Option<Duration> {
    values::duration(text).filter(|time| !time.is_zero())
}

fn some_cores(text: &str) -> Option<Cores> {
    text.parse().ok().filter(|cores| *cores > Cores::default())
}

fn run_id(text: &str) -> Option<RunId> {
    values::text(text).map(RunId::new)
}
