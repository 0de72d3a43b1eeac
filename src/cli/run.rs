//! Carries a checked command out.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::reload::Reload;
use super::{
    AgentArgs, ClientCommand, Command, Exit, Settings, commands, dev, events, heap, local, papers, signals,
    terminal,
};
use crate::agent::{self, Stop};
use crate::client::{CallError, Client, LocalError};
use crate::telemetry::{self, Telemetry};

/// The most threads that run tasks.
const MOST_WORKERS: usize = 4;

/// Does what was asked, to the end.
#[must_use]
pub fn run(command: Command) -> Exit {
    // One provider for every TLS connection of the process; a second install could only be of the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Run(settings) => {
            heap::tell();
            run_agent(*settings, false)
        }
        Command::Dev(settings) => {
            heap::tell();
            run_agent(*settings, true)
        }
        Command::Check(settings, form) => blocking(super::check::check(settings.config, form)),
        Command::Config(settings, json) => show(&settings, json),
        Command::Completions(args) => papers::completions(&args),
        Command::Man(args) => papers::man(&args),
        Command::Client(args, command) if command.only_shows() => {
            blocking(while_read(run_client(args, command)))
        }
        Command::Client(args, command) => blocking(run_client(args, command)),
        Command::Local(command) if command.only_shows() => {
            blocking(while_read(async { local_shown(local::perform(command).await) }))
        }
        Command::Local(command) => blocking(async { local_shown(local::perform(command).await) }),
        Command::Events(args) => match args.bind.clone() {
            Some(at) => {
                blocking(while_read(async move { events::listen(args, &at).await.unwrap_or_else(failed) }))
            }
            None => blocking(while_read(async { local_shown(events::follow(args).await) })),
        },
    }
}

fn show(Settings { config, effective }: &Settings, json: bool) -> Exit {
    let text = if json { format!("{:#}\n", effective.as_json()) } else { effective.as_toml() };
    terminal::print(&text);
    for warning in &config.warnings {
        terminal::complain(warning);
    }
    Exit::Done
}

/// What runs the tasks: a thread for each two cores. Tasks wait nearly always, and what computes or blocks for long has threads of its own
/// for a while. On two cores a second thread made calls and output dearer by a tenth to a fifth, for waking one another. Where it is one,
/// the main thread is it.
fn runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut builder = match (cores / 2).min(MOST_WORKERS) {
        0 | 1 => Builder::new_current_thread(),
        several => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(several);
            builder
        }
    };
    builder.enable_all().build()
}

fn blocking(future: impl Future<Output = Exit>) -> Exit {
    match runtime() {
        Ok(runtime) => {
            let exit = runtime.block_on(future);
            // Threads that hang in a system call must not keep the process.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            terminal::complain(&format!("could not start the runtime: {error}"));
            Exit::Failed
        }
    }
}

/// `work`, given up when whoever read its output has gone: then there is nobody to go on for.
async fn while_read(work: impl Future<Output = Exit>) -> Exit {
    tokio::select! {
        // What is done has the exit code of what was done.
        biased;
        exit = work => exit,
        () = terminal::unread() => Exit::Unread,
    }
}

/// Runs the agent, with all that it needs around it if it `is_dev`.
fn run_agent(settings: Settings, is_dev: bool) -> Exit {
    let telemetry = match telemetry::init(&settings.config.telemetry) {
        Ok(telemetry) => Arc::new(telemetry),
        Err(error) => {
            terminal::complain(&format!("{:#}", anyhow::Error::from(error)));
            return Exit::Failed;
        }
    };
    let ended = live(settings, is_dev, &telemetry);
    if let Err(error) = &ended {
        tracing::error!("giving up: {error:#}");
    }
    // Not by dropping it: the thread that limits the stop may have it, too.
    telemetry.close(telemetry::CLOSE_LIMIT);
    if ended.is_ok() { Exit::Done } else { Exit::Failed }
}

/// The agent's whole life.
fn live(settings: Settings, is_dev: bool, telemetry: &Arc<Telemetry>) -> anyhow::Result<()> {
    let Settings { config, effective } = settings;
    let runtime = runtime().context("could not start the runtime")?;
    raise_descriptor_limit();
    forbid_cores();
    let ended = runtime.block_on(async {
        let stop = Stop::default();
        let (changes, changeable) = watch::channel(config.changeable.clone());
        let reload = Reload::new(effective, changes, Arc::clone(telemetry));
        signals::listen(stop.clone(), telemetry, reload).context("could not listen for signals")?;
        if is_dev {
            return Box::pin(dev::run(config, changeable, telemetry, stop)).await;
        }
        Box::pin(agent::run(config, changeable, telemetry, stop)).await.map_err(anyhow::Error::from)
    });
    // Threads that hang in a system call (a dead network file system) must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// Every kernel takes a handful of descriptors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "could not raise the limit of open files");
    }
}

/// A core would hold users' code and files and the keys to buckets, and lie where the host's setting says. As a bonus no other
/// process of the agent's user can look into this one.
fn forbid_cores() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let forbidden =
        setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = forbidden {
        tracing::warn!(%error, "could not forbid core files; keys may be in them");
    }
}

async fn run_client(args: AgentArgs, command: ClientCommand) -> Exit {
    let client = Client::new(args.agent, args.timeout);
    shown(commands::perform(&client, args.json, command).await)
}

/// Tells the operator what went wrong, and the shell by the exit code.
fn shown(result: Result<Exit, CallError>) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(error) if error.is_absence() => {
            failed(error);
            Exit::NoAnswer
        }
        Err(error) => failed(error),
    }
}

/// The same for an agent of this machine.
fn local_shown(result: Result<Exit, LocalError>) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(
            error @ (LocalError::Nobody { .. }
            | LocalError::Forbidden { .. }
            | LocalError::Connect { .. }
            | LocalError::Late { .. }),
        ) => {
            failed(error);
            Exit::NoAnswer
        }
        Err(error) => failed(error),
    }
}

fn failed(error: impl Into<anyhow::Error>) -> Exit {
    terminal::complain(&format!("{:#}", error.into()));
    Exit::Failed
}
