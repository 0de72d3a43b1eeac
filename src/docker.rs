//! The Docker engine: containers, images, events, logs, each call with a deadline. Knows no kernels.
//!
//! [`Docker`] is a cheap handle. Opening it does no I/O: the engine may be absent when the agent starts, may
//! hang, and may come back upgraded. The first call finds out which API version it speaks, and so does the first
//! call after it was lost (`connection.rs`). No task lives here, and no lock is held over an await.
//!
//! A call that its deadline cut off may still be carried out by the engine later: after
//! [`DockerError::Deadline`] from [`Docker::create`], look for the container by its name.

mod address;
mod confinement;
mod connection;
mod container;
mod engine;
mod error;
mod events;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod image;
mod lifecycle;
mod log_tail;
mod logs;
mod names;
mod network;
mod setup;
mod spec;
mod stats;

#[cfg(test)]
pub(crate) use container::container_from;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use address::{BadEngineAddress, EngineAddress};
pub use confinement::{Confinement, LogLimit};
pub use container::{Container, ContainerState, ContainerSummary, MountedAt, PortBinding};
pub use engine::EngineInfo;
pub use error::DockerError;
pub use events::{DockerEvent, DockerEventKind};
pub use image::{Credentials, Image, ImageSummary, PullStep};
pub use lifecycle::ListFilter;
pub use network::{BridgeNetwork, NetworkSpec};
pub use setup::EngineSetup;
pub use spec::{Bind, ContainerSpec, PublishedPort};
pub use stats::ContainerStats;

use connection::Connection;

/// The socket that Docker's own packages set up.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Where the engine is, and how long it may take.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// Where the engine listens.
    pub address: EngineAddress,
    /// The time limits of the calls.
    pub deadlines: Deadlines,
}

impl DockerConfig {
    /// An engine with the usual time limits.
    #[must_use]
    pub fn new(address: EngineAddress) -> Self {
        Self { address, deadlines: Deadlines::default() }
    }
}

/// How long each kind of call may take before it fails with [`DockerError::Deadline`].
///
/// Pulls and logs have none here: their callers know how long they can wait.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Calls that only look something up or send a signal.
    pub quick: Duration,
    /// Lists of containers and images, which a busy engine answers slowly.
    pub list: Duration,
    /// Creating and starting: storage and network are set up.
    pub create: Duration,
    /// Removing: the container is killed and its file system unmounted.
    pub remove: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            quick: Duration::from_secs(5),
            list: Duration::from_secs(10),
            create: Duration::from_secs(30),
            remove: Duration::from_secs(30),
        }
    }
}

/// A handle to one Docker engine; clones share what is known about it.
#[derive(Debug, Clone)]
pub struct Docker {
    /// The engine's address and the API version agreed on, shared so that one caller's discovery serves all.
    connection: Arc<Connection>,
    /// The time limits, fixed for the handle's life.
    deadlines: Deadlines,
}

impl Docker {
    /// Does not connect, so that an agent can start before its engine.
    #[must_use]
    pub fn open(config: DockerConfig) -> Self {
        let DockerConfig { address, deadlines } = config;
        Self { connection: Arc::new(Connection::new(address)), deadlines }
    }
}
