//! A gate in front of a registry, which passes only so much.

use backendai_agent::rooms::images::Registry as Source;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::LIMIT;
use crate::support::registry::Registry;
use crate::support::until;

/// What a gate does with bytes that come from the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Lets them through.
    Open,
    /// Lets this many through in all, then closes every connection.
    CutAfter(u64),
    /// Lets this many through in all, then stands still.
    HoldAfter(u64),
}

impl Way {
    fn left(self, passed: u64) -> u64 {
        match self {
            Self::Open => u64::MAX,
            Self::CutAfter(most) | Self::HoldAfter(most) => most.saturating_sub(passed),
        }
    }
}

/// A port in front of a registry.
pub(super) struct Gate {
    address: String,
    way: watch::Sender<Way>,
    passed: watch::Sender<u64>,
    acceptor: JoinHandle<()>,
}

impl Gate {
    pub(super) async fn before(registry: &Registry, way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (way, passed) = (watch::Sender::new(way), watch::Sender::new(0));
        let (ways, passing, to) = (way.subscribe(), passed.clone(), registry.address());
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to.clone(), ways.clone(), passing.clone()));
            }
        });
        Self { address, way, passed, acceptor }
    }

    /// From now on.
    pub(super) fn becomes(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// How many bytes of the registry have passed so far.
    pub(super) fn passed(&self) -> u64 {
        *self.passed.borrow()
    }

    /// Waits until nothing more can pass.
    pub(super) async fn is_shut(&self) {
        let shut = async || (self.way.borrow().left(self.passed()) == 0).then_some(());
        until("the gate to be shut", LIMIT, shut).await;
    }

    pub(super) fn source(&self) -> Source {
        Source { address: Some(self.address.clone()), docker_config: None }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn pass(client: TcpStream, to: String, mut ways: watch::Receiver<Way>, passed: watch::Sender<u64>) {
    let Ok(registry) = TcpStream::connect(to).await else { return };
    let (mut asks, mut hears) = client.into_split();
    let (mut answers, mut asked) = registry.into_split();
    let asking = tokio::io::copy(&mut asks, &mut asked);
    let answering = async {
        let mut bytes = vec![0; 65536];
        loop {
            let way = *ways.borrow_and_update();
            let left = way.left(*passed.borrow());
            if left == 0 {
                if matches!(way, Way::CutAfter(_)) || ways.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let most = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match answers.read(&mut bytes[..most]).await {
                Ok(0) | Err(_) => return,
                Ok(n) if hears.write_all(&bytes[..n]).await.is_ok() => {
                    passed.send_modify(|sum| *sum += n as u64);
                }
                Ok(_) => return,
            }
        }
    };
    tokio::select! {
        _ = asking => {}
        () = answering => {}
    }
}
