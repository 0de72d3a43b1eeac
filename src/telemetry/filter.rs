//! Which log lines pass. Pure.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::nearest::nearest;

/// The target of every line of this crate.
const OURS: &str = "backendai_agent";

/// The rooms, which are its modules.
const ROOMS: [&str; 31] = [
    "address",
    "agent",
    "cli",
    "client",
    "cluster",
    "conditions",
    "dev",
    "docker",
    "events",
    "figures",
    "firewall",
    "heartbeat",
    "identity",
    "ids",
    "images",
    "kernel",
    "nearest",
    "patience",
    "programs",
    "resources",
    "rpc",
    "runner",
    "scratch",
    "secret",
    "stats",
    "status",
    "telemetry",
    "tls",
    "units",
    "wire",
    "zmtp",
];

/// Libraries that log.
const LIBRARIES: [&str; 11] = [
    "bollard",
    "h2",
    "hyper",
    "hyper_util",
    "object_store",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
    "ureq",
    "ureq_proto",
];

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Libraries whose details hold request headers, and with them keys; no filter turns those details on.
const TELL_SECRETS: [&str; 3] = ["ureq", "ureq_proto", "h2"];

/// How much the agent says about itself when no filter was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// The story of the node: info from the agent, warnings from its libraries.
    #[default]
    Normal,
    /// `--debug`: the agent's own details as well.
    Debug,
    /// `--verbose`: those, and what its libraries call information.
    Verbose,
}

/// Levels by target: `info`, `warn,backendai_agent=debug`, `backendai_agent::kernel=trace`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter(Targets);

/// The text is not a filter.
#[derive(Debug, thiserror::Error)]
pub enum BadLogFilter {
    /// A level that there is not.
    #[error("{level:?} is no level{}; levels are error, warn, info, debug, trace and off", meant(.nearest.as_deref()))]
    Level {
        /// As it was written.
        level: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A part of the program that there is not.
    #[error("{target:?} is no target{}; targets are {OURS}, {OURS}::ROOM and libraries such as bollard", meant(.nearest.as_deref()))]
    Target {
        /// As it was written.
        target: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Something else.
    #[error("not a log filter; give levels by target, such as warn,backendai_agent=debug")]
    Form(#[source] tracing_subscriber::filter::ParseError),
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(", did you mean {nearest}?"))
}

impl FromStr for LogFilter {
    type Err = BadLogFilter;

    /// The library takes any name for a target, so that a misspelt one would silence the log without a word.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        for part in parts {
            match part.split_once('=') {
                Some((target, level)) => {
                    known_target(target)?;
                    known_level(level)?;
                }
                None if is_level(part) => {}
                // A word alone is a target, and would be one with all its details; a level is what people mean.
                None if !part.contains(':') && target_like(part).is_none() => known_level(part)?,
                None => known_target(part)?,
            }
        }
        text.parse().map(Self).map_err(BadLogFilter::Form)
    }
}

fn is_level(text: &str) -> bool {
    text.parse::<LevelFilter>().is_ok()
}

fn known_level(level: &str) -> Result<(), BadLogFilter> {
    if is_level(level) {
        return Ok(());
    }
    let nearest = nearest(&level.to_lowercase(), LEVELS.into_iter()).map(str::to_owned);
    Err(BadLogFilter::Level { level: level.to_owned(), nearest })
}

/// The program or library that a target may name.
fn target_like(target: &str) -> Option<&'static str> {
    let names = || LIBRARIES.into_iter().chain([OURS]);
    names().find(|name| *name == target).or_else(|| nearest(target, names()))
}

fn known_target(target: &str) -> Result<(), BadLogFilter> {
    let wrong = |nearest: Option<String>| BadLogFilter::Target { target: target.to_owned(), nearest };
    let (top, below) = target.split_once("::").map_or((target, None), |(top, below)| (top, Some(below)));
    if LIBRARIES.contains(&top) {
        return Ok(());
    }
    if top != OURS {
        return Err(wrong(
            target_like(top)
                .map(|top| below.map_or_else(|| top.to_owned(), |below| format!("{top}::{below}"))),
        ));
    }
    match below.map(|below| below.split("::").next().unwrap_or_default()) {
        Some(room) if !ROOMS.contains(&room) => {
            Err(wrong(nearest(room, ROOMS.into_iter()).map(|room| format!("{OURS}::{room}"))))
        }
        _ => Ok(()),
    }
}

