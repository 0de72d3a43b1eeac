//! The counter of log lines that say that something is wrong.

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::figures;
use crate::figures::table;

/// Counts warnings and errors by level, so that an alert needs no log search.
pub(super) struct CountLines;

impl<S: Subscriber> Layer<S> for CountLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => return,
        };
        figures::count(&table::LOG_LINES, &[level]);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn warnings_and_errors_are_counted() {
        let warnings = |text: &str| -> f64 {
            let found =
                text.lines().find_map(|l| l.strip_prefix("backendai_agent_log_lines_total{level=\"warn\"} "));
            found.unwrap().parse().unwrap()
        };
        // Another test may have been first.
        let _ = figures::install();
        let before = warnings(&figures::render());
        let subscriber = tracing_subscriber::registry().with(CountLines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("fine");
            tracing::warn!("hm");
            tracing::warn!("hm");
        });
        let text = figures::render();
        assert!((warnings(&text) - before - 2.0).abs() < f64::EPSILON, "{text}");
        assert!(!text.contains("level=\"info\""), "{text}");
    }
}
