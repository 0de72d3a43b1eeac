//! The node's figures: gauges for Prometheus and, over UDP, for a `DogStatsD` server; a counter of the lines that
//! say that something is wrong.
//!
//! No room records figures of its own. Each leaves its state in a `watch`, and the composition root samples
//! those into a [`NodeGauges`] every few seconds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use cadence::{Gauged, StatsdClient, UdpMetricSink};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::conditions::Conditions;

/// The names at Prometheus of what is told of conditions.
const CONDITION: &str = "backendai_agent_condition";
const CONDITION_SINCE: &str = "backendai_agent_condition_since_timestamp_seconds";

struct Gauge {
    /// The name at Prometheus.
    name: &'static str,
    /// The name at `DogStatsD`, after the prefix.
    statsd: &'static str,
    help: &'static str,
    value: Option<f64>,
}

/// `gauge!(kernels, "Kernels.", value)`: one name, spelt in both manners.
macro_rules! gauge {
    ($name:literal, $help:literal, $value:expr) => {
        Gauge { name: concat!("backendai_agent_", $name), statsd: $name, help: $help, value: $value }
    };
}

/// What the node looks like at one moment. `None` is a figure that isn't known (yet); it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NodeGauges {
    /// Kernels that this agent holds, starting and ending ones included.
    pub kernels: u64,
    /// Runs that are going on or queue up.
    pub runs: u64,
    /// Cores that can be given to kernels.
    pub cpu_cores: u64,
    /// Cores given to kernels, each counted once per kernel that has it: above `cpu_cores` when overbooked.
    pub cpu_shares: u64,
    /// Devices that can be given to kernels.
    pub gpus: u64,
    /// Devices given to kernels.
    pub gpus_used: u64,
    /// Memory limits of all kernels together, in bytes.
    pub memory_given_bytes: u64,
    /// Events that wait for the manager.
    pub events_waiting: u64,
    /// Endings that are not finished: reported, removed and cleaned up.
    pub endings_waiting: u64,
    /// Since the last heartbeat left; the manager gives the agent up after 5 s.
    pub last_heartbeat_age: Option<Duration>,
    /// Tasks of the runtime, idle connections among them; a figure that only grows is a leak.
    pub tasks: u64,
    /// Whether `/readyz` says yes.
    pub ready: bool,
}

impl NodeGauges {
    fn list(&self) -> [Gauge; 12] {
        let age = self.last_heartbeat_age.map(|age| age.as_secs_f64());
        [
            gauge!("kernels", "Kernels that this agent holds.", exact(self.kernels)),
            gauge!("runs", "Runs that are going on or queue up.", exact(self.runs)),
            gauge!("cpu_cores", "Cores that can be given to kernels.", exact(self.cpu_cores)),
            gauge!("cpu_shares", "Cores given to kernels, once per kernel.", exact(self.cpu_shares)),
            gauge!("gpus", "GPUs that can be given to kernels.", exact(self.gpus)),
            gauge!("gpus_used", "GPUs given to kernels.", exact(self.gpus_used)),
            gauge!("memory_given_bytes", "Memory limits of all kernels.", exact(self.memory_given_bytes)),
            gauge!("events_waiting", "Events that wait for the manager.", exact(self.events_waiting)),
            gauge!("endings_waiting", "Ends of kernels not finished yet.", exact(self.endings_waiting)),
            gauge!("last_heartbeat_age_seconds", "Time since the last heartbeat left.", age),
            gauge!("tasks", "Tasks of the runtime.", exact(self.tasks)),
            gauge!("ready", "1 when the agent can take sessions, else 0.", exact(self.ready.into())),
        ]
    }
}

/// How one GPU does. `None` is a figure that the device does not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuGauges {
    /// The device's number, as in `gpu_set`.
    pub index: u32,
    /// The device's lasting name.
    pub uuid: String,
    /// Kernels that have a part of it.
    pub kernels: u32,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its memory in use.
    pub memory_used_bytes: u64,
    /// The part of the time in which it computes.
    pub busy_percent: Option<u32>,
    /// Its temperature.
    pub celsius: Option<u32>,
    /// Its power.
    pub watts: Option<f64>,
}

