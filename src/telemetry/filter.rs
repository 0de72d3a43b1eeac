//! Which log lines pass. Pure.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// The target of every line of this crate.
const OURS: &str = "backendai_agent";

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
#[error("not a log filter; give levels by target, such as warn,backendai_agent=debug")]
pub struct BadLogFilter(#[source] tracing_subscriber::filter::ParseError);

impl FromStr for LogFilter {
    type Err = BadLogFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(BadLogFilter)
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
        assert!("backendai_agent=loud".parse::<LogFilter>().is_err());
    }
}
