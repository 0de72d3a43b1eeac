//! A PULL socket of a manager whose manners can be chosen, and that remembers every byte it was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::zmtp::frame;
use crate::zmtp::hello::GREETING;

/// How it behaves after its handshake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Manners {
    /// Says in its greeting that it knows PING, and answers none until [`Peer::hear_again`].
    Deaf,
    /// The same, without saying so.
    Late,
    /// Answers no PING.
    Old,
    /// Closes a connection on which a PING comes.
    HangsUpAtPings,
}

/// What all its connections share.
struct Shared {
    manners: Manners,
    hears: watch::Sender<bool>,
    /// The bytes of each connection.
    sent: Mutex<Vec<Vec<u8>>>,
    changed: watch::Sender<()>,
}

pub(super) struct Peer {
    port: u16,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

impl Peer {
    pub(super) async fn listen(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hears, changed) = (watch::Sender::new(false), watch::Sender::new(()));
        let shared = Arc::new(Shared { manners, hears, sent: Mutex::default(), changed });
        let acceptor = tokio::spawn({
            let shared = shared.clone();
            async move {
                // Connections end with it.
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let at = {
                        let mut sent = shared.sent.lock().unwrap();
                        sent.push(Vec::new());
                        sent.len() - 1
                    };
                    connections.spawn(serve(stream, at, shared.clone()));
                }
            }
        });
        Self { port, shared, acceptor }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Goes, with all its connections; the port is free.
    pub(super) async fn die(self) -> u16 {
        self.acceptor.abort();
        // Only then are its sockets closed.
        let _ = self.acceptor.await;
        self.port
    }

    pub(super) fn hear_again(&self) {
        self.shared.hears.send_replace(true);
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.sent.lock().unwrap().len()
    }

    /// How often these bytes came, on all connections.
    pub(super) fn times_sent(&self, bytes: &[u8]) -> usize {
        let sent = self.shared.sent.lock().unwrap();
        sent.iter().map(|one| one.windows(bytes.len()).filter(|w| *w == bytes).count()).sum()
    }

    /// Waits until these bytes came.
    pub(super) async fn was_sent(&self, bytes: &[u8]) {
        let mut changed = self.shared.changed.subscribe();
        let seen = async {
            while self.times_sent(bytes) == 0 {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the bytes did not come");
    }
}

async fn serve(mut stream: TcpStream, at: usize, shared: Arc<Shared>) {
    let mut greeting = GREETING;
    greeting[11] = u8::from(shared.manners == Manners::Deaf);
    stream.write_all(&greeting).await.unwrap();
    stream.write_all(b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL").await.unwrap();
    let mut buffer = vec![0; 4096];
    let mut answered = 0;
    let pings = |shared: &Shared| {
        let sent = shared.sent.lock().unwrap();
        sent[at].windows(6).filter(|w| *w == b"\x07\x04PING").count()
    };
    let mut hears = shared.hears.subscribe();
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let Ok(n @ 1..) = read else { return };
                shared.sent.lock().unwrap()[at].extend(&buffer[..n]);
                shared.changed.send_replace(());
            }
            Ok(()) = hears.changed() => {}
        }
        let limit = match shared.manners {
            Manners::Deaf | Manners::Late if *hears.borrow() => usize::MAX,
            Manners::HangsUpAtPings if pings(&shared) > 0 => return,
            _ => 0,
        };
        while answered < pings(&shared).min(limit) {
            stream.write_all(&frame::pong(b"")).await.unwrap();
            answered += 1;
        }
    }
}
