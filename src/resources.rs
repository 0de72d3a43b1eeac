//! What this machine has to give: cores, GPUs and memory (PROTOCOL sections 9, 12.11, 12.12, 12.35, 12.36).
//!
//! ```text
//! sysfs, Docker's NCPU ──> Topology ──> CpuMap ─┐
//! NVML ──> GpuWatch ─────> [Gpu]    ──> GpuMap ─┴─ Resources ── allocate / claim ──> Allocation
//! ```
//!
//! [`Resources`] is the one owner of the maps; everybody holds a clone of its handle. An [`Allocation`] is the
//! only proof that cores and devices were handed out, and gives them back once, when it is dropped. The maps,
//! the topology and the readings of the manager's numbers are pure; `sysfs` and `nvml` look at the machine.
//!
//! One task lives here: [`GpuWatch::run`] asks the GPUs' driver again and again. It speaks to a thread of its own, in
//! which a driver that hangs can stay for ever (`gpu_watch.rs`); what it learns is in `watch` channels.

mod cpu_map;
mod cpuset;
mod gpu_map;
mod gpu_watch;
mod host;
mod limits;
mod node_limits;
mod nvml;
mod pool;
mod sysfs;
mod tally;
mod topology;

pub use cpu_map::{CpuMap, CpuShare};
pub use cpuset::{BadCpuset, CoreList, cpuset_text, parse_cpuset};
pub use gpu_map::{Gpu, GpuList, GpuMap, GpuShare};
pub use gpu_watch::{DriverError, GpuDriver, GpuFigures, GpuReading, GpuSight, GpuWatch};
pub use host::{HostReader, booted};
pub use limits::{BadShmSize, MemoryGrant, ResourceError, ShmSize};
pub use node_limits::{NodeLimits, NothingLeft};
pub use nvml::NvmlDriver;
pub use pool::{Allocation, Held, InUse, Request, Resources, Totals};
pub use sysfs::{SysfsPaths, read_topology};
pub use topology::{CoreChoice, CoreFacts, NoCoresLeft, NumaNode, Topology};
