//! What a kernel's runner is sent, through a PUSH of our own over TCP.
//!
//! It took the place of libzmq's PUSH for the same reason as [`Intake`](super::intake::Intake): whoever listens
//! at the runner's port may send frames without end, which libzmq keeps. Here a peer has nothing to say but small
//! commands (`wire::zmtp` takes no frame above 4 KiB), and one that says more loses its connection.
//!
//! There is no queue in here: the caller keeps a message until it is written, and has it sent again when its
//! connection breaks before that. As with any PUSH, what was written and not read is lost with the connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::AsyncWriteExt;

use super::link::{Link, Opening, Trouble, opening};
use crate::ids::KernelId;
use crate::wire::zmtp::{self, Kind, Said};
use crate::zmq::Multipart;

/// How much of what the peer says is read at a time.
const PIECE: usize = 1024;

/// The sending end of a runner's input.
pub(super) struct Outlet {
    /// For log lines.
    kernel: KernelId,
    address: SocketAddr,
    state: State,
    /// The pause before the last attempt to connect.
    pause: Duration,
}

/// What goes on lives here and not in a call's stack, so that a call can be cancelled anywhere.
enum State {
    Opening(Opening),
    Open(Connection),
}

struct Connection {
    link: Link,
    /// What is to be written yet of the message that is being sent; `None` between two.
    rest: Option<Bytes>,
    /// What is to be written of answers to PINGs, between two messages.
    pong: Bytes,
}

impl Outlet {
    /// Connects once it is first given a message.
    pub(super) fn new(kernel: KernelId, address: SocketAddr) -> Self {
        let state = State::Opening(opening(address, Kind::Push, Kind::Pull, Duration::ZERO));
        Self { kernel, address, state, pause: Duration::ZERO }
    }

    /// Sends a message, however long it takes and however many connections. May be cancelled, and is then called
    /// again with the same message, which goes on where it was.
    pub(super) async fn send(&mut self, message: &Multipart) {
        loop {
            let trouble = match &mut self.state {
                State::Opening(attempt) => match attempt.await {
                    Ok(link) => {
                        tracing::debug!(kernel = %self.kernel, to = %self.address, "sending a runner its input");
                        self.state = State::Open(Connection { link, rest: None, pong: Bytes::new() });
                        continue;
                    }
                    Err(trouble) => trouble,
                },
                State::Open(connection) => match connection.send(message).await {
                    Ok(()) => return,
                    Err(trouble) => trouble,
                },
            };
            tracing::debug!(kernel = %self.kernel, to = %self.address, %trouble, "no connection to a runner's input");
            self.pause = trouble.pause(self.pause);
            self.state = State::Opening(opening(self.address, Kind::Push, Kind::Pull, self.pause));
        }
    }
}

impl Connection {
    async fn send(&mut self, message: &Multipart) -> Result<(), Trouble> {
        if self.rest.is_none() {
            self.hear()?;
            while self.pong.has_remaining() {
                self.link.stream.write_buf(&mut self.pong).await?;
            }
        }
        let rest = self.rest.get_or_insert_with(|| zmtp::message_alone(message));
        while rest.has_remaining() {
            self.link.stream.write_buf(rest).await?;
        }
        self.rest = None;
        Ok(())
    }

