//! What is sampled: gauges for Prometheus (`figures`) and, over UDP, for a `DogStatsD` server; a counter of the lines that
//! say that something is wrong.
//!
//! What has a value at any moment its room leaves in a `watch`, and the composition root samples those into a
//! [`NodeGauges`] every few seconds.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cadence::{Gauged, StatsdClient, UdpMetricSink};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::conditions::{Condition, Conditions};
use crate::figures::table::{self, Metric};
use crate::figures::{self, Row};

/// One figure: where it goes at Prometheus, its name at `DogStatsD` after the prefix, and its value, if that is known.
struct Gauge(&'static Metric, &'static str, Option<f64>);

/// What the node looks like at one moment. `None` is a figure that isn't known (yet); it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NodeGauges {
    /// Kernels that this agent holds, starting and ending ones included.
    pub kernels: KernelStates,
    /// Kernels with a run that goes on.
    pub runs: u64,
    /// Cores that can be given to kernels.
    pub cpu_cores: u64,
    /// Cores given to kernels, each counted once per kernel that has it: above `cpu_cores` when overbooked.
    pub cpu_shares: u64,
    /// Devices that can be given to kernels.
    pub gpus: u64,
    /// Devices given to kernels.
    pub gpus_used: u64,
    /// Memory that can be given to kernels, in bytes.
    pub memory_bytes: u64,
    /// Memory limits of all kernels together, in bytes.
    pub memory_given_bytes: u64,
    /// Tasks of the whole machine that ran or waited, on average over the last minute.
    pub host_load: f64,
    /// The memory of the machine, in bytes.
    pub host_memory_bytes: u64,
    /// What of it new processes can have, in bytes.
    pub host_memory_available_bytes: u64,
    /// Events that wait for the manager.
    pub events_waiting: u64,
    /// Endings that are not finished: reported, removed and cleaned up.
    pub endings_waiting: u64,
    /// Since the last heartbeat arrived; the manager gives the agent up after 5 s.
    pub last_heartbeat_age: Option<Duration>,
    /// Kernel images that the manager is told of.
    pub images: u64,
    /// Tasks of the runtime, idle connections among them; a figure that only grows is a leak.
    pub tasks: u64,
}

/// How many kernels are how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelStates {
    /// Being made.
    pub creating: u64,
    /// Found at a start, and looked at.
    pub looking: u64,
    /// At work.
    pub running: u64,
    /// Between two containers.
    pub restarting: u64,
    /// Running, and of no use.
    pub left_alone: u64,
    /// Being ended or undone.
    pub ending: u64,
}

impl KernelStates {
    fn counts(&self) -> [u64; 6] {
        [self.creating, self.looking, self.running, self.restarting, self.left_alone, self.ending]
    }
}

impl NodeGauges {
    fn list(&self) -> [Gauge; 15] {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let beat = self.last_heartbeat_age.map(|age| since_1970.saturating_sub(age).as_secs_f64());
        [
            Gauge(&table::RUNS, "runs", exact(self.runs)),
            Gauge(&table::CPU_CORES, "cpu_cores", exact(self.cpu_cores)),
            Gauge(&table::CPU_SHARES, "cpu_shares", exact(self.cpu_shares)),
            Gauge(&table::MEMORY_BYTES, "memory_bytes", exact(self.memory_bytes)),
            Gauge(&table::MEMORY_GIVEN, "memory_given_bytes", exact(self.memory_given_bytes)),
            Gauge(&table::HOST_LOAD, "host_load1", Some(self.host_load)),
            Gauge(&table::HOST_MEMORY, "host_memory_bytes", exact(self.host_memory_bytes)),
            Gauge(
                &table::HOST_AVAILABLE,
                "host_memory_available_bytes",
                exact(self.host_memory_available_bytes),
            ),
            Gauge(&table::GPUS, "gpus", exact(self.gpus)),
            Gauge(&table::GPUS_USED, "gpus_used", exact(self.gpus_used)),
            Gauge(&table::EVENTS_WAITING, "events_waiting", exact(self.events_waiting)),
            Gauge(&table::ENDINGS_WAITING, "endings_waiting", exact(self.endings_waiting)),
            Gauge(&table::LAST_HEARTBEAT, "last_heartbeat_timestamp_seconds", beat),
            Gauge(&table::IMAGES, "images", exact(self.images)),
            Gauge(&table::TASKS, "tasks", exact(self.tasks)),
        ]
    }
}

/// How one GPU does. `None` is a figure that the device does not tell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuGauges {
    /// The device's number, as in `gpu_set`.
    pub index: u32,
    /// The device's lasting name.
    pub uuid: String,
    /// Kernels that have a part of it.
    pub kernels: u32,
    /// The memory of the device.
    pub memory_bytes: u64,
    /// The memory of the device that is in use.
    pub memory_used_bytes: u64,
    /// The part of the time in which it computes.
    pub busy_percent: Option<u32>,
    /// The temperature of the device.
    pub celsius: Option<u32>,
    /// The power that the device draws.
    pub watts: Option<f64>,
}

impl GpuGauges {
    fn list(&self) -> [Gauge; 6] {
        let busy = self.busy_percent.map(|percent| f64::from(percent) / 100.0);
        [
            Gauge(&table::GPU_KERNELS, "gpu_kernels", exact(self.kernels.into())),
            Gauge(&table::GPU_MEMORY, "gpu_memory_bytes", exact(self.memory_bytes)),
            Gauge(&table::GPU_MEMORY_USED, "gpu_memory_used_bytes", exact(self.memory_used_bytes)),
            Gauge(&table::GPU_BUSY, "gpu_busy_ratio", busy),
            Gauge(&table::GPU_CELSIUS, "gpu_temperature_celsius", self.celsius.map(f64::from)),
            Gauge(&table::GPU_WATTS, "gpu_power_watts", self.watts),
        ]
    }
}

