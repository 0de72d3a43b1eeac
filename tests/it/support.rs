//! The test bed and its parts.
//!
//! | module | what it is |
//! | --- | --- |
//! | `bed` | one test's world: services, manager, directories, ids; removes what its agents left in Docker |
//! | `disk` | a small file system that gets full, read-only, or lost |
//! | `services` | a private etcd and a private Redis that can be killed, paused and started again |
//! | `machine` | another machine: a network namespace at the other end of a wire |
//! | `manager` | the PULL socket that collects the agent's events |
//! | `agent` | a running agent process |
//! | `rpc` | the manager's RPC client |
//! | `kernel` | kernels as the manager sees them: create, run to the end, destroy |
//! | `docker` | the `docker` command, asked for facts |
//! | `dockerd` | a Docker engine of a test's own, killed and frozen for real |
//! | `earlier` | kernels as earlier versions and the Python agents have made them |
//! | `elsewhere` | an address that is not loopback's, to call from |
//! | `engine` | a socket in front of Docker's that hangs, refuses and fails on request |
//! | `http` | an agent's pages |
//! | `vitals` | what an agent costs and how regular its heartbeats are |
//! | `page` | the agent's pages for monitoring |
//! | `msgpack` | JSON to msgpack and back |
//! | `process`, `ports`, `wait` | children that never outlive the test, free ports, bounded waits |

pub(crate) mod agent;
pub(crate) mod bed;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod dockerd;
pub(crate) mod earlier;
pub(crate) mod elsewhere;
pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod kernel;
pub(crate) mod machine;
pub(crate) mod manager;
pub(crate) mod msgpack;
pub(crate) mod page;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod rpc;
pub(crate) mod services;
pub(crate) mod terminal;
pub(crate) mod vitals;
pub(crate) mod wait;

pub(crate) use agent::Agent;
pub(crate) use bed::Bed;
pub(crate) use kernel::Kernel;
pub(crate) use rpc::{RemoteError, Rpc};
pub(crate) use wait::until;

use std::time::Duration;

/// `n` seconds; limits are written as numbers all over the tests.
pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A new kernel id, made up as the manager does.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
