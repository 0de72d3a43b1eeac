//! Prints the GPUs that an agent would find on this machine, and what it would give to kernels.
//!
//! `cargo run --features rooms --example gpus`, or copy the binary to a machine with GPUs.

use backendai_agent::rooms::resources::{
    GpuWatch, NodeLimits, NvmlDriver, Request, Resources, SysfsPaths, read_topology,
};
use backendai_agent::rooms::units::{Cores, Gpus, Memory};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // The watch says what it finds and what is wrong in the log.
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
    let topology = read_topology(&SysfsPaths::default(), None);
    for node in topology.nodes() {
        println!("NUMA node {}: cores {:?}", node.id, node.cpus);
    }
    let resources = Resources::new(topology, Memory::default(), NodeLimits::default())?;
    let mut watch = GpuWatch::new(NvmlDriver::default());
    let has_driver = watch.look(&resources).await;
    println!(
        "driver: {}, GPUs for kernels: {}",
        if has_driver { "yes" } else { "no" },
        resources.totals().gpus
    );
    for reading in watch.readings().borrow().iter() {
        let (gpu, figures) = (&reading.gpu, reading.figures);
        println!("GPU {}: {} ({}), node {:?}, {}", gpu.index, gpu.name, gpu.uuid, gpu.node, gpu.memory);
        println!(
            "    {} in use, busy {:?} %, {:?} °C, {:?} mW",
            figures.memory_used, figures.busy_percent, figures.celsius, figures.milliwatts
        );
    }
    // Kernels one after another, as they would share this machine.
    let mut kernels = Vec::new();
    for slot in [1.0, 0.5, 0.5] {
        let (cpu_slot, gpu_slot) = (Cores::from_slot(1.0), Gpus::from_slot(slot));
        let request = Request {
            cpu_slot: cpu_slot.unwrap_or_default(),
            gpu_slot: gpu_slot.unwrap_or_default(),
            ..Request::default()
        };
        match resources.allocate(request) {
            Ok(given) => {
                println!(
                    "a kernel of {slot} GPU: cores {:?}, devices {:?}",
                    given.cpu_set(),
                    given.gpu_uuids()
                );
                kernels.push(given);
            }
            Err(error) => println!("a kernel of {slot} GPU: {error}"),
        }
    }
    Ok(())
}
