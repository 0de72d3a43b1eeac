//! The values behind the table.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

use super::table::{self, Kind, Label, Metric, OTHER};

/// The bounds of durations, in seconds: from a call that asks memory to a run of minutes.
const BOUNDS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    /// Something in this process keeps figures already.
    #[error("figures are kept already")]
    Installed,
    /// The table is wrong.
    #[error("a figure can't be kept: {0}")]
    Library(#[from] prometheus::Error),
}

/// One series: the values of its labels in the order of the table, and its own.
pub type Row = (Vec<String>, f64);

/// The value of every series.
pub struct Families {
    registry: Registry,
    counters: HashMap<&'static str, CounterVec>,
    gauges: HashMap<&'static str, GaugeVec>,
    histograms: HashMap<&'static str, HistogramVec>,
    /// What was sampled and nobody has asked for yet, by metric. A node with many kernels has thousands of series, each sampled every few
    /// seconds: they are sorted into the registry only when somebody looks.
    sampled: Mutex<HashMap<&'static str, (&'static Metric, Vec<Row>)>>,
}

impl Families {
    /// The table's, and what the system knows of this process. Counters begin at 0.
    pub fn new() -> Result<Self, FiguresError> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let (mut counters, mut gauges, mut histograms) = (HashMap::new(), HashMap::new(), HashMap::new());
        for metric in table::ALL {
            let labels: Vec<&str> = metric.labels.iter().map(|label| label.name).collect();
            let opts = Opts::new(metric.name, metric.help);
            match metric.kind {
                Kind::Counter => {
                    let made = CounterVec::new(opts, &labels)?;
                    for values in known(metric.labels) {
                        made.get_metric_with_label_values(&values)?;
                    }
                    registry.register(Box::new(made.clone()))?;
                    counters.insert(metric.name, made);
                }
                Kind::Gauge => {
                    let made = GaugeVec::new(opts, &labels)?;
                    registry.register(Box::new(made.clone()))?;
                    gauges.insert(metric.name, made);
                }
                Kind::Histogram => {
                    let opts = HistogramOpts::from(opts).buckets(BOUNDS.to_vec());
                    let made = HistogramVec::new(opts, &labels)?;
                    for values in known(metric.labels) {
                        made.get_metric_with_label_values(&values)?;
                    }
                    registry.register(Box::new(made.clone()))?;
                    histograms.insert(metric.name, made);
                }
            }
        }
        let families = Self { registry, counters, gauges, histograms, sampled: Mutex::default() };
        families.replace(&table::BUILD_INFO, vec![(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]);
        Ok(families)
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.sort_in();
        // Fails for a family without series only, and those are not gathered.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    pub(super) fn count(&self, metric: &Metric, labels: &[&str]) {
        // Fails where the number of labels is wrong, which the tests of those who count would see.
        let found = self.counters.get(metric.name);
        let series = found.and_then(|f| f.get_metric_with_label_values(&bounded(metric, labels)).ok());
        if let Some(series) = series {
            series.inc();
        }
    }

    pub(super) fn took(&self, metric: &Metric, labels: &[&str], time: Duration) {
        let found = self.histograms.get(metric.name);
        let series = found.and_then(|f| f.get_metric_with_label_values(&bounded(metric, labels)).ok());
        if let Some(series) = series {
            series.observe(time.as_secs_f64());
        }
    }

    /// These are all the series of `metric` from now on. Whoever [looks](Self::render) sees the newest.
    pub(super) fn replace(&self, metric: &'static Metric, rows: Vec<Row>) {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        sampled.insert(metric.name, (metric, rows));
    }

    /// Sets the series of all that was sampled.
    fn sort_in(&self) {
        // Held to the end: of two who look, the later one must not be overtaken by the older samples of the other.
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (metric, rows)) in sampled.drain() {
            self.set(metric, &rows);
        }
    }

    /// A counter that is read off elsewhere goes to its row's value, and begins anew where that has fallen.
    fn set(&self, metric: &Metric, rows: &[Row]) {
        let values = |row: &Row| -> Vec<String> {
            let values: Vec<&str> = row.0.iter().map(String::as_str).collect();
            bounded(metric, &values).into_iter().map(str::to_owned).collect()
        };
        let wanted: HashMap<Vec<String>, f64> = rows.iter().map(|row| (values(row), row.1)).collect();
        if let Some(family) = self.gauges.get(metric.name) {
            for (values, value) in &wanted {
                if let Ok(series) = family.get_metric_with_label_values(values) {
                    series.set(*value);
                }
            }
            for gone in series_of(family, metric).filter(|found| !wanted.contains_key(found)) {
                // It was there a moment ago, and nobody else removes any.
                let _ = family.remove_label_values(&gone);
            }
        } else if let Some(family) = self.counters.get(metric.name) {
            for (values, value) in &wanted {
                if let Ok(series) = family.get_metric_with_label_values(values) {
                    if *value < series.get() {
                        series.reset();
                    }
                    series.inc_by(value - series.get());
                }
            }
            for gone in series_of(family, metric).filter(|found| !wanted.contains_key(found)) {
                let _ = family.remove_label_values(&gone);
            }
        }
    }
}

