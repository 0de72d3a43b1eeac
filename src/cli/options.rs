//! What an operator may type: the commands, and how the command line is put together of them and of the agent's settings
//! (`agent`). The library reads the environment; `settings` reports every bad value at once.

// The doc comments of fields and variants are the help texts, which a terminal shows as they are.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;

use clap::{Args, Command, Subcommand};

use super::client_options::{
    AttachArgs, Call, CompleteArgs, CompletionsArgs, CreateArgs, DrainArgs, EventsArgs, ExecArgs, KernelArgs,
    LocalArgs, LogsArgs, ManArgs, PingArgs, ResetArgs, RestartArgs, TopArgs, UploadArgs,
};
use super::dev::DevArgs;

mod agent;

pub(super) use agent::{AgentOpts, ClusterOpts, FILE, KernelOpts, OWN_NETWORK, ObservingOpts, S3Opts};

const EXAMPLES: &str = "\
Examples:
  backendai-agent check --etcd-addr 10.0.0.5:2379
      Look whether everything that the agent needs is there, then end.
  backendai-agent --etcd-addr 10.0.0.5:2379,10.0.0.6:2379 --scratch-root /data/scratches
      Run the agent in the foreground; SIGTERM or ^C ends it, kernels stay.
  BACKEND_DEBUG=yes backendai-agent --log-file /var/log/backendai/agent.log --metrics-addr 127.0.0.1:6090
      Say more, keep JSON lines, offer /metrics, /healthz and /readyz.
  backendai-agent create --lang python:3.6-debian --mem 512
  backendai-agent exec KERNEL 'print(1 + 1)'
      Try an agent on this machine without a manager.

A flag beats its environment variable, which beats the file of settings, which beats the default; an empty variable
counts as not set. `backendai-agent config` shows what came of it, and from where.
Times are seconds (90, 0.5) or have a unit: 250ms, 90s, 10m, 12h, 7d. Switches are set by 1, true, yes or on.
Keys are better set in the environment: ps shows the flags of every process.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 no agent there or no answer; exec and attach: the code's own, or
130 where ^C left a run that goes on; 141 where whoever read the output has gone.";

const ABOUT: &str = "Runs the kernels (Docker containers) of a Backend.AI cluster on this machine.";
const LONG_ABOUT: &str = "Without a command it runs the agent until SIGTERM or SIGINT.";

/// The command line that `args`, the program's name first, are to be read by. A command comes first or not at all,
/// and with one the agent's settings are that command's own, if it has any.
pub(super) fn command(args: &[OsString]) -> Command {
    let with_commands = Action::augment_subcommands(clap::Command::new("backendai-agent"));
    let is_command = args.get(1).is_some_and(|first| with_commands.find_subcommand(first).is_some());
    let command = if is_command { with_commands } else { AgentOpts::augment_args(with_commands) };
    command
        .version(env!("BACKENDAI_VERSION"))
        .about(ABOUT)
        .long_about(format!("{ABOUT}\n\n{LONG_ABOUT}"))
        .after_help(EXAMPLES)
        .max_term_width(110)
        .args_conflicts_with_subcommands(true)
        .allow_negative_numbers(true)
}

/// Whether `args` are to be read with the agent's settings.
pub(super) fn runs_agent(args: &[OsString]) -> bool {
    let with_commands = Action::augment_subcommands(clap::Command::new("backendai-agent"));
    match args.get(1).and_then(|first| with_commands.find_subcommand(first)) {
        Some(command) => ["run", "check"].contains(&command.get_name()),
        None => true,
    }
}

/// The environment variables that the agent's settings read.
pub(super) fn variables() -> Vec<String> {
    let command = AgentOpts::augment_args(clap::Command::new("backendai-agent"));
    command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())).collect()
}

/// Whether the environment sets the agent's option of this name.
pub(super) fn is_set(option: &str) -> bool {
    let command = AgentOpts::augment_args(clap::Command::new("backendai-agent"));
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(option));
    let variable = found.and_then(|arg| arg.get_env().and_then(std::env::var_os));
    variable.is_some_and(|value| !value.is_empty())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Run the agent (also without this word)
    #[command(allow_negative_numbers = true)]
    Run(Box<AgentOpts>),
    /// Look whether everything that the agent needs is there and set up well; ends with 1 where something must be mended
    #[command(allow_negative_numbers = true)]
    Check(Box<CheckArgs>),
    /// Try an agent with nothing but Docker: etcd, Redis and the manager's ear come along, on this machine only
    Dev(DevArgs),
    /// Show every setting as it would be used, and where it comes from; secrets stay hidden
    #[command(allow_negative_numbers = true)]
    Config(Box<ConfigArgs>),
    /// Ask an agent whether it is there
    Ping(Call<PingArgs>),
    /// Create a kernel
    Create(Call<CreateArgs>),
    /// Run code in a kernel, show its output, and end with its exit code
    Exec(Call<ExecArgs>),
    /// Follow a run that goes on, as exec does: after ^C, a lost connection or from elsewhere
    Attach(Call<AttachArgs>),
    /// Ask a kernel for completions
    Complete(Call<CompleteArgs>),
    /// Interrupt what a kernel is running
    Interrupt(Call<KernelArgs>),
    /// Put a file into a kernel's working directory
    Upload(Call<UploadArgs>),
    /// Show the log of a kernel's container
    Logs(LogsArgs),
    /// Replace a kernel's container and keep its files
    Restart(Call<RestartArgs>),
    /// End a kernel and show its last statistics
    Destroy(Call<KernelArgs>),
    /// End all kernels of an agent
    Reset(Call<ResetArgs>),
    /// Show how the agent of this machine does: its needs, its node, its last warnings
    Status(LocalArgs),
    /// List its kernels
    Ps(LocalArgs),
    /// List its kernels again and again, with what they use
    Top(TopArgs),
    /// Offer no slots and make no kernels any more, also after a restart, until resume
    Drain(DrainArgs),
    /// End a drain
    Resume(LocalArgs),
    /// Show what it tells its manager, or with --bind listen in the manager's place
    Events(EventsArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write the man pages into a directory
    Man(ManArgs),
}

/// `check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) agent: AgentOpts,
    #[command(flatten)]
    pub(super) form: CheckForm,
}

/// How `check` tells what it found.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckForm {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// End with 1 also where something may only surprise
    #[arg(long)]
    pub(super) strict: bool,
}

/// `config`.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    pub(super) agent: AgentOpts,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
