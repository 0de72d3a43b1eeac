//! The newest warnings and errors of the log, for whoever looks at the agent.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How many are kept.
const KEPT: usize = 40;

/// How long a line can be, in bytes.
const LONGEST: usize = 1000;

/// A line that tells of something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// When it was written.
    pub at: SystemTime,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// What it says, its fields behind it.
    pub text: String,
}

/// The newest lines. A std mutex: held for a push or a copy.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Warning>>>);

impl Recent {
    /// The newest last.
    #[must_use]
    pub fn list(&self) -> Vec<Warning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, warning: Warning) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(warning);
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            _ => return,
        };
        let mut line = Line::default();
        event.record(&mut line);
        self.push(Warning { at: SystemTime::now(), level, text: line.text() });
    }
}

/// A line in the making.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a text does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_newest_warnings_are_kept_with_their_fields() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("fine");
            for n in 0..KEPT {
                tracing::warn!(n, "again");
            }
            tracing::error!(kernel = %"k", reason = "x y", "lost");
            tracing::warn!("{}", "ä".repeat(LONGEST));
        });
        let lines = recent.list();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[0].text, "again n=2");
        let lost = &lines[KEPT - 2];
        assert_eq!((lost.level, lost.text.as_str()), ("ERROR", "lost kernel=k reason=x y"));
        assert!(lines[KEPT - 1].text.ends_with("ä…") && lines[KEPT - 1].text.len() <= LONGEST + 3);
    }
}