/// The labels' values of all series that there are.
fn series_of(family: &impl Collector, metric: &Metric) -> impl Iterator<Item = Vec<String>> {
    let families = family.collect();
    let series: Vec<Vec<String>> = families
        .iter()
        .flat_map(prometheus::proto::MetricFamily::get_metric)
        .map(|series| {
            let value = |label: &Label| {
                let found = series.get_label().iter().find(|pair| pair.name() == label.name);
                found.map(|pair| pair.value().to_owned()).unwrap_or_default()
            };
            metric.labels.iter().map(value).collect()
        })
        .collect();
    series.into_iter()
}

/// The values that are taken for `labels`.
fn bounded<'l>(metric: &Metric, labels: &[&'l str]) -> Vec<&'l str> {
    let taken = |(label, value): (&Label, &&'l str)| {
        if label.values.is_empty() || label.values.contains(value) { *value } else { OTHER }
    };
    metric.labels.iter().zip(labels).map(taken).collect()
}

/// All series whose labels' values are known beforehand; none where a label is open.
fn known(labels: &[Label]) -> Vec<Vec<&'static str>> {
    labels.iter().fold(vec![Vec::new()], |begun, label| {
        let with = |before: &Vec<&'static str>, value: &&'static str| {
            let mut values = before.clone();
            values.push(*value);
            values
        };
        begun.iter().flat_map(|before| label.values.iter().map(move |value| with(before, value))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::table::{
        DOCKER_REQUESTS, GPU_BUSY, KERNEL_CPU, KERNEL_ENDS, READY, RPC_CALLS, RPC_SECONDS,
    };
    use super::*;

    #[track_caller]
    fn has(families: &Families, line: &str) {
        let text = families.render();
        assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }

    #[track_caller]
    fn lacks(families: &Families, part: &str) {
        let text = families.render();
        assert!(!text.contains(part), "{part}:\n{text}");
    }

    #[test]
    fn counters_are_born_at_0_and_gauges_when_they_are_known() {
        let families = Families::new().unwrap();
        has(&families, "backendai_agent_rpc_calls_total{method=\"execute\",outcome=\"late\"} 0");
        has(&families, "backendai_agent_kernel_ends_total{reason=\"idle-timeout\"} 0");
        has(&families, "backendai_agent_docker_calls_total{call=\"info\",outcome=\"failed\"} 0");
        has(&families, "backendai_agent_rpc_call_duration_seconds_count{method=\"ping\"} 0");
        has(&families, "backendai_agent_rpc_dropped_messages_total 0");
        has(&families, &format!("backendai_agent_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        assert!(families.render().contains("\nprocess_resident_memory_bytes "));
        lacks(&families, "backendai_agent_ready");
        families.replace(&READY, vec![(vec![], 1.0)]);
        has(&families, "backendai_agent_ready 1");
        has(&families, &format!("# HELP backendai_agent_ready {}", READY.help));
    }

    #[test]
    fn what_happens_is_counted_and_a_stranger_makes_no_series() {
        let families = Families::new().unwrap();
        families.count(&RPC_CALLS, &["ping", "answered"]);
        families.count(&KERNEL_ENDS, &["user-requested"]);
        families.count(&DOCKER_REQUESTS, &["info", "late"]);
        families.took(&RPC_SECONDS, &["ping"], Duration::from_millis(3));
        for name in ["dance", "dance\" 1\n", "x"] {
            families.count(&RPC_CALLS, &[name, "refused"]);
        }
        has(&families, "backendai_agent_rpc_calls_total{method=\"ping\",outcome=\"answered\"} 1");
        has(&families, "backendai_agent_rpc_call_duration_seconds_bucket{method=\"ping\",le=\"0.005\"} 1");
        has(&families, "backendai_agent_rpc_calls_total{method=\"other\",outcome=\"refused\"} 3");
        lacks(&families, "dance");
    }

    #[test]
    fn the_series_of_what_is_gone_go() {
        let families = Families::new().unwrap();
        let gpu = |n: u32, busy: f64| (vec![n.to_string(), format!("GPU-{n}")], busy);
        families.replace(&GPU_BUSY, vec![gpu(0, 0.25), gpu(1, 0.5)]);
        has(&families, "backendai_agent_gpu_busy_ratio{gpu=\"1\",uuid=\"GPU-1\"} 0.5");
        families.replace(&GPU_BUSY, vec![gpu(0, 0.75)]);
        has(&families, "backendai_agent_gpu_busy_ratio{gpu=\"0\",uuid=\"GPU-0\"} 0.75");
        lacks(&families, "GPU-1");
        families.replace(&GPU_BUSY, Vec::new());
        lacks(&families, "gpu_busy");
    }

    #[test]
    fn a_counter_that_is_read_elsewhere_grows_and_begins_anew() {
        let families = Families::new().unwrap();
        let cpu = |seconds: f64| families.replace(&KERNEL_CPU, vec![(vec!["k".to_owned()], seconds)]);
        cpu(2.0);
        cpu(5.5);
        has(&families, "backendai_agent_kernel_cpu_seconds_total{kernel=\"k\"} 5.5");
        cpu(0.5);
        has(&families, "backendai_agent_kernel_cpu_seconds_total{kernel=\"k\"} 0.5");
        families.replace(&KERNEL_CPU, Vec::new());
        lacks(&families, "kernel_cpu_seconds");
    }
}
