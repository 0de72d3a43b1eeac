//! The command line: what an operator may type, and what it means. The only place that is given the environment.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod check;
mod client_options;
mod commands;
mod config;
mod events;
mod exec;
mod options;
mod paths;
mod report;
mod run;
mod settings;
mod values;

pub use client_options::{
    AgentArgs, Call, CompleteArgs, CreateArgs, EnvVar, EventsArgs, ExecArgs, ExecMode, KernelArgs, LimitArgs,
    LogsArgs, Mount, PingArgs, ResetArgs, RestartArgs, UploadArgs,
};
pub use options::{Action, AgentOpts, Opts};
pub use report::{ConfigErrors, Origin, Problem};
pub use run::run;

use crate::address::HostPort;
use crate::agent::config::Config;
use config::Reading;

/// What is to be done, with every value checked.
#[derive(Debug)]
pub enum Command {
    /// Run the agent.
    Run(Box<Config>),
    /// Check what the agent needs.
    Check(Box<Config>),
    /// Talk to an agent.
    Client(Target, ClientCommand),
    /// Listen for events.
    Events(EventsArgs),
}

/// The agent that a client command talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its RPC address.
    pub addr: HostPort,
    /// How long to wait for each answer; `None` leaves it to the call.
    pub timeout: Option<Duration>,
    /// Answers as JSON.
    pub json: bool,
}

/// A command that talks to an agent.
#[derive(Debug, Clone)]
pub enum ClientCommand {
    /// Is it there?
    Ping(PingArgs),
    /// Create a kernel.
    Create(CreateArgs),
    /// Run code.
    Exec(ExecArgs),
    /// Completions.
    Complete(CompleteArgs),
    /// Interrupt a run.
    Interrupt(KernelArgs),
    /// Send a file.
    Upload(UploadArgs),
    /// A container's log.
    Logs(LogsArgs),
    /// Replace a container.
    Restart(RestartArgs),
    /// End a kernel.
    Destroy(KernelArgs),
    /// End all kernels.
    Reset(ResetArgs),
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it did not work.
    Failed,
    /// 2: wrong usage or settings; nothing was begun.
    Usage,
    /// 3: no answer from the agent.
    NoAnswer,
    /// `exec`: the code's own exit code.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoAnswer => 3,
            Exit::Code(code) => code,
        })
    }
}

/// Why there is nothing to be done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A flag or command that doesn't exist, a missing argument; or the operator asked for help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Settings that can't be used.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
}

/// What the command line and the environment ask for. Looks at the file system, for the paths among the settings,
/// and changes nothing.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Command, Refusal> {
    let Opts { action, agent } = Opts::try_parse_from(args)?;
    let client = |args: AgentArgs, command| Ok(Command::Client(target(args, env)?, command));
    match action {
        None => Ok(Command::Run(Box::new(settings(&agent, env)?))),
        Some(Action::Run(agent)) => Ok(Command::Run(Box::new(settings(&agent, env)?))),
        Some(Action::Check(agent)) => Ok(Command::Check(Box::new(settings(&agent, env)?))),
        Some(Action::Ping(call)) => client(call.agent, ClientCommand::Ping(call.args)),
        Some(Action::Create(call)) => client(call.agent, ClientCommand::Create(call.args)),
        Some(Action::Exec(call)) => client(call.agent, ClientCommand::Exec(call.args)),
        Some(Action::Complete(call)) => client(call.agent, ClientCommand::Complete(call.args)),
        Some(Action::Interrupt(call)) => client(call.agent, ClientCommand::Interrupt(call.args)),
        Some(Action::Upload(call)) => client(call.agent, ClientCommand::Upload(call.args)),
        Some(Action::Logs(call)) => client(call.agent, ClientCommand::Logs(call.args)),
        Some(Action::Restart(call)) => client(call.agent, ClientCommand::Restart(call.args)),
        Some(Action::Destroy(call)) => client(call.agent, ClientCommand::Destroy(call.args)),
        Some(Action::Reset(call)) => client(call.agent, ClientCommand::Reset(call.args)),
        Some(Action::Events(args)) => Ok(Command::Events(args)),
    }
}

/// The agent's settings: what is wrong with values and what is wrong with paths come in one report.
fn settings(opts: &AgentOpts, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    // Without a current directory a relative path is as good below the root as anywhere: it won't be found.
    let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let Reading { config, paths } = config::read(opts, env, &cwd);
    let at_paths = paths::check(&paths);
    match config {
        Ok(config) if at_paths.is_empty() => Ok(config),
        Ok(_) => Err(ConfigErrors { problems: at_paths }),
        Err(ConfigErrors { problems }) => {
            Err(ConfigErrors { problems: problems.into_iter().chain(at_paths).collect() })
        }
    }
}

/// The agent that a client command talks to.
fn target(args: AgentArgs, env: &dyn Fn(&str) -> Option<String>) -> Result<Target, ConfigErrors> {
    let AgentArgs { agent, timeout, json } = args;
    let addr = config::target(agent.as_ref(), env)?;
    Ok(Target { addr, timeout, json })
}

impl Refusal {
    /// Tells the operator: help and version on stdout, all else on stderr.
    #[must_use]
    pub fn show(&self) -> Exit {
        match self {
            Self::Usage(error) => {
                // Nobody to tell when the terminal is gone.
                let _ = error.print();
                if error.use_stderr() { Exit::Usage } else { Exit::Done }
            }
            Self::Settings(_) => {
                eprintln!("backendai-agent: {self}");
                Exit::Usage
            }
        }
    }
}

#[cfg(test)]
mod tests;
