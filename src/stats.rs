//! What each kernel uses, and its way to Redis (PROTOCOL sections 6 and 12.34).
//!
//! ```text
//! /proc/{pid}/cgroup ─> cgroup files ─┐
//! /proc/{pid}/net/dev ────────────────┼─> Reading ─> Collector ─> Sample ─> Store ─> Redis
//! Docker's figures (in a container) ──┤                 ↑
//! the scratch directory ──> walk ─────┘           run_reporter, 5 s
//! ```
//!
//! Pure: `cgroup` and `netdev` (what the kernel's files say), `reading` (how a reading becomes a
//! sample), `pace` (how often a scratch directory is worth measuring), `docker_figures`.
//!
//! `places` keeps the directories of these files open, and `sysread` reads them.
//!
//! Tasks and threads:
//! - `Store::start` starts one task that owns the Redis connection; callers reach it through a bounded channel.
//! - [`run_reporter`] is a task of the composition root's; targets come in through a `watch`.
//! - The collector reads files on the runtime's blocking pool, a few readers at most, and measures scratch
//!   directories on one short-lived thread at a time (`scratch_walk` says why it is not the pool).

mod cgroup;
mod collector;
mod docker_figures;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod load;
mod membership;
mod netdev;
mod pace;
mod places;
mod reading;
mod reporter;
mod scratch_walk;
mod store;
mod sysread;

pub use collector::{CollectError, Collector, CollectorConfig, DockerHook, Target};
pub use docker_figures::DockerFigures;
pub use load::Load;
pub use places::is_process_of;
pub use reporter::run_reporter;
pub use scratch_walk::WalkLimits;
pub use store::{RedisAccess, Store, StoreError};
