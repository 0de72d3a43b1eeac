//! The command line: what an operator may type, and what it means. The only place that reads the environment.

use std::ffi::OsString;

use clap::FromArgMatches;

mod check;
mod client_options;
mod commands;
mod config;
mod dev;
mod events;
mod exec;
mod exit;
mod local;
mod options;
mod papers;
mod paths;
mod report;
mod run;
mod settings;
mod signals;
mod terminal;
mod values;
mod variables;

pub use client_options::{
    AgentArgs, Call, CompleteArgs, CompletionsArgs, CreateArgs, DrainArgs, EnvVar, EventsArgs, ExecArgs,
    ExecMode, KernelArgs, LimitArgs, LocalArgs, LogsArgs, ManArgs, PingArgs, ResetArgs, RestartArgs, TopArgs,
    UploadArgs,
};
pub use exit::Exit;
pub use report::{ConfigErrors, Refusal};
pub use run::run;

use crate::agent::config::Config;
use options::{Action, AgentOpts};

/// What is to be done, with every value checked.
#[derive(Debug)]
pub enum Command {
    /// Run the agent.
    Run(Box<Config>),
    /// Check what the agent needs.
    Check(Box<Config>),
    /// Run the agent with all that it needs.
    Dev(Box<Config>),
    /// Talk to an agent.
    Client(AgentArgs, ClientCommand),
    /// Look at an agent of this machine, or drain it.
    Local(LocalCommand),
    /// Listen for events.
    Events(EventsArgs),
    /// Print completions.
    Completions(CompletionsArgs),
    /// Write man pages.
    Man(ManArgs),
}

/// A command for an agent of this machine.
#[derive(Debug, Clone)]
pub enum LocalCommand {
    /// How it does.
    Status(LocalArgs),
    /// Its kernels.
    Ps(LocalArgs),
    /// Its kernels, again and again.
    Top(TopArgs),
    /// Takes it out of the manager's choice.
    Drain(DrainArgs),
    /// Puts it back.
    Resume(LocalArgs),
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

/// What the command line and the environment ask for. Looks at the file system, for the paths among the settings,
/// and changes nothing.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    let args: Vec<_> = args.into_iter().collect();
    let mut command = read(settings::without_empty_variables(options::command(&args)), &args)?;
    if let Command::Run(config) | Command::Check(config) = &mut command {
        config.warnings.extend(variables::unread(std::env::vars_os(), &options::variables()));
    }
    Ok(command)
}

fn read(command: clap::Command, args: &[OsString]) -> Result<Command, Refusal> {
    let matches = settings::read(command, args)?;
    if matches.subcommand_name().is_none() {
        let agent = AgentOpts::from_arg_matches(&matches)?;
        return Ok(Command::Run(Box::new(config::config(agent))));
    }
    let client = |args, command| Command::Client(args, command);
    Ok(match Action::from_arg_matches(&matches)? {
        Action::Run(agent) => Command::Run(Box::new(config::config(*agent))),
        Action::Check(agent) => Command::Check(Box::new(config::config(*agent))),
        Action::Dev(dev) => {
            let line = dev.line();
            let command = settings::without_own_variables(options::command(&line));
            match read(command, &line)? {
                Command::Run(config) => Command::Dev(Box::new(dev.settled(*config, std::env::home_dir()))),
                other => other,
            }
        }
        Action::Ping(call) => client(call.agent, ClientCommand::Ping(call.args)),
        Action::Create(call) => client(call.agent, ClientCommand::Create(call.args)),
        Action::Exec(call) => client(call.agent, ClientCommand::Exec(call.args)),
        Action::Complete(call) => client(call.agent, ClientCommand::Complete(call.args)),
        Action::Interrupt(call) => client(call.agent, ClientCommand::Interrupt(call.args)),
        Action::Upload(call) => client(call.agent, ClientCommand::Upload(call.args)),
        Action::Logs(call) => client(call.agent, ClientCommand::Logs(call.args)),
        Action::Restart(call) => client(call.agent, ClientCommand::Restart(call.args)),
        Action::Destroy(call) => client(call.agent, ClientCommand::Destroy(call.args)),
        Action::Reset(call) => client(call.agent, ClientCommand::Reset(call.args)),
        Action::Status(args) => Command::Local(LocalCommand::Status(args)),
        Action::Ps(args) => Command::Local(LocalCommand::Ps(args)),
        Action::Top(args) => Command::Local(LocalCommand::Top(args)),
        Action::Drain(args) => Command::Local(LocalCommand::Drain(args)),
        Action::Resume(args) => Command::Local(LocalCommand::Resume(args)),
        Action::Events(args) => Command::Events(args),
        Action::Completions(args) => Command::Completions(args),
        Action::Man(args) => Command::Man(args),
    })
}

#[cfg(test)]
mod tests;
