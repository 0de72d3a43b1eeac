//! What this machine has to give: cores, GPUs and memory (PROTOCOL sections 9, 12.11, 12.12, 12.35, 12.36).
//!
//! ```text
//! sysfs, Docker's NCPU ──> Topology ──> CpuMap ─┐
//! NVML ─────────────────> [Gpu]     ──> GpuMap ─┴─ Resources ── allocate / claim ──> Allocation
//! ```
//!
//! [`Resources`] is the one owner of the maps; everybody holds a clone of its handle. An [`Allocation`] is the
//! only proof that cores and devices were handed out, and gives them back once, when it is dropped. The maps,
//! the topology and the readings of the manager's numbers are pure; `sysfs` and `nvml` look at the machine.
//!
//! No task lives here. `nvml` starts one thread at the start of the agent, which is abandoned if the driver hangs.

mod cpu_map;
mod cpuset;
mod gpu_map;
mod limits;
mod nvml;
mod pool;
mod sysfs;
mod tally;
mod topology;

pub use cpu_map::{CpuMap, CpuShare};
pub use cpuset::{BadCpuset, cpuset_text, parse_cpuset};
pub use gpu_map::{Gpu, GpuMap, GpuShare};
pub use limits::{ResourceError, memory_limit};
pub use nvml::discover_gpus;
pub use pool::{Allocation, InUse, Request, Resources, Totals};
pub use sysfs::{SysfsPaths, read_topology};
pub use topology::{CoreFacts, CoreLimit, NumaNode, Topology};