    /// What came since the last message, without waiting: most of all whether the peer has closed the connection, or what
    /// is written next would be lost.
    fn hear(&mut self) -> Result<(), Trouble> {
        loop {
            while let Some(said) = self.link.decoder.take()? {
                if let Said::Ping(context) = said {
                    // The last of several is enough; a peer that wants more of them heaps nothing up here.
                    self.pong = zmtp::pong(&context);
                }
            }
            // Asked of the system, since the runtime may not have heard yet.
            let mut piece = [0; PIECE];
            match rustix::net::recv(&self.link.stream, &mut piece[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Trouble::Closed),
                Ok((n, _)) => self.link.decoder.buffer().extend_from_slice(&piece[..n]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use zeromq::{PullSocket, Socket, SocketRecv};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(LIMIT, future).await.expect("timed out")
    }

    fn message(text: &str) -> Multipart {
        vec![Bytes::from_static(b"code"), Bytes::copy_from_slice(text.as_bytes())]
    }

    fn outlet(address: SocketAddr) -> Outlet {
        Outlet::new(KernelId::random(), address)
    }

    /// A peer that speaks for itself, past its handshake.
    async fn greeted(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&zmtp::GREETING).await.unwrap();
        stream.write_all(&zmtp::ready(Kind::Pull)).await.unwrap();
        let mut theirs = vec![0; 64 + zmtp::ready(Kind::Push).len()];
        stream.read_exact(&mut theirs).await.unwrap();
        stream
    }

    async fn sent(stream: &mut TcpStream, text: &str) -> Bytes {
        let mut found = vec![0; zmtp::message_alone(&message(text)).len()];
        within(stream.read_exact(&mut found)).await.unwrap();
        found.into()
    }

    #[tokio::test]
    async fn a_runner_that_comes_late_and_again_gets_everything_in_order() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut outlet = outlet(free);
        for life in 0..2 {
            // On a runtime of its own, since the other implementation keeps connections until that ends.
            let runner = tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut pull = PullSocket::new();
                    while pull.bind(&format!("tcp://{free}")).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                    let mut got = Vec::new();
                    while got.len() < 3 {
                        got.push(within(pull.recv()).await.unwrap().into_vec());
                    }
                    got
                })
            });
            let texts = [0, 1, 2].map(|n| format!("{life}.{n}"));
            for text in &texts {
                within(outlet.send(&message(text))).await;
            }
            assert_eq!(runner.await.unwrap(), texts.map(|text| message(&text)));
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_gets_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut outlet = outlet(listener.local_addr().unwrap());
        let first = message("first");
        let (mut old, ()) = tokio::join!(greeted(&listener), outlet.send(&first));
        assert_eq!(sent(&mut old, "first").await, zmtp::message_alone(&first));
        drop(old);
        let second = message("second");
        let (mut new, ()) = tokio::join!(within(greeted(&listener)), outlet.send(&second));
        assert_eq!(sent(&mut new, "second").await, zmtp::message_alone(&second));
    }

    #[tokio::test]
    async fn a_cancelled_send_goes_on_where_it_was() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut outlet = outlet(listener.local_addr().unwrap());
        // More than the system takes at once.
        let large = message(&"x".repeat(32 << 20));
        let reading = async {
            let mut stream = greeted(&listener).await;
            let mut found = vec![0; zmtp::message_alone(&large).len()];
            stream.read_exact(&mut found).await.unwrap();
            found
        };
        let mut cancelled = 0;
        let sending = async {
            while tokio::time::timeout(Duration::from_micros(200), outlet.send(&large)).await.is_err() {
                cancelled += 1;
            }
        };
        let (found, ()) = within(async { tokio::join!(reading, sending) }).await;
        assert!(found == zmtp::message_alone(&large), "not what was sent");
        assert!(cancelled > 0, "nothing was tried");
    }

    /// Frames without end, as code in a container may send them to whoever connects.
    #[tokio::test]
    async fn a_peer_that_talks_without_end_loses_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut outlet = outlet(listener.local_addr().unwrap());
        let first = message("first");
        let (mut peer, ()) = tokio::join!(greeted(&listener), outlet.send(&first));
        let flood = [b"\x01\xff".as_slice(), &[7; 255]].concat().repeat(64);
        peer.write_all(&flood).await.unwrap();
        peer.write_all(b"\x03\0\0\0\x7f\0\0\0\0").await.unwrap();
        peer.flush().await.unwrap();
        // Read at the next message, which finds a peer that keeps no rules.
        let second = message("second");
        let (mut new, ()) = within(async { tokio::join!(greeted(&listener), outlet.send(&second)) }).await;
        assert_eq!(sent(&mut new, "second").await, zmtp::message_alone(&second));
    }
}
