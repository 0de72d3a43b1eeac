//! Samples the agent for the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::conditions::Conditions;
use crate::events::Events;
use crate::images::{ImageList, Pulls};
use crate::kernel::{Kernels, Overview, RunningKernel, State};
use crate::resources::{GpuReading, HostReader, InUse, Resources};
use crate::telemetry::{GpuGauges, KernelGauges, KernelUse, Meters, NodeGauges};
use crate::wire::sample::Sample;

/// The time between two samples.
const EVERY: Duration = Duration::from_secs(5);

/// What is sampled.
#[derive(Clone)]
pub(super) struct Sampled {
    pub(super) kernels: Kernels,
    pub(super) resources: Resources,
    pub(super) events: Events,
    pub(super) images: watch::Receiver<ImageList>,
    pub(super) pulls: watch::Receiver<Pulls>,
    /// `None` on a machine without.
    pub(super) gpus: Option<watch::Receiver<Vec<GpuReading>>>,
}

/// Publishes how each need of the agent is met, at once and whenever that changes.
pub(super) async fn measure_needs(meters: Meters, mut conditions: watch::Receiver<Conditions>) {
    loop {
        let now = conditions.borrow_and_update().clone();
        meters.record_conditions(&now);
        // Again also without a change: DogStatsD forgets.
        if let Ok(Err(_)) = tokio::time::timeout(EVERY, conditions.changed()).await {
            return;
        }
    }
}

/// Samples for ever.
pub(super) async fn measure(meters: Meters, of: Sampled) {
    let (mut ticks, mut host) = (tokio::time::interval(EVERY), HostReader::default());
    loop {
        ticks.tick().await;
        let kernels = of.kernels.overview();
        let used = of.resources.in_use();
        meters.record(&node(&of, &kernels, &used, &mut host));
        let running = kernels.iter().filter_map(|kernel| Some((kernel, kernel.running.as_ref()?)));
        meters.record_kernels(&running.map(|(of, running)| kernel(of, running)).collect::<Vec<_>>());
        let pulls = of.pulls.borrow().clone();
        let pulls = pulls.into_iter().map(|(image, (done, all))| (image, done.bytes(), all.bytes()));
        meters.record_pulls(&pulls.collect::<Vec<_>>());
        if let Some(gpus) = &of.gpus {
            meters.record_gpus(&gpu_gauges(&gpus.borrow(), &used));
        }
    }
}

fn node(of: &Sampled, kernels: &[Overview], used: &InUse, host: &mut HostReader) -> NodeGauges {
    let totals = of.resources.totals();
    let is_ending = kernels.iter().filter(|kernel| matches!(kernel.state, State::Ending(_) | State::Undoing));
    let running = || kernels.iter().filter_map(|kernel| kernel.running.as_ref());
    let host = host.read();
    NodeGauges {
        kernels: states(kernels),
        runs: running().filter(|kernel| kernel.run.is_some()).count() as u64,
        cpu_cores: totals.cpus as u64,
        cpu_shares: used.cpus.values().map(|n| u64::from(*n)).sum(),
        memory_bytes: totals.memory.bytes(),
        memory_given_bytes: running().map(|kernel| kernel.memory_limit.bytes()).sum(),
        host_load: host.load,
        host_memory_bytes: host.memory.bytes(),
        host_memory_available_bytes: host.memory_available.bytes(),
        gpus: totals.gpus as u64,
        gpus_used: used.gpus.len() as u64,
        events_waiting: *of.events.waiting().borrow() as u64,
        endings_waiting: is_ending.count() as u64,
        last_heartbeat_age: of.events.last_beat_age(),
        images: of.images.borrow().entries.len() as u64,
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
    }
}

fn states(kernels: &[Overview]) -> BTreeMap<&'static str, u64> {
    let mut states = BTreeMap::new();
    for kernel in kernels {
        *states.entry(kernel.state.name()).or_default() += 1;
    }
    states
}

fn kernel(of: &Overview, running: &RunningKernel) -> KernelGauges {
    KernelGauges {
        kernel: of.kernel.to_string(),
        image: running.image.clone(),
        born: running.born,
        runs: running.run.is_some(),
        cores: running.cpu_set.len() as u64,
        memory_limit_bytes: running.memory_limit.bytes(),
        used: running.sample.as_ref().map(used),
    }
}

fn used(sample: &Sample) -> KernelUse {
    KernelUse {
        memory_bytes: sample.mem_cur_bytes,
        cpu_seconds: sample.cpu_used_ms / 1000.0,
        net_rx_bytes: sample.net_rx_bytes,
        net_tx_bytes: sample.net_tx_bytes,
        io_read_bytes: sample.io_read_bytes,
        io_write_bytes: sample.io_write_bytes,
        scratch_bytes: sample.io_cur_scratch_size,
    }
}

/// How each device does, and how many kernels share it.
fn gpu_gauges(readings: &[GpuReading], used: &InUse) -> Vec<GpuGauges> {
    let gauges = |GpuReading { gpu, figures }: &GpuReading| GpuGauges {
        index: gpu.index,
        uuid: gpu.uuid.clone(),
        kernels: used.gpus.get(&gpu.index).copied().unwrap_or_default(),
        memory_bytes: gpu.memory.bytes(),
        memory_used_bytes: figures.memory_used.bytes(),
        busy_percent: figures.busy_percent,
        celsius: figures.celsius,
        watts: figures.milliwatts.map(|milliwatts| f64::from(milliwatts) / 1000.0),
    };
    readings.iter().map(gauges).collect()
}
