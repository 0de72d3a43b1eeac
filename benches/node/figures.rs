//! Figures of several contenders: the table of their medians, and a file of all samples for `scripts/chart`.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

/// Everything that was measured and is not printed yet.
pub(crate) struct Figures {
    contenders: Vec<String>,
    rows: Vec<Row>,
    /// What was printed, as it goes into `BENCH_OUT`.
    printed: Vec<Json>,
}

struct Row {
    what: String,
    unit: &'static str,
    /// Samples of each contender.
    samples: Vec<Vec<f64>>,
}

/// Takes what one contender's turn finds.
pub(crate) struct Report<'a> {
    figures: &'a mut Figures,
    contender: usize,
}

impl Figures {
    /// Of contenders with these names; the first is the one that the others are compared with.
    pub(crate) fn of(contenders: Vec<String>) -> Self {
        Self { contenders, rows: Vec::new(), printed: Vec::new() }
    }

    /// One contender's turn.
    pub(crate) fn turn(&mut self, contender: usize) -> Report<'_> {
        Report { figures: self, contender }
    }

    /// Prints medians, each with its ratio to the first contender's, writes them to `BENCH_OUT`, and forgets them.
    pub(crate) fn print(&mut self, part: &str) {
        for row in self.rows.drain(..) {
            let samples = self.contenders.iter().zip(&row.samples).filter(|(_, samples)| !samples.is_empty());
            let samples: Map<String, Json> =
                samples.map(|(name, samples)| (name.clone(), json!(samples))).collect();
            let printed = json!({ "part": part, "what": row.what, "unit": row.unit, "samples": samples });
            self.printed.push(printed);
            let medians: Vec<f64> = row.samples.iter().map(|samples| median(samples)).collect();
            let cells = self.contenders.iter().zip(&medians).filter(|(_, median)| !median.is_nan());
            let cells = cells.map(|(name, median)| {
                let ratio = median / medians[0];
                let ratio = if ratio.is_finite() { format!(" ({ratio:.2})") } else { String::new() };
                format!("{name} {median:.3}{ratio}")
            });
            println!("{:<56} {:>7}  {}", row.what, row.unit, cells.collect::<Vec<_>>().join("  "));
        }
        if let Some(file) = std::env::var_os("BENCH_OUT") {
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            let all = json!({ "contenders": self.contenders, "load": load.trim(), "rows": self.printed });
            std::fs::write(file, format!("{all:#}\n")).expect("write BENCH_OUT");
        }
    }
}

impl Report<'_> {
    /// One sample.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, value: f64) {
        let contenders = self.figures.contenders.len();
        let rows = &mut self.figures.rows;
        let at = rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            rows.push(Row { what: what.to_owned(), unit, samples: vec![Vec::new(); contenders] });
            rows.len() - 1
        });
        rows[at].samples[self.contender].push(value);
    }

    /// One sample of a duration, in milliseconds.
    pub(crate) fn took(&mut self, what: &str, took: Duration) {
        self.add(what, "ms", took.as_secs_f64() * 1e3);
    }
}

/// Not a number when there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The sample below which this share of all is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a list in memory")]
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Of the line through the points, by least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let over: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    over / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}