/// One kernel. `None` is a figure that is not known (yet).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KernelGauges {
    /// Which.
    pub kernel: String,
    /// Its image without the prefix.
    pub image: String,
    /// When it was created.
    pub born: Option<SystemTime>,
    /// Whether a run goes on.
    pub runs: bool,
    /// Its cores.
    pub cores: u64,
    /// Its memory limit.
    pub memory_limit_bytes: u64,
    /// What it has used, once that was measured.
    pub used: Option<KernelUse>,
}

/// What a kernel has used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct KernelUse {
    /// Its memory.
    pub memory_bytes: u64,
    /// Processor time.
    pub cpu_seconds: f64,
    /// Bytes received.
    pub net_rx_bytes: u64,
    /// Bytes sent.
    pub net_tx_bytes: u64,
    /// Bytes read from disks.
    pub io_read_bytes: u64,
    /// Bytes written to disks.
    pub io_write_bytes: u64,
    /// The size of its scratch directory.
    pub scratch_bytes: u64,
}

impl KernelGauges {
    fn list(&self) -> [(&'static Metric, Option<f64>); 11] {
        let born = self.born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let used = |of: fn(&KernelUse) -> u64| self.used.as_ref().map(of).and_then(exact);
        [
            (&table::KERNEL_CREATED, born.map(|born| born.as_secs_f64())),
            (&table::KERNEL_RUNNING, exact(self.runs.into())),
            (&table::KERNEL_CORES, exact(self.cores)),
            (&table::KERNEL_MEMORY_LIMIT, exact(self.memory_limit_bytes)),
            (&table::KERNEL_MEMORY, used(|used| used.memory_bytes)),
            (&table::KERNEL_CPU, self.used.map(|used| used.cpu_seconds)),
            (&table::KERNEL_NET_RX, used(|used| used.net_rx_bytes)),
            (&table::KERNEL_NET_TX, used(|used| used.net_tx_bytes)),
            (&table::KERNEL_IO_READ, used(|used| used.io_read_bytes)),
            (&table::KERNEL_IO_WRITE, used(|used| used.io_write_bytes)),
            (&table::KERNEL_SCRATCH, used(|used| used.scratch_bytes)),
        ]
    }
}

/// Figures of a node stay far below 2^53, where floating point would begin to round.
#[allow(clippy::cast_precision_loss, clippy::unnecessary_wraps)]
fn exact(value: u64) -> Option<f64> {
    Some(value as f64)
}

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
            figures::replace(metric, &rows);
            if let (Some(client), Some(value)) = (&self.statsd, value) {
                // UDP to a local server that may not run: there is nothing to do about it, and nothing to say.
                let _ = client.gauge(statsd, value);
            }
        }
        let counts = node.kernels.counts();
        let states = table::STATES.iter().zip(counts);
        let rows = states.filter_map(|(state, count)| Some((vec![(*state).to_owned()], exact(count)?)));
        figures::replace(&table::KERNELS, &rows.collect::<Vec<Row>>());
        if let Some(client) = &self.statsd {
            // As above.
            let _ = client.gauge("kernels", counts.iter().sum::<u64>());
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
        figures::replace(&table::KERNEL_INFO, &info.collect::<Vec<Row>>());
        replace_all(kernels, |kernel| {
            kernel.list().map(|(metric, value)| (metric, vec![kernel.kernel.clone()], value))
        });
    }

    /// Publishes how far the pulls of images are: by image, the bytes that are here and all that are known of.
    pub fn record_pulls(&self, pulls: &[(String, u64, u64)]) {
        let rows = |of: fn(&(String, u64, u64)) -> u64| -> Vec<Row> {
            pulls.iter().filter_map(|pull| Some((vec![pull.0.clone()], exact(of(pull))?))).collect()
        };
        figures::replace(&table::IMAGE_PULLED_BYTES, &rows(|pull| pull.1));
        figures::replace(&table::IMAGE_PULL_BYTES, &rows(|pull| pull.2));
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
        figures::replace(metric, &rows);
    }
}

impl Meters {
    /// Publishes how each need of the agent is met; never waits.
    pub fn record_conditions(&self, conditions: &Conditions) {
        let rows = |of: fn(&Condition) -> Option<f64>| -> Vec<Row> {
            let row = |condition: &Condition| Some((vec![condition.name.name().to_owned()], of(condition)?));
            conditions.list().iter().filter_map(row).collect()
        };
        figures::replace(&table::CONDITION, &rows(|condition| exact(condition.ok.into())));
        figures::replace(&table::CONDITION_SINCE, &rows(|condition| exact(condition.since)));
        let is_ready = exact(conditions.is_ready().into()).unwrap_or_default();
        figures::replace(&table::READY, &[(Vec::new(), is_ready)]);
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
        let kernels = KernelStates { running: 2, ending: 1, ..KernelStates::default() };
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

    #[test]
    fn warnings_and_errors_are_counted() {
        let warnings = |text: &str| -> f64 {
            let found =
                text.lines().find_map(|l| l.strip_prefix("backendai_agent_log_lines_total{level=\"warn\"} "));
            found.unwrap().parse().unwrap()
        };
        let before = warnings(&rendered(|| {}));
        let text = rendered(|| {
            let subscriber = tracing_subscriber::registry().with(CountLines);
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("fine");
                tracing::warn!("hm");
                tracing::warn!("hm");
            });
        });
        assert!((warnings(&text) - before - 2.0).abs() < f64::EPSILON, "{text}");
        assert!(!text.contains("level=\"info\""), "{text}");
    }
}
