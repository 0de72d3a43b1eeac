//! `dev`: an agent with everything around it in one process, and what it does on the screen.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::screen::Screen;
use crate::address::HostPort;
use crate::agent::config::{Changeable, Config};
use crate::agent::{self, Stop};
use crate::cluster::EtcdAccess;
use crate::dev::{Neighbours, Stored};
use crate::stats::RedisAccess;
use crate::telemetry::Telemetry;
use crate::wire::event::HeardEvent;
use crate::zmtp::Pull;

mod screen;

/// Where `dev` serves: beside an agent that has the usual port.
const PORT: &str = "6021";

/// Where its page is.
const PAGE: &str = "127.0.0.1:6022";

/// `dev`.
#[derive(Debug, Clone, Args)]
pub(super) struct DevArgs {
    /// Options of `run`, such as --debug or --agent-port 7000; neither the environment nor the usual file of settings is read
    #[arg(value_name = "OPTIONS OF RUN", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) options: Vec<OsString>,
}

impl DevArgs {
    /// The line by which `run` would do what is asked for here, the program's name first.
    pub(super) fn line(&self) -> Vec<OsString> {
        let own = [
            ("--namespace", Some("dev")),
            ("--instance-id", Some("i-dev")),
            ("--agent-port", Some(PORT)),
            // Whoever is on the same network has no business with an agent that is only tried.
            ("--rpc-listen", Some("127.0.0.1")),
            ("--agent-host-override", Some("127.0.0.1")),
            ("--kernel-host-override", Some("127.0.0.1")),
            // Whoever tries wants to look.
            ("--metrics-addr", Some(PAGE)),
            // No manager gives up after 3 s here.
            ("--create-deadline", Some("0")),
            ("--stop-kernels-on-exit", None),
        ];
        let own = own.into_iter().filter(|(flag, _)| !self.has(flag));
        let own = own.flat_map(|(flag, value)| [Some(flag), value]).flatten().map(OsString::from);
        ["backendai-agent", "run"]
            .into_iter()
            .map(OsString::from)
            .chain(own)
            .chain(self.options.clone())
            .collect()
    }

    /// What `config`, read from that line, is to be.
    pub(super) fn settled(&self, mut config: Config, home: Option<PathBuf>) -> Config {
        if !self.has("--scratch-root") {
            config.scratch_root = root(home);
        }
        // The etcd and the Redis that it brings along ask nobody who they are.
        config.cluster.access = EtcdAccess::default();
        config.redis = RedisAccess::default();
        if config.kernels.adopt {
            config.kernels.adopt = false;
            config.warnings.push("--adopt has no effect with dev: kernels end with it".to_owned());
        }
        if self.has("--etcd-addr") {
            config.warnings.push("--etcd-addr has no effect with dev, which brings an etcd along".to_owned());
        }
        config
    }

    /// Whether a file of settings is named; the usual one is not this agent's.
    pub(super) fn names_a_file(&self) -> bool {
        self.has("--config")
    }

    fn has(&self, flag: &str) -> bool {
        self.options.iter().filter_map(|option| option.to_str()).any(|option| {
            option.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    }
}

/// Kernels' files, where no real agent has its own.
fn root(home: Option<PathBuf>) -> PathBuf {
    home.unwrap_or_else(std::env::temp_dir).join(".cache/backendai-agent/dev")
}

/// Runs the agent and what it needs until `stop`.
pub(super) async fn run(
    mut config: Config,
    changes: watch::Receiver<Changeable>,
    telemetry: &Telemetry,
    stop: Stop,
) -> anyhow::Result<()> {
    let root = &config.scratch_root;
    std::fs::create_dir_all(root).with_context(|| {
        format!("could not make {}; choose another place with --scratch-root", root.display())
    })?;
    let (end, tracker) = (CancellationToken::new(), TaskTracker::new());
    let neighbours = Neighbours::start(&config.cluster.namespace, &end, &tracker).await?;
    let Neighbours { etcd, redis, events, stored } = neighbours;
    config.cluster.endpoints = vec![HostPort { host: etcd.ip().to_string(), port: etcd.port() }];
    config.identity.cluster.clone_from(&config.cluster.endpoints);

    let screen = Screen::new(&config, etcd, redis, program());
    let shown = tokio::spawn(show(screen, events, stored, end.clone()));
    let ended = Box::pin(agent::run(config, changes, telemetry, stop)).await;
    end.cancel();
    tracker.close();
    tracker.wait().await;
    let screen = shown.await.context("the screen broke")?;
    say(&screen.farewell());
    Ok(ended?)
}

/// Shows what comes, until `end` and until nothing more is there.
async fn show(
    mut screen: Screen,
    mut events: Pull,
    mut stored: mpsc::Receiver<Stored>,
    end: CancellationToken,
) -> Screen {
    loop {
        let text = tokio::select! {
            // What the agent has told before its end is shown before ours.
            biased;
            message = events.recv() => HeardEvent::decode(&message.frames).and_then(|event| screen.heard(&event)),
            Some(stored) = stored.recv() => screen.stored(&stored),
            () = end.cancelled() => return screen,
        };
        if let Some(text) = text {
            say(&text);
        }
    }
}

fn say(text: &str) {
    // Whoever reads may be gone; the agent serves all the same.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// How this program was called, to be called again.
fn program() -> String {
    let called = std::env::args().next().filter(|name| name.contains('/'));
    called.unwrap_or_else(|| "backendai-agent".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(options: &[&str]) -> Vec<String> {
        let args = DevArgs { options: options.iter().map(OsString::from).collect() };
        args.line().into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_given_takes_the_place_of_what_dev_says() {
        let usual = line(&[]);
        assert!(usual.windows(2).any(|pair| pair == ["--agent-port", PORT]), "{usual:?}");
        let other = line(&["--agent-port=7000", "--instance-id", "i-other", "--agent-portx"]);
        assert_eq!(other.iter().filter(|word| *word == "--agent-port").count(), 0, "{other:?}");
        assert_eq!(other.iter().filter(|word| *word == "--instance-id").count(), 1, "{other:?}");
        assert!(other.windows(2).any(|pair| pair == ["--rpc-listen", "127.0.0.1"]), "{other:?}");
        assert_eq!(line(&["--rpc-listen=0.0.0.0"]).iter().filter(|word| *word == "--rpc-listen").count(), 0);
        assert!(other.contains(&"--stop-kernels-on-exit".to_owned()));
        assert!(usual.windows(2).any(|pair| pair == ["--metrics-addr", PAGE]), "{usual:?}");
        let elsewhere = line(&["--metrics-addr", "127.0.0.1:7001"]);
        assert!(!elsewhere.contains(&PAGE.to_owned()), "{elsewhere:?}");
    }
}
