//! What an operator sees of the agent: log lines, error reports, figures and health.
//!
//! Nothing here may hold the agent up. Lines and reports leave through threads with bounded queues (`lines`,
//! `error_reports`), figures are set in memory or sent over UDP, and pages are served by tasks
//! that only read. Knows no room of the agent's work: those log with plain `tracing` and count with `figures`, and what they are
//! sampled for reaches [`Meters`] through the composition root.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentry::Hub;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod config;
mod error_reports;
mod filter;
mod gauges;
mod http;
mod journal;
mod line_count;
mod lines;
mod log;
mod logfile;
mod meters;
mod panics;
mod recent;

pub use config::{LogFile, LogFormat, Rotation, TelemetryConfig};
pub use error_reports::{BadSentryDsn, SentryDsn};
pub use filter::{BadLogFilter, LogFilter, Verbosity};
pub use gauges::{GpuGauges, KernelGauges, KernelUse, NodeGauges};
#[cfg(feature = "rooms")]
pub use http::fuzz;
pub use http::{Asked, Door, Reply, Site};
pub use meters::Meters;
pub use recent::{Recent, Warning};

use error_reports::ErrorReports;
use lines::LineSink;
use log::Levels;
use logfile::RotatingFile;

use crate::conditions::Conditions;
use crate::figures::{self, FiguresError};

/// How long the end of the process waits for the Sentry server.
const REPORTS_LIMIT: Duration = Duration::from_secs(2);

/// How long the end of the process waits for stderr, and then for the log file.
const LINES_LIMIT: Duration = Duration::from_secs(1);

/// How long the end of the process waits for all of them; enough where nothing hangs.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(4);

/// Why the agent can't be observed; each is a reason not to start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log file can't be opened or made.
    #[error(
        "cannot open the log file {path}: give a file in an existing directory that the agent may write to"
    )]
    LogFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread for writing log lines.
    #[error(
        "cannot start the thread that writes log lines: raise the limit of threads (ulimit -u, TasksMax=)"
    )]
    Thread(#[source] io::Error),
    /// No UDP socket for `DogStatsD`.
    #[error("cannot open a UDP socket towards the Datadog agent at {server}")]
    Statsd {
        /// Where the figures should go.
        server: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in this process keeps figures already.
    #[error("cannot keep figures")]
    Figures(#[source] FiguresError),
    /// Something in this process logs already.
    #[error("cannot start logging: a logger is installed already")]
    Logger(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps logging and reporting alive. Dropping it closes it with [`CLOSE_LIMIT`].
#[must_use = "log lines are lost when this goes out of scope"]
pub struct Telemetry {
    /// `None` without a DSN.
    reports: Option<ErrorReports>,
    /// Lines for people.
    stderr: LineSink,
    /// JSON lines, with `--log-file`.
    file: Option<LineSink>,
    /// The newest warnings.
    recent: Recent,
    /// Handed out to the one who samples.
    meters: Meters,
    /// Which lines pass.
    levels: Levels,
}

/// Starts logging, error reports and figures for the whole process. Once per process, before anything logs.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let stderr = LineSink::start("stderr", io::stderr(), |trouble| log::tell("stderr", &trouble))
        .map_err(TelemetryError::Thread)?;
    let file = config.log_file.clone().map(file_sink).transpose()?;
    let meters = meters(config.statsd)?;
    figures::install().map_err(TelemetryError::Figures)?;
    let style = log::Style::of_stderr(config);
    let recent = Recent::default();
    let (subscriber, levels) =
        log::subscriber(config, style, stderr.sender(), file.as_ref().map(LineSink::sender));
    subscriber.with(recent.clone()).try_init().map_err(TelemetryError::Logger)?;
    panics::log_panics();
    let reports = config.sentry.as_ref().map(ErrorReports::start);
    if let Some(reports) = &reports {
        reports.bind(&Hub::main());
    }
    Ok(Telemetry { reports, stderr, file, recent, meters, levels })
}

fn file_sink(config: LogFile) -> Result<LineSink, TelemetryError> {
    let path = config.path.clone();
    let file = RotatingFile::open(config).map_err(|source| TelemetryError::LogFile { path, source })?;
    LineSink::start("file", file, |trouble| log::tell("log file", &trouble)).map_err(TelemetryError::Thread)
}

fn meters(statsd: Option<SocketAddr>) -> Result<Meters, TelemetryError> {
    let Some(server) = statsd else { return Ok(Meters::without_statsd()) };
    Meters::with_statsd(server).map_err(|source| TelemetryError::Statsd { server, source })
}

impl Telemetry {
    /// Where the composition root puts the node's figures.
    #[must_use]
    pub fn meters(&self) -> Meters {
        self.meters.clone()
    }

    /// The newest warnings of the log.
    #[must_use]
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// From now on, lines pass as the filter and the verbosity of `config` say.
    pub fn set_levels(&self, config: &TelemetryConfig) {
        self.levels.set(config);
    }

    /// Serves `/metrics`, `/healthz`, `/readyz` and the site through a door from tasks on `tracker` until `cancel`.
    pub fn serve(
        &self,
        door: Door,
        conditions: watch::Receiver<Conditions>,
        site: Arc<dyn Site>,
        cancel: CancellationToken,
        tracker: &TaskTracker,
    ) {
        if let Door::Port(listener) = &door {
            let addr = listener.local_addr().ok().map(tracing::field::display);
            tracing::info!(addr, "serving metrics and health");
        }
        http::serve(door, conditions, site, cancel, tracker);
    }

    /// Writes and sends what waits, within `limit`: the last thing to do before the process ends, also where it ends by
    /// `exit`. Nothing is logged afterwards.
    pub fn close(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let at_most = |limit: Duration| limit.min(until.saturating_duration_since(Instant::now()));
        // First the reports: when they don't leave in time, that is worth a line.
        if let Some(reports) = &self.reports
            && !reports.close(at_most(REPORTS_LIMIT))
        {
            tracing::warn!("error reports were lost: the Sentry server did not take them in time");
        }
        if let Some(file) = &self.file {
            file.close(at_most(LINES_LIMIT));
        }
        self.stderr.close(at_most(LINES_LIMIT));
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.close(CLOSE_LIMIT);
    }
}
