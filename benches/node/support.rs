//! What a benchmark needs of the bed of `tests/it`.

#[path = "../../tests/it/support/agent.rs"]
pub(crate) mod agent;
#[path = "../../tests/it/support/bed.rs"]
pub(crate) mod bed;
#[path = "../../tests/it/support/docker.rs"]
pub(crate) mod docker;
#[path = "../../tests/it/support/dockerd.rs"]
pub(crate) mod dockerd;
#[path = "../../tests/it/support/kernel.rs"]
pub(crate) mod kernel;
#[path = "../../tests/it/support/manager.rs"]
pub(crate) mod manager;
#[path = "../../tests/it/support/msgpack.rs"]
pub(crate) mod msgpack;
#[path = "../../tests/it/support/ports.rs"]
pub(crate) mod ports;
#[path = "../../tests/it/support/process.rs"]
pub(crate) mod process;
#[path = "../../tests/it/support/rpc.rs"]
pub(crate) mod rpc;
#[path = "../../tests/it/support/services.rs"]
pub(crate) mod services;
#[path = "../../tests/it/support/wait.rs"]
pub(crate) mod wait;

pub(crate) use agent::Agent;
pub(crate) use bed::Bed;
pub(crate) use dockerd::Dockerd;
pub(crate) use kernel::Kernel;
pub(crate) use rpc::{RemoteError, Rpc};
pub(crate) use wait::until;

use std::time::Duration;

/// `n` seconds.
pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A new kernel id, made up as the manager does.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
