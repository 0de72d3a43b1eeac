//! A port on which peers call: connections are counted before they are taken, those from addresses that may not call
//! are closed unread, and the others have a time limit to become ZeroMQ's.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::admission::{Admission, Refused};
use super::connection::{Connection, HANDSHAKE, KeepAlive, Trouble};
use super::hello::Kind;
use super::inbox::Caps;
use super::shares::{Place, Share, Shares};
use crate::figures::{self, table};
use crate::patience::{Outage, Tally};

/// How many connections wait in the system to be taken.
const BACKLOG: u32 = 4096;

/// The pause when a connection can't be taken, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// For how long it must have worked before that counts as the end of trouble; while descriptors come and go, some
/// connections can be taken and others can't.
const QUIET: Duration = Duration::from_secs(5);

/// Of so many addresses each gets a log line of its own when it is refused; of further ones only the number is told.
const NAMED: usize = 256;

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
    /// The system keeps it from this user.
    #[error("could not listen on {address}: low ports are for root alone; choose a higher one")]
    Forbidden {
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
            std::io::ErrorKind::PermissionDenied => Self::Forbidden { address },
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
    /// How many of them each address has.
    shares: Shares,
    /// Who may call; `None` for everybody.
    admission: Option<watch::Receiver<Admission>>,
    refusals: Refusals,
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
    place: Place,
    handshake: Duration,
}

/// Callers that were not let in.
#[derive(Debug, Default)]
struct Refusals {
    /// Of which the log has told.
    named: HashSet<(IpAddr, &'static str)>,
    /// All the others.
    further: Tally,
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
            shares: Shares::new(connections),
            admission: None,
            refusals: Refusals::default(),
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

    /// Takes calls only from whom `admission` lets in at that moment.
    #[must_use]
    pub fn with_admission(self, admission: watch::Receiver<Admission>) -> Self {
        Self { admission: Some(admission), ..self }
    }

    /// Has at most so many connections from one address.
    #[must_use]
    pub fn with_share(self, connections: usize) -> Self {
        Self { shares: Shares::new(connections), ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. While there are as many as may be, others wait in the system. May be cancelled.
    pub async fn accept(&mut self) -> Incoming {
        loop {
            let Ok(of_all) = self.places.clone().acquire_owned().await else {
                // Nobody closes the semaphore.
                return std::future::pending().await;
            };
            match self.tcp.accept().await {
                Ok((stream, from)) => {
                    self.worked();
                    match self.admit(&stream, from.ip()) {
                        Ok(of_one) => {
                            let place = Place { _of_all: of_all, _of_one: of_one };
                            return Incoming { stream, from, place, handshake: self.handshake };
                        }
                        // Closed without a byte of it read.
                        Err(why) => self.refusals.note(self.address, from.ip(), why),
                    }
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

    fn admit(&self, stream: &TcpStream, from: IpAddr) -> Result<Share, Refused> {
        if let Some(admission) = &self.admission {
            // A connection that is gone already has no address here any more; nobody waits for it.
            let at = stream.local_addr().map_err(|_| Refused::Stranger)?;
            admission.borrow().admit(from, at.ip())?;
        }
        self.shares.take(from).ok_or(Refused::TooMany)
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

impl Refusals {
    fn note(&mut self, address: SocketAddr, from: IpAddr, why: Refused) {
        let kind = match why {
            Refused::Container => "container",
            Refused::Stranger => "stranger",
            Refused::TooMany => "too-many",
        };
        figures::count(&table::RPC_NOT_LET_IN, &[kind]);
        if self.named.contains(&(from, kind)) {
            return;
        }
        if self.named.len() < NAMED {
            self.named.insert((from, kind));
            tracing::warn!(%address, %from, "refused a caller: {why}");
        } else if let Some(further) = self.further.more() {
            tracing::warn!(%address, %from, further, "refused a caller: {why}");
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
    async fn who_may_not_call_is_closed_unread_and_counted() {
        let trusting = Admission { trusted: vec!["0.0.0.0/0".parse().unwrap()], ..Admission::default() };
        let (admission, watched) = watch::channel(trusting);
        let listener = Listener::bind("127.0.0.1:0", 9).unwrap().with_admission(watched).with_share(2);
        let address = listener.address();
        let mut listener = listener;
        let mut taken = Vec::new();
        let mut callers = Vec::new();
        for _ in 0..2 {
            callers.push(TcpStream::connect(address).await.unwrap());
            taken.push(within(listener.accept()).await);
        }
        // One more than one address may have: it hears the end, and the places go to others.
        let mut third = TcpStream::connect(address).await.unwrap();
        let mut said = Vec::new();
        let ended = within(async {
            tokio::select! {
                _ = listener.accept() => panic!("taken"),
                ended = tokio::io::AsyncReadExt::read_to_end(&mut third, &mut said) => ended,
            }
        });
        assert!(ended.await.is_ok_and(|read| read == 0));
        assert_eq!(listener.refusals.named.len(), 1);
        taken.clear();
        callers.push(TcpStream::connect(address).await.unwrap());
        within(listener.accept()).await;
        // Loopback is let in whatever else is; what is decided about others is `admission`'s business and tested there.
        admission.send_replace(Admission::default());
        callers.push(TcpStream::connect(address).await.unwrap());
        within(listener.accept()).await;
        assert_eq!(listener.refusals.named.len(), 1);
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
