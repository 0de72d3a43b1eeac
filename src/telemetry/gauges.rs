//! What is sampled: the figures of the node, of its GPUs and of its kernels, and under which name each is published.
//!
//! What has a value at any moment its room leaves in a `watch`, and the composition root samples those into a
//! [`NodeGauges`] every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::figures::table::{self, Metric};

/// One figure: where it goes at Prometheus, its name at `DogStatsD` after the prefix, and its value, if that is known.
pub(super) struct Gauge(pub(super) &'static Metric, pub(super) &'static str, pub(super) Option<f64>);

/// What the node looks like at one moment. `None` is a figure that isn't known (yet); it is left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeGauges {
    /// How many kernels are how far, under the names of `figures::table::STATES`; what is not named is 0.
    pub kernels: BTreeMap<&'static str, u64>,
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

impl NodeGauges {
    pub(super) fn list(&self) -> [Gauge; 15] {
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
    pub(super) fn list(&self) -> [Gauge; 6] {
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
    pub(super) fn list(&self) -> [(&'static Metric, Option<f64>); 11] {
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
pub(super) fn exact(value: u64) -> Option<f64> {
    Some(value as f64)
}
