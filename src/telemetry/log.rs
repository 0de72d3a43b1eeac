//! What becomes of a log line: text on stderr, JSON in the file, a report where it is an error, a count.

use std::io::{self, IsTerminal};

use sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

use super::config::TelemetryConfig;
use super::filter::{Verbosity, targets};
use super::lines::{LineSender, Trouble};
use super::meters::CountLines;

/// How lines look on stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Levels in colour.
    pub(super) colour: bool,
    /// Each line begins with the time, UTC.
    pub(super) time: bool,
    /// The part of the program that speaks.
    pub(super) target: bool,
}

impl Style {
    /// The style for this process' stderr.
    pub(super) fn of_stderr(config: &TelemetryConfig) -> Self {
        Self {
            colour: !config.no_colour && io::stderr().is_terminal(),
            time: !config.journal_stream.as_deref().is_some_and(is_stderr),
            target: config.filter.is_some() || config.verbosity != Verbosity::Normal,
        }
    }
}

/// Whether a `device:inode` is our stderr. The variable alone says nothing: everything that was started below a
/// service inherits it, whatever its stderr is.
fn is_stderr(journal: &str) -> bool {
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The whole of it, for [`tracing`].
pub(super) fn subscriber(
    config: &TelemetryConfig,
    style: Style,
    stderr: LineSender,
    file: Option<LineSender>,
) -> impl Subscriber + Send + Sync + 'static {
    let text = fmt::layer().with_writer(stderr).with_ansi(style.colour).with_target(style.target);
    let text = if style.time { text.boxed() } else { text.without_time().boxed() };
    let json =
        file.map(|file| fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(file));
    // What led to an error is sent along with it, so this comes before the layer that sends.
    let told_before = |meta: &tracing::Metadata<'_>| matches!(*meta.level(), Level::WARN | Level::INFO);
    let reports = config.sentry.is_some().then(|| {
        let before = BreadcrumbLayer::new().with_filter(filter_fn(told_before));
        before.and_then(ErrorLayer::new().with_filter(LevelFilter::ERROR))
    });
    tracing_subscriber::registry()
        .with(targets(config.filter.as_ref(), config.verbosity))
        .with(CountLines)
        .with(text)
        .with(json)
        .with(reports)
}

/// Logs that logging itself is in trouble: what one sink can't take, another may.
pub(super) fn tell(sink: &'static str, trouble: &Trouble) {
    match trouble {
        Trouble::Failing(error) => tracing::warn!(sink, %error, "log lines cannot be written and are lost"),
        Trouble::Lost(lines) => tracing::warn!(sink, lines, "log lines were lost; it works again"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::lines::LineSink;
    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What goes to stderr and what to the file.
    fn logged(config: &TelemetryConfig, style: Style, run: impl FnOnce()) -> (String, String) {
        let places = [Memory::default(), Memory::default()];
        let sinks = places.clone().map(|place| LineSink::start("test", place, |_| {}).unwrap());
        let subscriber = subscriber(config, style, sinks[0].sender(), Some(sinks[1].sender()));
        tracing::subscriber::with_default(subscriber, run);
        assert!(sinks.iter().all(|sink| sink.close(Duration::from_secs(20))));
        let [text, json] = places.map(|place| String::from_utf8(place.0.lock().unwrap().clone()).unwrap());
        (text, json)
    }

    const PLAIN: Style = Style { colour: false, time: false, target: false };

    #[test]
    fn text_for_people_and_json_for_programs() {
        let (text, json) = logged(&TelemetryConfig::default(), PLAIN, || {
            tracing::info!(kernel = %"0b9e", cores = 2, "kernel is running");
            tracing::debug!("a detail");
        });
        assert_eq!(text, " INFO kernel is running kernel=0b9e cores=2\n");
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "kernel is running");
        assert_eq!((&line["kernel"], &line["cores"]), (&"0b9e".into(), &2.into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(line["target"].as_str().unwrap().starts_with("backendai_agent"), "{line}");
    }

    #[test]
    fn debug_shows_details_and_who_speaks() {
        let config = TelemetryConfig { verbosity: Verbosity::Debug, ..TelemetryConfig::default() };
        let style = Style { colour: false, time: true, ..Style::of_stderr(&config) };
        let (text, _) = logged(&config, style, || tracing::debug!("a detail"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{text}");
        assert_eq!(rest, "DEBUG backendai_agent::telemetry::log::tests: a detail\n");
    }

    #[test]
    fn colours_only_when_asked_for() {
        let coloured = logged(&TelemetryConfig::default(), Style { colour: true, ..PLAIN }, || {
            tracing::warn!("careful");
        });
        assert!(coloured.0.contains("\u{1b}["));
        assert!(!coloured.1.contains("\u{1b}["), "never in the file");
    }

    #[test]
    fn only_our_own_stderr_is_the_journal() {
        assert!(!is_stderr("0:0"));
        assert!(!is_stderr(""));
        let stat = rustix::fs::fstat(io::stderr()).unwrap();
        assert!(is_stderr(&format!("{}:{}", stat.st_dev, stat.st_ino)));
    }
}
