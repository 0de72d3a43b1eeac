//! How much the RPC server holds for its callers. Whoever reaches one of these waits, unread; nobody's answer is dropped.

use rustix::process::{Resource, getrlimit};

const MIB: u64 = 1024 * 1024;

/// The bounds of the server as a whole and of one connection.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Connections at a time. A manager makes one a call and closes it.
    pub connections: usize,
    /// Connections at a time from one address.
    pub connections_of_one: usize,
    /// Calls under way, their answers included.
    pub calls: usize,
    /// The same for one connection.
    pub calls_of_one: usize,
    /// Bytes of calls above [`CallLimits::small`] that are being received or are under way, and of one more, the largest.
    /// Unpacking a call takes as much again for a moment.
    pub bytes: u64,
    /// Up to this size, in bytes, a call is not counted.
    pub small: u64,
    /// The largest call in bytes; one that is larger costs its connection. An upload comes in one call.
    pub call: u64,
    /// Bytes of answers that wait for one connection to take them, before no more is read of it.
    pub answers_of_one: usize,
    /// The same for all connections, before those that take nothing are closed.
    pub answers: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        // Half of the descriptors stay for kernels, Docker and files.
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let connections = usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(16, 4096);
        Self {
            connections,
            // A caller that takes all it can leaves room for the manager and for an operator.
            connections_of_one: connections * 3 / 4,
            calls: 4096,
            calls_of_one: 1024,
            bytes: 1024 * MIB,
            small: 64 * 1024,
            call: 512 * MIB,
            answers_of_one: 32 * 1024 * 1024,
            // Some twenty of the largest answers (logs, 10 MiB).
            answers: 256 * 1024 * 1024,
        }
    }
}
