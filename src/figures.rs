//! What is counted and measured of the agent, for Prometheus: one table of all series, and the values behind it.
//!
//! Rooms count what happens to them with [`count`] and [`took`], as they log with `tracing`: from anywhere, at once, and
//! without an effect before [`install`]. What has a value at any moment is sampled by the composition root ([`replace`]).
//! A label with a closed list of values takes no other, so that no stranger decides how many series there are.

mod families;
pub mod table;

use std::sync::OnceLock;
use std::time::Duration;

pub use self::families::{Families, FiguresError, Row};
use self::table::Metric;

/// Those of this process.
static FAMILIES: OnceLock<Families> = OnceLock::new();

/// Begins to keep figures; once in a process.
pub fn install() -> Result<(), FiguresError> {
    FAMILIES.set(Families::new()?).map_err(|_| FiguresError::Installed)
}

/// All of them, in Prometheus' text format; empty before [`install`].
#[must_use]
pub fn render() -> String {
    FAMILIES.get().map(Families::render).unwrap_or_default()
}

/// One more. `labels` in the order of the table.
pub fn count(metric: &Metric, labels: &[&str]) {
    if let Some(families) = FAMILIES.get() {
        families.count(metric, labels);
    }
}

/// Something took so long.
pub fn took(metric: &Metric, labels: &[&str], time: Duration) {
    if let Some(families) = FAMILIES.get() {
        families.took(metric, labels, time);
    }
}

/// These are all the series of `metric` from now on: others go.
pub fn replace(metric: &'static Metric, rows: Vec<Row>) {
    if let Some(families) = FAMILIES.get() {
        families.replace(metric, rows);
    }
}
