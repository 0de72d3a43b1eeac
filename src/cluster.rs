//! etcd: what the manager tells, whether it is there, what this agent says of itself, the image catalogue.
//!
//! One task, the watcher (`cluster/watcher.rs`), runs from [`Cluster::start`] until the agent's cancellation
//! or [`Cluster::retract`]. It alone talks to etcd all the time, and it owns what it learned:
//!
//! | channel | from → to | holds |
//! | --- | --- | --- |
//! | `settings` (`watch`) | watcher → everybody | the manager's last known settings |
//! | `status` (`watch`) | watcher → everybody | whether etcd answers and the manager is there, and what is wanting |
//! | `wanted` (`watch`) | [`Cluster::set_presence`] → watcher | what this agent wants to be known as |
//! | `published` (`watch`) | watcher → [`Cluster::presence_published`] | what etcd says of it |
//! | `stop`, `ended` (tokens) | [`Cluster::retract`] ↔ watcher | no put may follow the delete |
//!
//! Settings and presence are kept by the same task since both come from the same read: every few seconds, at
//! every event of a watch, and after every trouble, all keys are read again at one revision. Readers look at
//! a `watch` and never wait for etcd. [`Cluster::catalogue`] and [`Cluster::retract`] use connections of
//! their own, in their caller's task.

mod catalogue;
mod config;
mod contact;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod handle;
mod keeper;
mod keys;
mod link;
mod presence;
mod settings;
mod shared;
mod waiting;
mod watcher;
mod words;

#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, CatalogueImage, Tag};
pub use config::{ClusterConfig, EtcdAccess};
pub use handle::Cluster;
pub use keys::manager_keys;
pub use link::{ClusterError, Step};
#[cfg(feature = "rooms")]
pub use link::{Link, Snapshot, Watching};
pub use presence::Presence;
pub use settings::{BadValue, Gaps, ManagerSettings, RegistryLogin};
pub use shared::ClusterStatus;
