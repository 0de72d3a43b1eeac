//! What an agent needs around it, played inside the process for `backendai-agent dev`: an etcd, a Redis and a manager.
//!
//! They are servers on loopback, each of which speaks the part of the real protocol that the agent and the usual tools
//! (`etcdctl`, `redis-cli`) use. So the agent beside them is the agent as it is: nothing in it knows of this room, and
//! only the command `dev` starts it. Whatever they hold ends with the process.
//!
//! Tasks, all ended by the cancellation token and tracked:
//!
//! - etcd (`dev/etcd.rs`), and one task for each stream of watches. The keys are in `dev/keyspace.rs`, behind a std
//!   mutex that is held for the length of a pure method; the revision goes out over a `watch`.
//! - Redis (`dev/redis.rs`): one task that listens and one a connection. The hashes are in `dev/hashes.rs`, behind a std
//!   mutex as well. Out: what was stored, over an `mpsc`, for whoever shows it.
//! - the manager is a socket that events are read from ([`Neighbours::events`]); its owner reads it.

mod etcd;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod hashes;
mod keyspace;
mod redis;
mod resp;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::hashes::Stored;
use crate::cluster;
use crate::zmtp::{ListenError, Pull};

/// How many stored hashes may wait to be shown; further ones are kept and not shown.
const SHOWN: usize = 64;

/// A neighbour that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is no port on loopback.
    #[error("could not listen on 127.0.0.1 for {what}; is the loopback interface up?")]
    Listen {
        /// Who was to listen.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no port for events.
    #[error("could not listen on 127.0.0.1 for events; is the loopback interface up?")]
    Events(#[from] ListenError),
}

/// The servers around one agent, on ports that were free.
pub struct Neighbours {
    /// Where etcd is; the manager's keys are in it.
    pub etcd: SocketAddr,
    /// Where Redis is.
    pub redis: SocketAddr,
    /// The manager's ear.
    pub events: Pull,
    /// What the agent stores in Redis, as it comes.
    pub stored: mpsc::Receiver<Stored>,
}

impl Neighbours {
    /// Starts them for the cluster `namespace`. They serve until `end`.
    pub async fn start(
        namespace: &str,
        end: &CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Self, DevError> {
        let (etcd_listener, etcd_at) = listen("etcd").await?;
        let (redis_listener, redis_at) = listen("Redis").await?;
        let events = Pull::bind("127.0.0.1:0")?;
        let event_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, events.local_port()));

        let keys = cluster::manager_keys(namespace, "i-dev-manager", redis_at, event_addr);
        tracker.spawn(etcd::serve(etcd_listener, keys, end.clone(), tracker.clone()));
        let (tell, stored) = mpsc::channel(SHOWN);
        tracker.spawn(self::redis::serve(redis_listener, tell, end.clone(), tracker.clone()));
        Ok(Self { etcd: etcd_at, redis: redis_at, events, stored })
    }
}

async fn listen(what: &'static str) -> Result<(TcpListener, SocketAddr), DevError> {
    let failed = |source| DevError::Listen { what, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
