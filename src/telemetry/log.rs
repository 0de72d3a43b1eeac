//! What becomes of a log line: text on stderr, JSON in the file, a report where it is an error, a count.

use std::io::{self, IsTerminal};

use sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::config::{LogFormat, TelemetryConfig};
use super::filter::{Verbosity, targets};
use super::journal::Prioritized;
use super::line_count::CountLines;
use super::lines::{LineSender, Trouble};

/// How lines look on stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// The form of the whole.
    pub(super) format: LogFormat,
    /// Levels in colour; text only.
    pub(super) colour: bool,
    /// The part of the program that speaks.
    pub(super) target: bool,
}

impl Style {
    /// The style for this process' stderr.
    pub(super) fn of_stderr(config: &TelemetryConfig) -> Self {
        let is_journal = config.journal_stream.as_deref().is_some_and(is_stderr);
        let usual = if is_journal { LogFormat::Journal } else { LogFormat::Text };
        Self {
            format: config.format.unwrap_or(usual),
            colour: !config.no_colour && io::stderr().is_terminal(),
            target: config.filter.is_some() || config.verbosity != Verbosity::Normal,
        }
    }
}

/// Whether a `device:inode` is our stderr. The variable alone says nothing: everything that was started below a
/// service inherits it, whatever its stderr is.
fn is_stderr(journal: &str) -> bool {
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Which lines pass; can be changed while lines are written.
pub(super) struct Levels(reload::Handle<Targets, Registry>);

impl Levels {
    pub(super) fn set(&self, config: &TelemetryConfig) {
        // Fails only where the subscriber is gone, and then there are no lines.
        let _ = self.0.reload(targets(config.filter.as_ref(), config.verbosity));
    }
}

/// The whole of it, for [`tracing`].
pub(super) fn subscriber(
    config: &TelemetryConfig,
    style: Style,
    stderr: LineSender,
    file: Option<LineSender>,
) -> (impl Subscriber + Send + Sync + 'static, Levels) {
    let shown = match style.format {
        LogFormat::Text => {
            fmt::layer().with_ansi(style.colour).with_target(style.target).with_writer(stderr).boxed()
        }
        LogFormat::Journal => {
            let format = fmt::format().without_time().with_level(false).with_target(style.target);
            fmt::layer().event_format(Prioritized(format)).with_ansi(false).with_writer(stderr).boxed()
        }
        LogFormat::Json => json_to(stderr).boxed(),
    };
    let json = file.map(json_to);
    // What led to an error is sent along with it, so this comes before the layer that sends.
    let told_before = |meta: &tracing::Metadata<'_>| matches!(*meta.level(), Level::WARN | Level::INFO);
    let reports = config.sentry.is_some().then(|| {
        let before = BreadcrumbLayer::new().with_filter(filter_fn(told_before));
        before.and_then(ErrorLayer::new().with_filter(LevelFilter::ERROR))
    });
    let (passing, levels) = reload::Layer::new(targets(config.filter.as_ref(), config.verbosity));
    let subscriber =
        tracing_subscriber::registry().with(passing).with(CountLines).with(shown).with(json).with(reports);
    (subscriber, Levels(levels))
}

fn json_to<S>(place: LineSender) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(place)
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
        let (subscriber, _levels) = subscriber(config, style, sinks[0].sender(), Some(sinks[1].sender()));
        tracing::subscriber::with_default(subscriber, run);
        assert!(sinks.iter().all(|sink| sink.close(Duration::from_secs(20))));
        let [text, json] = places.map(|place| String::from_utf8(place.0.lock().unwrap().clone()).unwrap());
        (text, json)
    }

    const PLAIN: Style = Style { format: LogFormat::Text, colour: false, target: false };

    /// Without the time in front.
    fn timeless(text: &str) -> &str {
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{text}");
        rest
    }

    #[test]
    fn text_for_people_and_json_for_programs() {
        let (text, json) = logged(&TelemetryConfig::default(), PLAIN, || {
            tracing::info!(kernel = %"0b9e", cores = 2, "kernel is running");
            tracing::debug!("a detail");
        });
        assert_eq!(timeless(&text), " INFO kernel is running kernel=0b9e cores=2\n");
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
        let style = Style { colour: false, ..Style::of_stderr(&config) };
        let (text, _) = logged(&config, style, || tracing::debug!("a detail"));
        assert_eq!(timeless(&text), "DEBUG backendai_agent::telemetry::log::tests: a detail\n");
    }

    #[test]
    fn levels_can_change_while_lines_are_written() {
        let place = Memory::default();
        let sink = LineSink::start("test", place.clone(), |_| {}).unwrap();
        let config = TelemetryConfig::default();
        let (subscriber, levels) = subscriber(&config, PLAIN, sink.sender(), None);
        let say = |text: &str| tracing::debug!("{text}");
        tracing::subscriber::with_default(subscriber, || {
            say("before");
            levels.set(&TelemetryConfig { verbosity: Verbosity::Debug, ..TelemetryConfig::default() });
            say("meanwhile");
            levels.set(&config);
            say("after");
        });
        assert!(sink.close(Duration::from_secs(20)));
        let text = String::from_utf8(place.0.lock().unwrap().clone()).unwrap();
        assert_eq!(timeless(&text), "DEBUG meanwhile\n");
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let style = Style { format: LogFormat::Journal, colour: true, ..PLAIN };
        let (text, _) = logged(&TelemetryConfig::default(), style, || {
            tracing::info!(kernel = %"0b9e", "created");
            tracing::warn!("careful");
            tracing::error!("panic: a\nb");
        });
        assert_eq!(text, "<6>created kernel=0b9e\n<4>careful\n<3>panic: a\n<3>b\n");
    }

    #[test]
    fn programs_get_json_on_stderr() {
        let style = Style { format: LogFormat::Json, colour: true, ..PLAIN };
        let (text, json) =
            logged(&TelemetryConfig::default(), style, || tracing::info!(cores = 2, "created"));
        let lines = [text, json].map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
        for line in lines {
            assert_eq!((&line["message"], &line["cores"]), (&"created".into(), &2.into()));
        }
    }

    #[test]
    fn the_form_of_lines_is_the_journals_where_stderr_is() {
        let stat = rustix::fs::fstat(io::stderr()).unwrap();
        let ours = Some(format!("{}:{}", stat.st_dev, stat.st_ino));
        for (format, journal_stream, expected) in [
            (None, None, LogFormat::Text),
            (None, Some("0:0".to_owned()), LogFormat::Text),
            (None, ours.clone(), LogFormat::Journal),
            (Some(LogFormat::Json), ours, LogFormat::Json),
            (Some(LogFormat::Journal), None, LogFormat::Journal),
        ] {
            let config = TelemetryConfig { journal_stream, format, ..TelemetryConfig::default() };
            assert_eq!(Style::of_stderr(&config).format, expected);
        }
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