/// The levels that were asked for: by a filter, else by a verbosity.
pub(super) fn targets(filter: Option<&LogFilter>, verbosity: Verbosity) -> Targets {
    let wanted = match (filter, verbosity) {
        (Some(LogFilter(targets)), _) => targets.clone(),
        (None, Verbosity::Normal) => levels(LevelFilter::WARN, LevelFilter::INFO),
        (None, Verbosity::Debug) => levels(LevelFilter::WARN, LevelFilter::DEBUG),
        (None, Verbosity::Verbose) => levels(LevelFilter::INFO, LevelFilter::DEBUG),
    };
    wanted.with_targets(TELL_SECRETS.map(|target| (target, LevelFilter::WARN)))
}

fn levels(libraries: LevelFilter, ours: LevelFilter) -> Targets {
    Targets::new().with_default(libraries).with_target(OURS, ours)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn check(verbosity: Verbosity, filter: Option<&str>, passes: &[(&str, Level)], stops: &[(&str, Level)]) {
        let filter = filter.map(|text| text.parse().unwrap());
        let targets = targets(filter.as_ref(), verbosity);
        for (target, level) in passes {
            assert!(targets.would_enable(target, level), "{verbosity:?} should pass {target} {level}");
        }
        for (target, level) in stops {
            assert!(!targets.would_enable(target, level), "{verbosity:?} should stop {target} {level}");
        }
    }

    #[test]
    fn verbosity_raises_our_own_level_first() {
        let (ours, other) = ("backendai_agent::kernel", "bollard");
        let info = [(ours, Level::INFO), (other, Level::WARN)];
        check(Verbosity::Normal, None, &info, &[(ours, Level::DEBUG), (other, Level::INFO)]);
        check(Verbosity::Debug, None, &[(ours, Level::DEBUG)], &[(ours, Level::TRACE), (other, Level::INFO)]);
        check(
            Verbosity::Verbose,
            None,
            &[(ours, Level::DEBUG), (other, Level::INFO)],
            &[(ours, Level::TRACE)],
        );
    }

    #[test]
    fn a_filter_overrules_the_verbosity_but_never_uncovers_headers() {
        let passes = [("bollard", Level::TRACE), ("ureq::run", Level::WARN)];
        check(Verbosity::Normal, Some("trace"), &passes, &[("ureq::run", Level::DEBUG), ("h2", Level::INFO)]);
        check(Verbosity::Debug, Some("error"), &[], &[("backendai_agent", Level::WARN)]);
    }

    #[test]
    fn every_form_of_a_filter_is_read() {
        for good in [
            "warn",
            "INFO",
            "0",
            "backendai_agent=debug",
            "warn,backendai_agent::kernel=trace, bollard=info",
            "backendai_agent::kernel::task=debug",
            "backendai_agent",
            "hyper_util::client=off",
            "",
        ] {
            assert!(good.parse::<LogFilter>().is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_no_level_and_no_target_is_refused_with_the_nearest_name() {
        for (bad, told) in [
            ("inof", "\"inof\" is no level, did you mean info?"),
            ("warning", "\"warning\" is no level, did you mean warn?"),
            ("backendai_agent=loud", "\"loud\" is no level;"),
            ("backend_agent=info", "\"backend_agent\" is no target, did you mean backendai_agent?"),
            ("backendai_agent::kernels=info", "no target, did you mean backendai_agent::kernel?"),
            ("info,bolard=debug", "\"bolard\" is no target, did you mean bollard?"),
            ("kernel=debug", "\"kernel\" is no target"),
            ("backendai-agent", "\"backendai-agent\" is no target, did you mean backendai_agent?"),
        ] {
            let error = bad.parse::<LogFilter>().unwrap_err().to_string();
            assert!(error.contains(told), "{bad}: {error}");
        }
    }

    #[test]
    fn the_lists_of_targets_are_whole() {
        let root = env!("CARGO_MANIFEST_DIR");
        let library = std::fs::read_to_string(format!("{root}/src/lib.rs")).unwrap();
        let modules = library.lines().filter_map(|line| {
            let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?;
            name.strip_suffix(';')
        });
        assert_eq!(
            modules.collect::<Vec<_>>(),
            ROOMS,
            "telemetry::filter::ROOMS has the modules of src/lib.rs"
        );
        // Targets have `_` where packages may have `-`.
        let lock = std::fs::read_to_string(format!("{root}/Cargo.lock")).unwrap().replace('-', "_");
        for library in LIBRARIES {
            let package = format!("\nname = \"{library}\"\n");
            assert!(lock.contains(&package), "{library} is no library of this program any more");
        }
    }
}
