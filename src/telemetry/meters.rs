//! Publishing what is sampled: as gauges for Prometheus (`figures`) and, over UDP, for a `DogStatsD` server.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use cadence::{Gauged, StatsdClient, UdpMetricSink};

use super::gauges::{Gauge, GpuGauges, KernelGauges, NodeGauges, exact};
use crate::conditions::{Condition, Conditions};
use crate::figures::table::{self, Metric};
use crate::figures::{self, Row};

/// Where the figures go. Cheap to clone.
#[derive(Clone)]
pub struct Meters {
    /// `None` when no Datadog keys were given.
    statsd: Option<Arc<StatsdClient>>,
}

impl Meters {
    /// Figures for Prometheus only.
    pub(super) fn without_statsd() -> Self {
        Self { statsd: None }
    }

    /// Figures for Prometheus and for the `DogStatsD` server at `server`.
    pub(super) fn with_statsd(server: SocketAddr) -> io::Result<Self> {
        Ok(Self { statsd: Some(Arc::new(statsd_client(server)?)) })
    }

    /// Publishes the node's figures; never waits.
    pub fn record(&self, node: &NodeGauges) {
        for Gauge(metric, statsd, value) in node.list() {
            let rows: Vec<Row> = value.map(|value| (Vec::new(), value)).into_iter().collect();
            figures::replace(metric, rows);
            if let (Some(client), Some(value)) = (&self.statsd, value) {
                // UDP to a local server that may not run: there is nothing to do about it, and nothing to say.
                let _ = client.gauge(statsd, value);
            }
        }
        let count = |state: &str| node.kernels.get(state).copied().unwrap_or(0);
        let rows =
            table::STATES.iter().filter_map(|state| Some((vec![(*state).to_owned()], exact(count(state))?)));
        figures::replace(&table::KERNELS, rows.collect());
        if let Some(client) = &self.statsd {
            // As above.
            let _ = client.gauge("kernels", node.kernels.values().sum::<u64>());
        }
    }

    /// Publishes how the GPUs do; never waits. The figures of a device that is gone go.
    pub fn record_gpus(&self, gpus: &[GpuGauges]) {
        let labels = |gpu: &GpuGauges| vec![gpu.index.to_string(), gpu.uuid.clone()];
        replace_all(gpus, |gpu| gpu.list().map(|Gauge(metric, _, value)| (metric, labels(gpu), value)));
        let Some(client) = &self.statsd else { return };
        for gpu in gpus {
            for Gauge(_, name, value) in gpu.list() {
                let Some(value) = value else { continue };
                // As above.
                let _ = client.gauge_with_tags(name, value).with_tag("uuid", &gpu.uuid).try_send();
            }
        }
    }

    /// Publishes what the kernels use; never waits. The series of a kernel that is gone go.
    pub fn record_kernels(&self, kernels: &[KernelGauges]) {
        let info = kernels.iter().map(|kernel| (vec![kernel.kernel.clone(), kernel.image.clone()], 1.0));
        figures::replace(&table::KERNEL_INFO, info.collect());
        replace_all(kernels, |kernel| {
            kernel.list().map(|(metric, value)| (metric, vec![kernel.kernel.clone()], value))
        });
    }

    /// Publishes how far the pulls of images are: by image, the bytes that are here and all that are known of.
    pub fn record_pulls(&self, pulls: &[(String, u64, u64)]) {
        let rows = |of: fn(&(String, u64, u64)) -> u64| -> Vec<Row> {
            pulls.iter().filter_map(|pull| Some((vec![pull.0.clone()], exact(of(pull))?))).collect()
        };
        figures::replace(&table::IMAGE_PULLED_BYTES, rows(|pull| pull.1));
        figures::replace(&table::IMAGE_PULL_BYTES, rows(|pull| pull.2));
    }
}

