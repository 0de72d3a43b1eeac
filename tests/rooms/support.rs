//! What these tests share with those of the whole agent.

#[path = "../it/support/disk.rs"]
#[allow(dead_code, reason = "the tests of the whole agent use more of it")]
pub(crate) mod disk;
#[path = "../it/support/docker.rs"]
#[allow(dead_code, reason = "the tests of the whole agent use more of it")]
pub(crate) mod docker;
#[path = "../it/support/ports.rs"]
pub(crate) mod ports;
#[path = "../it/support/process.rs"]
#[allow(dead_code, reason = "the tests of the whole agent use more of it")]
pub(crate) mod process;
#[path = "../it/support/registry.rs"]
pub(crate) mod registry;
#[path = "../it/support/services.rs"]
#[allow(dead_code, reason = "the tests of the whole agent use more of it")]
pub(crate) mod services;
#[path = "../it/support/wait.rs"]
pub(crate) mod wait;

pub(crate) use wait::until;

use std::time::Duration;

/// `n` seconds.
pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A new id, made up as the manager does.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
