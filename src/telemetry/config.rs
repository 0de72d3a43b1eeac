//! What telemetry needs to know before it starts. Pure data; the command line fills it in.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use super::error_reports::SentryDsn;
use super::filter::{LogFilter, Verbosity};

/// Where log lines, error reports and figures go.
#[derive(Debug, Clone, Default)]
pub struct TelemetryConfig {
    /// How much is logged; a `filter` overrules it.
    pub verbosity: Verbosity,
    /// `--log-filter`: levels by target, in the form of `RUST_LOG`.
    pub filter: Option<LogFilter>,
    /// `--log-file`: JSON lines in addition to stderr.
    pub log_file: Option<LogFile>,
    /// `JOURNAL_STREAM` as systemd sets it (`device:inode`); where it names our stderr, that is the journal.
    pub journal_stream: Option<String>,
    /// `--log-format`: the form of lines on stderr; `None` is the journal's where stderr is the journal, else text.
    pub format: Option<LogFormat>,
    /// No colours, even on a terminal (`NO_COLOR`).
    pub no_colour: bool,
    /// Where errors and panics are reported; `None` reports nothing.
    pub sentry: Option<SentryDsn>,
    /// The `DogStatsD` server that gets the node's gauges over UDP; `None` sends nothing.
    pub statsd: Option<SocketAddr>,
}

/// The form of a line on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: the time, the level, the message and its fields.
    Text,
    /// For programs: a JSON object a line.
    Json,
    /// For the journal of systemd, which adds the time itself: the level as a priority in front, `<6>`.
    Journal,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "journal" => Ok(Self::Journal),
            _ => Err("give text, json or journal"),
        }
    }
}

/// A file of JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file that is written now; the older ones are `{path}.1`, `{path}.2` …
    pub path: PathBuf,
    /// When to start a new file; `None` lets the one file grow.
    pub rotation: Option<Rotation>,
}

/// When a log file is set aside, and how many of them stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// No file grows beyond this many bytes, unless a single line does.
    pub max_bytes: NonZeroU64,
    /// How many files stay beside the one that is written now; at least 1.
    pub keep: u32,
}
