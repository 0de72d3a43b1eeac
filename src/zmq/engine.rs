//! One libzmq context: its I/O thread, and an end that blocks nobody.

use std::sync::Arc;
use std::thread;

use tracing::warn;

/// libzmq allows 1023 sockets in a context and the binding has no way to raise that. The rest is room for
/// sockets that libzmq has not finished closing.
const MAX_SOCKETS: usize = 900;

/// A libzmq context, shared by the sockets made from it.
pub(super) struct Engine {
    /// Always there until `drop` takes it.
    context: Option<zmq::Context>,
}

impl Engine {
    pub(super) fn start() -> Arc<Self> {
        Arc::new(Self { context: Some(zmq::Context::new()) })
    }

    /// Whether another socket fits. Every socket holds one reference and the list of engines another.
    pub(super) fn has_room(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) <= MAX_SOCKETS
    }

    pub(super) fn socket(&self, kind: zmq::SocketType) -> zmq::Result<zmq::Socket> {
        self.context.as_ref().ok_or(zmq::Error::ETERM)?.socket(kind)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Ending a context waits for everything that lingers, and this may be a runtime's thread. In a thread
        // that nobody joins it holds up neither the runtime nor the end of the process.
        let Some(context) = self.context.take() else { return };
        let ending = thread::Builder::new().name("zmq-end".to_owned()).spawn(move || drop(context));
        if let Err(error) = ending {
            warn!(%error, "could not start the thread that ends a ZeroMQ context; it was ended in place");
        }
    }
}
