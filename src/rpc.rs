//! The RPC server: calls in, answers out, in whatever order they are ready (PROTOCOL sections 2 and 3).
//!
//! Each connection has a task of its own (`session`), and so has each call. An answer goes back over the connection
//! that asked, whatever name that claims. A caller whose connection closes is gone: its place in a run queue is freed,
//! and the kernel that it would not know of is undone. When the server stops, no call is taken any more, and those
//! under way are still answered.

mod calls;
mod errors;
mod limits;
mod methods;
mod session;
mod shared;
mod unread;

use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::limits::CallLimits;
use self::shared::{Identity, Shared};
use self::unread::Unread;
use crate::kernel::Kernels;
use crate::zmtp::{Admission, Budget, ListenError, Listener};

/// Large calls that are unpacked at a time: each takes its size again meanwhile.
const UNPACKING: usize = 2;

/// The server, listening.
pub struct Server {
    listener: Listener,
    limits: CallLimits,
}

impl Server {
    /// Listens on `host:port`, see [`Listener::bind`], for callers that `admission` lets in. They wait until
    /// [`Server::serve`].
    pub fn bind(
        address: &str,
        limits: CallLimits,
        admission: watch::Receiver<Admission>,
    ) -> Result<Self, ListenError> {
        let listener = Listener::bind(address, limits.connections)?
            .with_admission(admission)
            .with_share(limits.connections_of_one);
        Ok(Self { listener, limits })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.address().port()
    }

    /// Serves until `stop`, then until the calls under way, which `tracker` knows, are answered.
    pub async fn serve(self, kernels: Kernels, stop: CancellationToken, tracker: TaskTracker) {
        let Self { mut listener, limits } = self;
        let shared = Arc::new(Shared {
            kernels,
            identity: Identity::new(),
            limits,
            calls: Arc::new(Semaphore::new(limits.calls)),
            bytes: Budget::new(limits.bytes),
            unpacking: Semaphore::new(UNPACKING),
            unread: Unread::new(limits.answers),
            tracker,
            dropped: Mutex::default(),
            refused: Mutex::default(),
        });
        let sessions = TaskTracker::new();
        while let Some(incoming) = stop.run_until_cancelled(listener.accept()).await {
            sessions.spawn(session::serve(incoming, shared.clone(), stop.clone()));
        }
        drop(listener);
        sessions.close();
        sessions.wait().await;
    }
}
