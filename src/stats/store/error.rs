//! Why statistics do not get to Redis.

use super::private::BadPem;
use crate::address::HostPort;
use crate::tls::TlsFileError;

/// Why samples did not get to Redis.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// etcd has no `nodes/redis` yet.
    #[error("the address of Redis is not known: the manager has not written nodes/redis to etcd")]
    NoAddress,
    /// No connection.
    #[error("can't connect to Redis at {address}: is it running and reachable from here?")]
    Connect {
        /// Where it is.
        address: HostPort,
        /// What the connection said.
        #[source]
        source: redis::RedisError,
    },
    /// It does not serve those who bring no password.
    #[error(
        "Redis at {address} wants a password, and the address in etcd (nodes/redis) has no place for one: give it with \
         --redis-password-file"
    )]
    Password {
        /// Where it is.
        address: HostPort,
        /// What Redis said.
        #[source]
        source: redis::RedisError,
    },
    /// It knows no such user, or another password.
    #[error(
        "Redis at {address} refuses the agent's user or password: correct --redis-user or --redis-password-file"
    )]
    Refused {
        /// Where it is.
        address: HostPort,
        /// What Redis said.
        #[source]
        source: redis::RedisError,
    },
    /// A file that makes the connection private can't be read.
    #[error("Redis is not asked: {0}")]
    Tls(#[source] TlsFileError),
    /// A file that makes the connection private holds something else.
    #[error(
        "Redis is not asked: its certificates can't be used; --redis-ca, --redis-cert and --redis-key name PEM files of them"
    )]
    Certificates(#[source] BadPem),
    /// The connection broke, or Redis refused to write.
    #[error("Redis at {address} did not store the statistics")]
    Write {
        /// Where it is.
        address: HostPort,
        /// What Redis or the connection said.
        #[source]
        source: redis::RedisError,
    },
    /// The deadline passed.
    #[error("Redis did not take the statistics in time: it hangs, or the way to it is slow")]
    Timeout,
    /// The queue was full until the deadline.
    #[error("too many statistics wait for Redis")]
    Busy,
    /// The agent is stopping.
    #[error("statistics are not stored any more, the agent is stopping")]
    Stopped,
}
