//! A port on which peers call: connections are counted before they are taken, and have a time limit to become ZeroMQ's.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::connection::{Connection, HANDSHAKE, KeepAlive, Trouble};
use super::hello::Kind;
use super::inbox::Caps;
use crate::patience::Outage;

/// How many connections wait in the system to be taken.
const BACKLOG: u32 = 4096;

/// The pause when a connection can't be taken, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// For how long it must have worked before that counts as the end of trouble; while descriptors come and go, some
/// connections can be taken and others can't.
const QUIET: Duration = Duration::from_secs(5);

/// Why a port can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there already.
    #[error(
        "could not listen on {address}: the port is taken; stop the other program (`ss -ltnp` shows it; perhaps a \
         second agent) or choose another port"
    )]
    InUse {
        /// Where we wanted to listen.
        address: String,
    },
    /// The address is not one of this machine's.
    #[error("could not listen on {address}: no interface of this machine has that address")]
    NotHere {
        /// Where we wanted to listen.
        address: String,
    },
    /// Anything else.
    #[error("could not listen on {address}")]
    Other {
        /// Where we wanted to listen.
        address: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl ListenError {
    fn new(address: &str, source: std::io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            std::io::ErrorKind::AddrInUse => Self::InUse { address },
            std::io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            _ => Self::Other { address, source },
        }
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    /// One permit a connection.
    places: Arc<Semaphore>,
    /// How long a peer may take for its handshake.
    handshake: Duration,
    /// That connections can't be taken, and when that was seen last.
    outage: Outage,
    failed_at: Option<Instant>,
}

/// A connection that was taken; nothing was read of it yet.
#[derive(Debug)]
pub struct Incoming {
    stream: TcpStream,
    /// Who calls.
    pub from: SocketAddr,
    place: OwnedSemaphorePermit,
    handshake: Duration,
}

impl Listener {
    /// Listens on `host:port`, where a host of `*` means all IPv4 interfaces and port 0 any free one, and has at most
    /// so many connections at a time. Needs a running tokio runtime.
    pub fn bind(address: &str, connections: usize) -> Result<Self, ListenError> {
        let failed = |source| ListenError::new(address, source);
        let at = match address.strip_prefix("*:") {
            Some(port) => format!("0.0.0.0:{port}").to_socket_addrs(),
            None => address.to_socket_addrs(),
        };
        let at = at.map_err(failed)?.next().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(at).map_err(failed)?;
        let tcp = socket.listen(BACKLOG).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self {
            tcp,
            address,
            places: Arc::new(Semaphore::new(connections)),
            handshake: HANDSHAKE,
            outage: Outage::default(),
            failed_at: None,
        })
    }

    /// Gives peers another time for their handshake than [`HANDSHAKE`].
    #[must_use]
    pub fn with_handshake(self, handshake: Duration) -> Self {
        Self { handshake, ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. While there are as many as may be, others wait in the system. May be cancelled.
    pub async fn accept(&mut self) -> Incoming {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // Nobody closes the semaphore.
                return std::future::pending().await;
            };
            match self.tcp.accept().await {
                Ok((stream, from)) => {
                    self.worked();
                    return Incoming { stream, from, place, handshake: self.handshake };
                }
                // The peer gave up before it was taken.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let now = Instant::now();
                    self.failed_at = Some(now);
                    if self.outage.failed(now) {
                        tracing::warn!(
                            address = %self.address, %error,
                            "can't take connections; trying until it works (raise LimitNOFILE= if files are too many)"
                        );
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn worked(&mut self) {
        if self.failed_at.is_none_or(|at| at.elapsed() < QUIET) {
            return;
        }
        self.failed_at = None;
        if let Some(past) = self.outage.worked(Instant::now()) {
            tracing::info!(address = %self.address, seconds = past.seconds(), failures = past.failures, "connections can be taken again");
        }
    }
}

impl Incoming {
    /// Makes the handshake as a socket of kind `own`. To be called in a task of its own.
    pub async fn greet(self, own: Kind, caps: Caps) -> Result<Connection, Trouble> {
        let Self { stream, place, handshake, .. } = self;
        let greeting = Connection::greet(stream, own, caps, KeepAlive::default());
        let mut connection = timeout(handshake, greeting).await.map_err(|_| Trouble::Late(handshake))??;
        connection.place = Some(place);
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(LIMIT, future).await.expect("timed out")
    }

    #[tokio::test]
    async fn ports_in_use_and_foreign_addresses_are_named() {
        let taken = Listener::bind("127.0.0.1:0", 1).unwrap();
        let address = taken.address().to_string();
        let error = Listener::bind(&address, 1).unwrap_err();
        assert!(
            matches!(error, ListenError::InUse { .. }) && error.to_string().contains(&address),
            "{error}"
        );
        // TEST-NET-1, which no machine has.
        let error = Listener::bind("192.0.2.1:6001", 1).unwrap_err();
        assert!(matches!(error, ListenError::NotHere { .. }), "{error}");
        assert!(matches!(Listener::bind("nonsense", 1), Err(ListenError::Other { .. })));
        assert!(Listener::bind("*:0", 1).unwrap().address().ip().is_unspecified());
    }

    #[tokio::test]
    async fn ipv6_addresses_work_where_the_machine_has_them() {
        let mut listener = match Listener::bind("[::1]:0", 1) {
            Ok(listener) => listener,
            Err(error) => {
                assert!(
                    std::net::TcpListener::bind("[::1]:0").is_err(),
                    "IPv6 works here, but not for us: {error}"
                );
                return;
            }
        };
        let address = listener.address().to_string();
        let keep = KeepAlive::default();
        let (incoming, connected) = within(async {
            let opening = Connection::open(address, Kind::Dealer, Caps::calls(1), keep);
            tokio::join!(async { listener.accept().await.greet(Kind::Router, Caps::calls(1)).await }, opening)
        })
        .await;
        assert_eq!(incoming.unwrap().peer().kind, Kind::Dealer);
        assert_eq!(connected.unwrap().peer().kind, Kind::Router);
    }

    #[tokio::test]
    async fn there_are_as_many_connections_as_places_and_handshakes_have_a_limit() {
        let mut listener =
            Listener::bind("127.0.0.1:0", 1).unwrap().with_handshake(Duration::from_millis(50));
        let address = listener.address();
        let _silent = TcpStream::connect(address).await.unwrap();
        let first = within(listener.accept()).await;
        let _second = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_millis(20), listener.accept()).await.is_err(), "there is one place");
        let (ended, second) =
            within(async { tokio::join!(first.greet(Kind::Router, Caps::calls(1)), listener.accept()) })
                .await;
        assert!(matches!(ended, Err(Trouble::Late(_))), "{ended:?}");
        assert!(second.from.ip().is_loopback());
    }
}