/// Publishes all series of things of one kind, each of which `list`s all of its own, whether or not they are known.
fn replace_all<T: Default, const N: usize>(
    things: &[T],
    list: impl Fn(&T) -> [(&'static Metric, Vec<String>, Option<f64>); N],
) {
    let mut by_metric: BTreeMap<&'static str, (&'static Metric, Vec<Row>)> = BTreeMap::new();
    // Also those of which there is none any more.
    by_metric.extend(list(&T::default()).map(|(metric, ..)| (metric.name, (metric, Vec::new()))));
    for (metric, labels, value) in things.iter().flat_map(list) {
        let rows = &mut by_metric.entry(metric.name).or_insert((metric, Vec::new())).1;
        rows.extend(value.map(|value| (labels, value)));
    }
    for (metric, rows) in by_metric.into_values() {
        figures::replace(metric, rows);
    }
}

impl Meters {
    /// Publishes how each need of the agent is met; never waits.
    pub fn record_conditions(&self, conditions: &Conditions) {
        let rows = |of: fn(&Condition) -> Option<f64>| -> Vec<Row> {
            let row = |condition: &Condition| Some((vec![condition.name.name().to_owned()], of(condition)?));
            conditions.list().iter().filter_map(row).collect()
        };
        figures::replace(&table::CONDITION, rows(|condition| exact(condition.ok.into())));
        figures::replace(&table::CONDITION_SINCE, rows(|condition| exact(condition.since)));
        let is_ready = exact(conditions.is_ready().into()).unwrap_or_default();
        figures::replace(&table::READY, vec![(Vec::new(), is_ready)]);
        let Some(client) = &self.statsd else { return };
        // As above: nothing is to be done about a server that does not run.
        let _ = client.gauge("ready", is_ready);
        for condition in conditions.list() {
            let (name, is_met) = (condition.name.name(), f64::from(u8::from(condition.ok)));
            let _ = client.gauge_with_tags("condition", is_met).with_tag("name", name).try_send();
        }
    }
}

fn statsd_client(server: SocketAddr) -> io::Result<StatsdClient> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    let sink = UdpMetricSink::from(server, socket).map_err(io::Error::other)?;
    Ok(StatsdClient::from_sink("backendai.agent", sink))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::super::gauges::KernelUse;
    use super::*;
    use crate::conditions::{Moment, Need};

    /// The figures are the process's, so that the tests of this file see each other's; each looks at its own.
    fn rendered(run: impl FnOnce()) -> String {
        // Another test may have been first.
        let _ = figures::install();
        run();
        figures::render()
    }

    #[test]
    fn every_known_gauge_is_rendered_and_an_unknown_one_is_not_0() {
        let meters = Meters::without_statsd();
        let kernels = [("running", 2), ("ending", 1)].into();
        let mut node = NodeGauges { kernels, cpu_shares: 12, ..NodeGauges::default() };
        let text = rendered(|| meters.record(&node));
        for line in [
            "backendai_agent_kernels{state=\"running\"} 2",
            "backendai_agent_kernels{state=\"ending\"} 1",
            "backendai_agent_kernels{state=\"creating\"} 0",
            "backendai_agent_cpu_shares 12",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing: {text}");
        }
        assert!(!text.contains("last_heartbeat"), "{text}");
        node.last_heartbeat_age = Some(Duration::from_secs(2));
        let text = rendered(|| meters.record(&node));
        let beat =
            text.lines().find_map(|l| l.strip_prefix("backendai_agent_last_heartbeat_timestamp_seconds "));
        let ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
            - beat.unwrap().parse::<f64>().unwrap();
        assert!((1.9..60.0).contains(&ago), "{ago}");
    }

    #[test]
    fn each_gpu_has_gauges_of_its_own_until_it_is_gone() {
        let gpu = |index| GpuGauges {
            index,
            uuid: format!("GPU-{index}"),
            kernels: 2,
            memory_bytes: 1024,
            memory_used_bytes: 512,
            busy_percent: (index == 1).then_some(7),
            celsius: None,
            watts: Some(70.5),
        };
        let meters = Meters::without_statsd();
        let text = rendered(|| meters.record_gpus(&[gpu(0), gpu(1)]));
        for line in [
            "backendai_agent_gpu_kernels{gpu=\"0\",uuid=\"GPU-0\"} 2",
            "backendai_agent_gpu_busy_ratio{gpu=\"1\",uuid=\"GPU-1\"} 0.07",
            "backendai_agent_gpu_power_watts{gpu=\"0\",uuid=\"GPU-0\"} 70.5",
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("busy_ratio{gpu=\"0\"") && !text.contains("celsius"), "{text}");
        let text = rendered(|| meters.record_gpus(&[gpu(0)]));
        assert!(text.contains("GPU-0") && !text.contains("GPU-1"), "{text}");
        let text = rendered(|| meters.record_gpus(&[]));
        assert!(!text.contains("gpu=\""), "{text}");
    }

    #[test]
    fn a_kernel_has_series_until_it_is_gone() {
        let used = KernelUse { cpu_seconds: 1.5, net_rx_bytes: 7, ..KernelUse::default() };
        let kernel = KernelGauges {
            kernel: "k-1".to_owned(),
            image: "python:demo".to_owned(),
            memory_limit_bytes: 64,
            used: Some(used),
            ..KernelGauges::default()
        };
        let new = KernelGauges { kernel: "k-2".to_owned(), used: None, ..kernel.clone() };
        let meters = Meters::without_statsd();
        let text = rendered(|| meters.record_kernels(&[kernel, new.clone()]));
        for line in [
            "backendai_agent_kernel_info{image=\"python:demo\",kernel=\"k-1\"} 1",
            "backendai_agent_kernel_cpu_seconds_total{kernel=\"k-1\"} 1.5",
            "backendai_agent_kernel_network_receive_bytes_total{kernel=\"k-1\"} 7",
            "backendai_agent_kernel_memory_limit_bytes{kernel=\"k-2\"} 64",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing: {text}");
        }
        assert!(!text.contains("cpu_seconds_total{kernel=\"k-2\""), "{text}");
        let text = rendered(|| meters.record_kernels(&[new]));
        assert!(!text.contains("k-1") && text.contains("k-2"), "{text}");
        let text = rendered(|| meters.record_kernels(&[]));
        assert!(!text.contains("k-2"), "{text}");
    }

    #[test]
    fn a_pull_is_told_of_while_it_goes_on() {
        let meters = Meters::without_statsd();
        let text = rendered(|| meters.record_pulls(&[("r:4".to_owned(), 5, 10)]));
        assert!(text.contains("backendai_agent_image_pulled_bytes{image=\"r:4\"} 5\n"), "{text}");
        assert!(text.contains("backendai_agent_image_pull_bytes{image=\"r:4\"} 10\n"), "{text}");
        assert!(!rendered(|| meters.record_pulls(&[])).contains("r:4"));
    }

    #[test]
    fn each_condition_has_a_gauge_and_the_time_of_its_change() {
        let mut conditions = Conditions::default();
        let now = Moment { at: std::time::Instant::now(), unix: 1_800_000_007 };
        conditions.set(Need::Disk, Some("full".to_owned()), now);
        conditions.set(Need::Docker, None, now);
        let text = rendered(|| Meters::without_statsd().record_conditions(&conditions));
        for line in [
            "backendai_agent_condition{name=\"disk\"} 0",
            "backendai_agent_condition{name=\"docker\"} 1",
            "backendai_agent_condition_since_timestamp_seconds{name=\"disk\"} 1800000007",
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
    }

    #[test]
    fn statsd_gets_the_same_gauges() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let meters = Meters::with_statsd(server.local_addr().unwrap()).unwrap();
        meters.record(&NodeGauges { runs: 2, ..NodeGauges::default() });
        let mut packet = [0; 256];
        let length = server.recv(&mut packet).unwrap();
        assert_eq!(std::str::from_utf8(&packet[..length]).unwrap(), "backendai.agent.runs:2|g");
    }
}
