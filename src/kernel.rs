//! Kernels: containers with a scratch directory and a runner each, from the manager's request to the told end.
//!
//! ```text
//!                 failed, late: undone, nothing reported
//!          ┌────────────────────────────────────────────▶ Gone(Failed)
//!   create │
//!  ──▶ Creating ──▶ Running ◀──▶ Restarting
//!          │           │              │      destroy, reset, idle, too long, died by itself, restart failed
//!          ▼           ▼              ▼
//!        Ending ◀──────┴──────────────┘ ────────────────▶ Gone(Ended)   one kernel_terminated
//! ```
//!
//! After a start of the agent a kernel is looked at before it runs again; one that can't be taken back is left alone until
//! its end is asked for or noticed.
//!
//! [`life`] decides what is done when; it is pure. One task per kernel ([`task`]) does it and changes the kernel's state;
//! everybody else holds a handle: channels into the task, and a `watch` of its [`phase`] out of it. [`registry`] holds the
//! handles. Ends race whatever else goes on, and an end is in the journal ([`notes`]) before anything is done about it;
//! [`telling`] is read from top to bottom. Waiting for output happens in the caller's task ([`requests`]). [`recover`]
//! takes back what an earlier life left, [`reconcile`] notices what happens behind the agent's back. What makes, looks at
//! and removes containers ([`container`], [`takeover`], [`removal`]) knows no kernel's state.

pub mod account;
mod browse;
mod container;
mod demise;
mod disk;
pub mod error;
mod fate;
mod folders;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod hardening;
mod inbox;
pub mod labels;
mod last_statistics;
mod leftovers;
mod life;
mod live;
mod looks;
mod network;
mod node;
pub mod notes;
mod overview;
mod pen;
mod phase;
mod plan;
mod published;
mod pulse;
mod reach;
mod reconcile;
mod recover;
mod registry;
mod remaking;
mod removal;
mod requests;
mod signs;
mod takeover;
mod task;
mod telling;
mod vigil;
mod wall;
mod wants;

pub use self::error::{Failure, Fault, KernelError};
pub use self::folders::FolderChecks;
pub use self::hardening::Hardening;
pub use self::last_statistics::LastStatistics;
pub use self::looks::Looks;
pub use self::network::{KernelNetwork, NetworkError};
pub use self::node::{CreateDeadline, KernelsConfig, Node};
pub use self::overview::{Overview, RunningKernel, State};
pub use self::registry::Kernels;
pub use self::wants::Wants;