impl GpuGauges {
    fn list(&self) -> [Gauge; 6] {
        [
            gauge!("gpu_kernels", "Kernels that have a part of the GPU.", exact(self.kernels.into())),
            gauge!("gpu_memory_bytes", "Memory of the GPU.", exact(self.memory_bytes)),
            gauge!("gpu_memory_used_bytes", "Memory of the GPU in use.", exact(self.memory_used_bytes)),
            gauge!("gpu_busy_percent", "Time in which the GPU computes.", self.busy_percent.map(f64::from)),
            gauge!("gpu_celsius", "Temperature of the GPU.", self.celsius.map(f64::from)),
            gauge!("gpu_watts", "Power of the GPU.", self.watts),
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
    /// Figures for the `metrics` recorder only.
    pub(super) fn without_statsd() -> Self {
        Self { statsd: None }
    }

    /// Figures for the `metrics` recorder and for the `DogStatsD` server at `server`.
    pub(super) fn with_statsd(server: SocketAddr) -> io::Result<Self> {
        Ok(Self { statsd: Some(Arc::new(statsd_client(server)?)) })
    }

    /// Publishes the figures; never waits.
    pub fn record(&self, node: &NodeGauges) {
        for Gauge { name, statsd, help, value } in node.list() {
            let Some(value) = value else { continue };
            metrics::describe_gauge!(name, help);
            metrics::gauge!(name).set(value);
            if let Some(client) = &self.statsd {
                // UDP to a local server that may not run: there is nothing to do about it, and nothing to say.
                let _ = client.gauge(statsd, value);
            }
        }
    }
}

impl Meters {
    /// Publishes how the GPUs do; never waits. The figures of a device that is gone stay at their last values, while the
    /// node's number of GPUs falls.
    pub fn record_gpus(&self, gpus: &[GpuGauges]) {
        for gpu in gpus {
            let labels = [("gpu", gpu.index.to_string()), ("uuid", gpu.uuid.clone())];
            for Gauge { name, statsd, help, value } in gpu.list() {
                let Some(value) = value else { continue };
                metrics::describe_gauge!(name, help);
                metrics::gauge!(name, &labels).set(value);
                if let Some(client) = &self.statsd {
                    // As above: nothing is to be done about a server that does not run.
                    let _ = client.gauge_with_tags(statsd, value).with_tag("uuid", &gpu.uuid).try_send();
                }
            }
        }
    }
}

impl Meters {
    /// Publishes how each need of the agent is met; never waits.
    pub fn record_conditions(&self, conditions: &Conditions) {
        for condition in conditions.list() {
            let (name, labels) = (condition.name.name(), [("name", condition.name.name())]);
            let is_met = f64::from(u8::from(condition.ok));
            metrics::describe_gauge!(CONDITION, "1 while a need of the agent is met, else 0.");
            metrics::gauge!(CONDITION, &labels).set(is_met);
            metrics::describe_gauge!(CONDITION_SINCE, "Since when it is so, in seconds since 1970.");
            metrics::gauge!(CONDITION_SINCE, &labels).set(exact(condition.since).unwrap_or_default());
            if let Some(client) = &self.statsd {
                // As above: nothing is to be done about a server that does not run.
                let _ = client.gauge_with_tags("condition", is_met).with_tag("name", name).try_send();
            }
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
        metrics::counter!("backendai_agent_log_lines_total", "level" => level).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::conditions::{Moment, Need};

    fn rendered(run: impl FnOnce()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, run);
        recorder.handle().render()
    }

    #[test]
    fn every_known_gauge_is_rendered_with_its_help() {
        let meters = Meters::without_statsd();
        let mut node = NodeGauges { kernels: 3, cpu_shares: 12, ..NodeGauges::default() };
        let text = rendered(|| meters.record(&node));
        assert!(text.contains("\nbackendai_agent_kernels 3\n"), "{text}");
        assert!(text.contains("# HELP backendai_agent_cpu_shares Cores given"), "{text}");
        assert!(!text.contains("heartbeat"), "an unknown figure must not look like 0: {text}");
        node.last_heartbeat_age = Some(Duration::from_millis(1500));
        let text = rendered(|| meters.record(&node));
        assert!(text.contains("\nbackendai_agent_last_heartbeat_age_seconds 1.5\n"), "{text}");
    }

    #[test]
    fn each_gpu_has_gauges_of_its_own() {
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
        let text = rendered(|| Meters::without_statsd().record_gpus(&[gpu(0), gpu(1)]));
        for line in [
            "backendai_agent_gpu_kernels{gpu=\"0\",uuid=\"GPU-0\"} 2",
            "backendai_agent_gpu_busy_percent{gpu=\"1\",uuid=\"GPU-1\"} 7",
            "backendai_agent_gpu_watts{gpu=\"0\",uuid=\"GPU-0\"} 70.5",
        ] {
            assert!(text.contains(line), "{line} is missing: {text}");
        }
        assert!(!text.contains("busy_percent{gpu=\"0\"") && !text.contains("celsius"), "{text}");
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
        meters.record(&NodeGauges { kernels: 2, ..NodeGauges::default() });
        let mut packet = [0; 256];
        let length = server.recv(&mut packet).unwrap();
        assert_eq!(std::str::from_utf8(&packet[..length]).unwrap(), "backendai.agent.kernels:2|g");
    }

    #[test]
    fn warnings_and_errors_are_counted() {
        let text = rendered(|| {
            let subscriber = tracing_subscriber::registry().with(CountLines);
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("fine");
                tracing::warn!("hm");
                tracing::warn!("hm");
            });
        });
        assert!(text.contains("backendai_agent_log_lines_total{level=\"warn\"} 2"), "{text}");
        assert!(!text.contains("info"), "{text}");
    }
}
