//! The entry point: hands out sockets from as many libzmq contexts as it takes.

use std::sync::{Arc, Mutex, PoisonError};

use super::ZmqError;
use super::endpoint::Host;
use super::engine::Engine;

/// Where sockets come from; cheap to clone, and meant to be made once.
///
/// Sockets keep what they need alive, so the context may be dropped before them. Dropping the last handle never
/// blocks, whatever still lingers.
#[derive(Clone)]
pub struct Context {
    /// The engines made so far. A plain mutex: it is held for the making of one socket, never over an await.
    engines: Arc<Mutex<Engines>>,
}

/// Engines by what may hold up their I/O thread.
#[derive(Default)]
struct Engines {
    /// For sockets on plain addresses.
    addresses: Vec<Arc<Engine>>,
    /// For sockets that connect to names: libzmq looks names up in the I/O thread, and a name server that does
    /// not answer must hold up neither the RPC server nor the kernels.
    names: Vec<Arc<Engine>>,
}

impl Context {
    /// Starts libzmq; its threads come with the first socket.
    pub fn new() -> Result<Self, ZmqError> {
        Ok(Self { engines: Arc::default() })
    }

    /// Makes a socket, in a new engine when the others are full.
    pub(super) fn socket(
        &self,
        kind: zmq::SocketType,
        endpoint: &str,
        host: Host,
    ) -> Result<(zmq::Socket, Arc<Engine>), ZmqError> {
        // A panic elsewhere can't have left the lists half-changed.
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let list = if host == Host::Name { &mut engines.names } else { &mut engines.addresses };
        let engine = if let Some(engine) = list.iter().find(|engine| engine.has_room()) {
            Arc::clone(engine)
        } else {
            let engine = Engine::start();
            list.push(Arc::clone(&engine));
            engine
        };
        let socket = engine
            .socket(kind)
            .map_err(|source| ZmqError::Create { endpoint: endpoint.to_owned(), source })?;
        Ok((socket, engine))
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn a_full_engine_is_followed_by_another_and_names_have_their_own() {
        // 1024 is a common soft limit.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
        let context = Context::new().unwrap();
        // Sockets without a connection cost one descriptor each; this is more than one engine holds.
        let held: Vec<_> =
            (0..910).map(|_| context.socket(zmq::PUSH, "tcp://127.0.0.1:1", Host::V4).unwrap()).collect();
        let named = context.socket(zmq::PUSH, "tcp://manager:1", Host::Name).unwrap();
        {
            let engines = context.engines.lock().unwrap();
            assert_eq!(engines.addresses.len(), 2);
            assert_eq!(engines.names.len(), 1);
        }
        drop((held, named));
        let again = context.socket(zmq::PUSH, "tcp://127.0.0.1:1", Host::V4).unwrap();
        assert_eq!(context.engines.lock().unwrap().addresses.len(), 2);
        drop(again);
    }
}
