//! Closing a socket and knowing when what it had queued is out, without blocking.
//!
//! libzmq closes sockets in a thread of its own and tells nobody when it has finished; the one call that waits
//! for it (ending the context) blocks. But a socket's monitor says "stopped" from the socket's destructor, and
//! that runs when the lingering is over: so we monitor the socket from the moment it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use zmq::PollEvents;

use super::ZmqError;
use super::engine::Engine;
use super::limits::millis;
use super::socket::{self, Signal, Socket};

/// Between the end of the lingering and the word of it.
const GRACE: Duration = Duration::from_millis(500);

/// Monitors have names within their context; these are never used twice.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// Closes, and returns when all is sent or after `flush`.
pub(super) async fn close(socket: Socket, flush: Duration) {
    let endpoint = socket.endpoint.clone();
    if let Err(error) = socket.raw.set_linger(millis(flush)) {
        warn!(%endpoint, %error, "could not set how long a closed socket goes on sending; what is queued may be lost");
        return;
    }
    if flush.is_zero() {
        return;
    }
    let monitor = Monitor::of(&socket);
    drop(socket);
    match monitor {
        Ok(monitor) => {
            if timeout(flush + GRACE, monitor.stopped()).await.is_err() {
                debug!(%endpoint, "libzmq is still closing a socket");
            }
        }
        Err(error) => {
            debug!(%endpoint, %error, "can't tell when a socket is closed; waiting as long as it may take");
            sleep(flush).await;
        }
    }
}

/// The listening end of a socket's monitor; fields in the order in which they must be dropped.
struct Monitor {
    /// The registered descriptor of `raw`.
    signal: AsyncFd<Signal>,
    /// Receives the monitor's events, of which there is one.
    raw: zmq::Socket,
    /// As in [`Socket`]: without it, dropping `raw` could end the libzmq context, and wait for that, right here.
    _engine: Arc<Engine>,
}

impl Monitor {
    /// Starts to monitor.
    fn of(socket: &Socket) -> Result<Self, ZmqError> {
        let create = |source| ZmqError::Create { endpoint: socket.endpoint.to_string(), source };
        let name = format!("inproc://closing-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let stopped = i32::from(zmq::SocketEvent::MONITOR_STOPPED.to_raw());
        socket.raw.monitor(&name, stopped).map_err(create)?;
        let raw = socket.engine.socket(zmq::PAIR).map_err(create)?;
        raw.set_linger(0).map_err(create)?;
        raw.connect(&name).map_err(create)?;
        let signal = socket::watch(&raw, &name)?;
        Ok(Self { signal, raw, _engine: Arc::clone(&socket.engine) })
    }

    /// Waits for the event, in the manner that `socket.rs` explains.
    async fn stopped(self) {
        while matches!(self.raw.get_events(), Ok(events) if !events.contains(PollEvents::POLLIN)) {
            match self.signal.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }
}
