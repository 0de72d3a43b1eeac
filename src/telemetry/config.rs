//! What telemetry needs to know before it starts. Pure data; the command line fills it in.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

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
    /// `JOURNAL_STREAM` as systemd sets it (`device:inode`); where it names our stderr, the journal adds the
    /// time to each line and we leave ours out.
    pub journal_stream: Option<String>,
    /// No colours, even on a terminal (`NO_COLOR`).
    pub no_colour: bool,
    /// Where errors and panics are reported; `None` reports nothing.
    pub sentry: Option<SentryDsn>,
    /// The `DogStatsD` server that gets the node's gauges over UDP; `None` sends nothing.
    pub statsd: Option<SocketAddr>,
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
