//! The bound PULL socket: the manager's side of events, and the container's side of commands in tests.

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Trouble;
use super::hello::Kind;
use super::inbox::{Caps, Message};
use super::listener::{Incoming, ListenError, Listener};

/// The largest message, in bytes; heartbeats with a long list of images have some KiB.
const LARGEST: u64 = 128 * 1024 * 1024;
/// How many peers may send at a time.
const CONNECTIONS: usize = 1024;

/// A PULL that listens; its connections end with it.
pub struct Pull {
    messages: mpsc::Receiver<Message>,
    port: u16,
    _end: DropGuard,
}

impl Pull {
    /// Listens on `host:port`, see [`Listener::bind`].
    pub fn bind(address: &str) -> Result<Self, ListenError> {
        let listener = Listener::bind(address, CONNECTIONS)?;
        let port = listener.address().port();
        // One at a time: a peer whose messages nobody takes is not read.
        let (tx, messages) = mpsc::channel(1);
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(serve(listener, tx, end.clone())));
        Ok(Self { messages, port, _end: end.drop_guard() })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// The next message, of whichever peer. May be cancelled.
    pub async fn recv(&mut self) -> Message {
        match self.messages.recv().await {
            Some(message) => message,
            // The listening ends with this socket only.
            None => std::future::pending().await,
        }
    }
}

async fn serve(mut listener: Listener, messages: mpsc::Sender<Message>, end: CancellationToken) {
    loop {
        let incoming = listener.accept().await;
        let (messages, from) = (messages.clone(), incoming.from);
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            let Err(trouble) = pass_on(incoming, &messages).await else { return };
            tracing::debug!(%from, %trouble, "a peer is gone");
        }));
    }
}

/// Until the connection ends, or nobody takes messages any more.
async fn pass_on(incoming: Incoming, messages: &mpsc::Sender<Message>) -> Result<(), Trouble> {
    let mut connection = incoming.greet(Kind::Pull, Caps::calls(LARGEST)).await?;
    loop {
        let message = connection.recv().await?;
        if messages.send(message).await.is_err() {
            return Ok(());
        }
    }
}
