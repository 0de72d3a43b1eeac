//! Carries a checked command out.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{AgentArgs, ClientCommand, Command, Exit, commands, events};
use crate::agent;
use crate::agent::config::Config;
use crate::client::{CallError, Client};
use crate::telemetry;

/// Does what was asked, to the end.
#[must_use]
pub fn run(command: Command) -> Exit {
    // One provider for every TLS connection of the process; a second install could only be of the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Run(config) => run_agent(*config),
        Command::Check(config) => blocking(super::check::check(*config)),
        Command::Client(args, command) => blocking(run_client(args, command)),
        Command::Events(args) => {
            blocking(async move { events::listen(args).await.unwrap_or_else(|error| failed(&error)) })
        }
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

fn run_agent(config: Config) -> Exit {
    let telemetry = match telemetry::init(&config.telemetry) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("backendai-agent: {error}");
            return Exit::Failed;
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "could not start the runtime");
            return Exit::Failed;
        }
    };
    raise_descriptor_limit();
    let exit = runtime.block_on(async {
        let stop = CancellationToken::new();
        // Ends of kernels may take their time where they are asked for.
        let limit = (!config.stop_kernels_on_exit).then_some(STOP_LIMIT);
        if let Err(error) = stop_on_signals(stop.clone(), limit) {
            tracing::error!(%error, "could not listen for signals");
            return Exit::Failed;
        }
        match agent::run(config, &telemetry, stop).await {
            Ok(()) => Exit::Done,
            Err(error) => {
                tracing::error!(%error, "giving up");
                Exit::Failed
            }
        }
    });
    // Threads that hang in a system call (a dead network file system) must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    exit
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

/// The stop has limits for each of its steps, which stay below this together; a disk or a log that hangs has none.
const STOP_LIMIT: Duration = Duration::from_millis(4700);

/// Ends the process whatever hangs. A thread of its own: the runtime may hang, too.
fn end_after(limit: Duration) {
    let ending = std::thread::Builder::new().name("stop-limit".to_owned()).spawn(move || {
        std::thread::sleep(limit);
        std::process::exit(1);
    });
    if let Err(error) = ending {
        tracing::warn!(%error, "could not limit the time of the stop");
    }
}

/// The first signal stops in order, the second at once.
fn stop_on_signals(stop: CancellationToken, limit: Option<Duration>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for is_second in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if is_second {
                tracing::warn!(
                    signal = name,
                    "a second signal: stopping at once; the next start finishes what is open"
                );
                std::process::exit(1);
            }
            tracing::info!(signal = name, "asked to stop");
            if let Some(limit) = limit {
                end_after(limit);
            }
            stop.cancel();
        }
    });
    Ok(())
}

async fn run_client(args: AgentArgs, command: ClientCommand) -> Exit {
    let client = Client::new(args.agent, args.timeout);
    shown(commands::perform(&client, args.json, command).await)
}

/// Tells the operator what went wrong, and the shell by the exit code.
fn shown(result: Result<Exit, CallError>) -> Exit {
    let error = match result {
        Ok(exit) => return exit,
        Err(error) => error,
    };
    let exit = failed(&error);
    if matches!(error, CallError::NoAnswer { .. }) { Exit::NoAnswer } else { exit }
}

fn failed(error: &dyn std::error::Error) -> Exit {
    eprintln!("backendai-agent: {error}");
    Exit::Failed
}
