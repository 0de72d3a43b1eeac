//! Carries a checked command out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{AgentArgs, ClientCommand, Command, Exit, commands, dev, events, local, papers, signals};
use crate::agent;
use crate::agent::config::Config;
use crate::client::{CallError, Client, LocalError};
use crate::telemetry::{self, Telemetry};

/// Does what was asked, to the end.
#[must_use]
pub fn run(command: Command) -> Exit {
    // One provider for every TLS connection of the process; a second install could only be of the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Run(config) => run_agent(*config, false),
        Command::Dev(config) => run_agent(*config, true),
        Command::Check(config) => blocking(super::check::check(*config)),
        Command::Completions(args) => papers::completions(&args),
        Command::Man(args) => papers::man(&args),
        Command::Client(args, command) => blocking(run_client(args, command)),
        Command::Local(command) => blocking(async move { local_shown(local::perform(command).await) }),
        Command::Events(args) => match args.bind.clone() {
            Some(at) => blocking(async move { events::listen(args, &at).await.unwrap_or_else(failed) }),
            None => blocking(async move { local_shown(events::follow(args).await) }),
        },
    }
}

fn blocking(future: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => {
            eprintln!("backendai-agent: could not start the runtime: {error}");
            Exit::Failed
        }
    }
}

/// Runs the agent, with all that it needs around it if it `is_dev`.
fn run_agent(config: Config, is_dev: bool) -> Exit {
    let telemetry = match telemetry::init(&config.telemetry) {
        Ok(telemetry) => Arc::new(telemetry),
        Err(error) => {
            eprintln!("backendai-agent: {:#}", anyhow::Error::from(error));
            return Exit::Failed;
        }
    };
    let ended = live(config, is_dev, &telemetry);
    if let Err(error) = &ended {
        tracing::error!("giving up: {error:#}");
    }
    // Not by dropping it: the thread that limits the stop may have it, too.
    telemetry.close(telemetry::CLOSE_LIMIT);
    if ended.is_ok() { Exit::Done } else { Exit::Failed }
}

/// The agent's whole life.
fn live(config: Config, is_dev: bool, telemetry: &Arc<Telemetry>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("could not start the runtime")?;
    raise_descriptor_limit();
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        // Ends of kernels may take their time where they are asked for.
        let is_limited = !config.stop_kernels_on_exit;
        signals::listen(stop.clone(), is_limited, telemetry).context("could not listen for signals")?;
        if is_dev {
            return Box::pin(dev::run(config, telemetry, stop)).await;
        }
        Box::pin(agent::run(config, telemetry, stop)).await.map_err(anyhow::Error::from)
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
        tracing::warn!(%error, limit = ?limit.current, "could not raise the limit of open files");
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
        Err(error @ CallError::NoAnswer { .. }) => {
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
        Err(error @ (LocalError::Nobody | LocalError::Connect { .. } | LocalError::Late { .. })) => {
            failed(error);
            Exit::NoAnswer
        }
        Err(error) => failed(error),
    }
}

fn failed(error: impl Into<anyhow::Error>) -> Exit {
    eprintln!("backendai-agent: {:#}", error.into());
    Exit::Failed
}
