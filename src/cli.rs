//! The command line: what an operator may type, and what it means. The only place that reads the environment.

use std::ffi::OsString;
use std::path::Path;

use clap::{ArgMatches, FromArgMatches};

mod access;
mod away;
mod check;
mod client_options;
mod commands;
mod config;
mod dev;
mod effective;
mod events;
mod exec;
mod exit;
mod file;
mod follow;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod heap;
mod inventory;
mod keyboard;
mod local;
mod options;
mod papers;
mod paths;
mod reload;
mod report;
mod run;
mod settings;
mod signals;
mod sockets;
mod terminal;
mod values;
mod variables;

pub use client_options::{
    AgentArgs, AttachArgs, Call, CompleteArgs, CompletionsArgs, CreateArgs, DrainArgs, EnvVar, EventsArgs,
    ExecArgs, ExecMode, KernelArgs, LimitArgs, LocalArgs, LogsArgs, ManArgs, PingArgs, ResetArgs,
    RestartArgs, TopArgs, UploadArgs,
};
pub use effective::Effective;
pub use exit::Exit;
pub use report::{ConfigErrors, Refusal};
pub use run::run;

use crate::agent::config::{Config, SocketPlace};
pub use options::CheckForm;
use options::{Action, AgentOpts};
use settings::{Load, Reading};

/// What is to be done, with every value checked.
#[derive(Debug)]
pub enum Command {
    /// Run the agent.
    Run(Box<Settings>),
    /// Check what the agent needs.
    Check(Box<Settings>, CheckForm),
    /// Run the agent with all that it needs.
    Dev(Box<Settings>),
    /// Show the settings; as JSON where that is true.
    Config(Box<Settings>, bool),
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
    /// The log of a kernel's container.
    Logs(LogsArgs),
    /// Takes it out of the manager's choice.
    Drain(DrainArgs),
    /// Puts it back.
    Resume(LocalArgs),
}

impl LocalCommand {
    /// Whether nothing is left to do where nobody reads the output.
    fn only_shows(&self) -> bool {
        !matches!(self, Self::Drain(_) | Self::Resume(_))
    }
}

/// The agent's settings: what they mean, and as they were given.
#[derive(Debug)]
pub struct Settings {
    /// What they mean.
    pub config: Config,
    /// Each of them, and where it comes from.
    pub effective: Effective,
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
    /// Follow a run.
    Attach(AttachArgs),
    /// Completions.
    Complete(CompleteArgs),
    /// Interrupt a run.
    Interrupt(KernelArgs),
    /// Send a file.
    Upload(UploadArgs),
    /// A container's log, from an agent at its port.
    Logs(LogsArgs),
    /// Replace a container.
    Restart(RestartArgs),
    /// End a kernel.
    Destroy(KernelArgs),
    /// End all kernels.
    Reset(ResetArgs),
}

impl ClientCommand {
    /// Whether nothing is left to do where nobody reads the output. A run goes on without somebody who follows it; what was
    /// asked for by the others would be undone or left half-done.
    fn only_shows(&self) -> bool {
        matches!(self, Self::Ping(_) | Self::Exec(_) | Self::Attach(_) | Self::Complete(_) | Self::Logs(_))
    }
}

/// What the command line, the environment and the file of settings ask for. Looks at the file system, for the paths
/// among the settings, and changes nothing.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    let mut args: Vec<_> = args.into_iter().collect();
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| options::runs_agent(&args))
    {
        args.extend(access::credentials(Path::new(&directory), &args, options::is_set));
    }
    let load: Load<'_> = &paths::settings_file;
    let mut command = read(settings::without_empty_variables(options::command(&args)), &args, load)?;
    if let Command::Run(settings) | Command::Check(settings, _) | Command::Dev(settings) = &mut command
        && let SocketPlace::In(_) = settings.config.socket
    {
        settings.config.socket = sockets::User::of_this_process().place();
    }
    if let Command::Run(settings) | Command::Check(settings, _) | Command::Config(settings, _) = &mut command
    {
        let Settings { config, effective } = &mut **settings;
        config.warnings.extend(variables::unread(std::env::vars_os(), &options::variables()));
        config.warnings.extend(effective.secret_in_file().and_then(|(path, key)| paths::is_open(path, key)));
    }
    Ok(command)
}

fn read(command: clap::Command, args: &[OsString], load: Load<'_>) -> Result<Command, Refusal> {
    let reading = settings::read(command, args, load)?;
    let matches = &reading.matches;
    let Some((_, own)) = matches.subcommand() else {
        let agent = AgentOpts::from_arg_matches(matches)?;
        return Ok(Command::Run(agent_settings(agent, &reading, matches)));
    };
    let agent = |opts| agent_settings(opts, &reading, own);
    let client = |args, command| Command::Client(args, command);
    Ok(match Action::from_arg_matches(matches)? {
        Action::Run(opts) => Command::Run(agent(*opts)),
        Action::Check(args) => Command::Check(agent(args.agent), args.form),
        Action::Config(args) => Command::Config(agent(args.agent), args.json),
        Action::Dev(dev) => {
            let line = dev.line();
            let command = settings::without_own_variables(options::command(&line));
            let nothing: Load<'_> = &|_| Err(std::io::ErrorKind::NotFound.into());
            match read(command, &line, if dev.names_a_file() { load } else { nothing })? {
                Command::Run(settings) => {
                    let Settings { config, effective } = *settings;
                    let config = dev.settled(config, std::env::home_dir());
                    Command::Dev(Box::new(Settings { config, effective }))
                }
                other => other,
            }
        }
        Action::Ping(call) => client(call.agent, ClientCommand::Ping(call.args)),
        Action::Create(call) => client(call.agent, ClientCommand::Create(call.args)),
        Action::Exec(call) => client(call.agent, ClientCommand::Exec(call.args)),
        Action::Attach(call) => client(call.agent, ClientCommand::Attach(call.args)),
        Action::Complete(call) => client(call.agent, ClientCommand::Complete(call.args)),
        Action::Interrupt(call) => client(call.agent, ClientCommand::Interrupt(call.args)),
        Action::Upload(call) => client(call.agent, ClientCommand::Upload(call.args)),
        Action::Logs(args) => match args.port() {
            Some(agent) => client(agent, ClientCommand::Logs(args)),
            None => Command::Local(LocalCommand::Logs(args)),
        },
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

fn agent_settings(opts: AgentOpts, reading: &Reading, matches: &ArgMatches) -> Box<Settings> {
    Box::new(Settings { config: config::config(opts), effective: Effective::of(reading, matches) })
}

#[cfg(test)]
mod tests;
