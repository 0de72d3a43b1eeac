//! A kernel's runner without an interpreter: it answers code at once, and floods on demand.

use std::net::Ipv4Addr;

use backendai_agent::wire::record::Record;
use backendai_agent::zmtp::{Caps, Connection, KeepAlive, Kind, Trouble, frame};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// At least so many bytes are written at a time.
const PIECE: usize = 256 * 1024;

/// Listens until it is dropped.
pub(crate) struct Runner {
    _tasks: JoinSet<()>,
}

/// Output of a run: so many bytes in records of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) bytes: usize,
    /// Of a record, 1 at least.
    pub(crate) record: usize,
}

impl Flood {
    /// The code that has a runner do it.
    pub(crate) fn code(self) -> String {
        format!("flood {} {}", self.bytes, self.record)
    }

    fn read(code: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(code).ok()?.strip_prefix("flood ")?.split(' ');
        let mut number = || words.next()?.parse().ok();
        Some(Self { bytes: number()?, record: number()? })
    }
}

impl Runner {
    /// A runner at its usual ports of this address, which take connections when this returns.
    pub(crate) fn listen(host: Ipv4Addr) -> Self {
        let [input, output] = [2000, 2001].map(|port| {
            let listener = std::net::TcpListener::bind((host, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        });
        let (orders, to_do) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(take(input, orders));
        tasks.spawn(answer(output, to_do));
        Self { _tasks: tasks }
    }
}

/// Takes commands of one peer after the other.
async fn take(listener: TcpListener, orders: mpsc::Sender<Vec<Bytes>>) {
    loop {
        let mut peer = greeted(&listener, Kind::Pull).await;
        while let Ok(message) = peer.recv().await {
            if orders.send(message.frames).await.is_err() {
                return;
            }
        }
    }
}

/// Answers to one peer after the other.
async fn answer(listener: TcpListener, mut orders: mpsc::Receiver<Vec<Bytes>>) {
    loop {
        let mut peer = greeted(&listener, Kind::Push).await;
        loop {
            let told = tokio::select! {
                Some(order) = orders.recv() => tell(&mut peer, &order).await,
                // A peer of this kind says nothing: it leaves.
                heard = peer.next(true) => heard.map(drop),
            };
            if told.is_err() {
                break;
            }
        }
    }
}

async fn greeted(listener: &TcpListener, own: Kind) -> Connection {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let greeted = Connection::greet(stream, own, Caps::calls(1 << 20), KeepAlive::default()).await;
        if let Ok(peer) = greeted {
            return peer;
        }
    }
}

async fn tell(peer: &mut Connection, order: &[Bytes]) -> Result<(), Trouble> {
    let [kind, code] = order else { return Ok(()) };
    let end = Record::Finished(Some(0)).encode();
    match &kind[..] {
        b"code" => {
            if let Some(flood) = Flood::read(code) {
                pour(peer, flood).await?;
            } else {
                peer.put(frame::message(&Record::Stdout(Bytes::from_static(b"2\n")).encode()));
            }
            peer.put(frame::message(&end));
        }
        b"status" => peer.put(frame::message(&Record::Status.encode())),
        _ => return Ok(()),
    }
    peer.flush().await
}

/// Lines of 1,000 bytes, if records are large enough.
async fn pour(peer: &mut Connection, flood: Flood) -> Result<(), Trouble> {
    let text: Vec<u8> = (1..=flood.record).map(|at| if at % 1000 == 0 { b'\n' } else { b'x' }).collect();
    let record = frame::message(&Record::Stdout(text.into()).encode());
    let at_once = PIECE.div_ceil(flood.record);
    let piece = Bytes::from(record.repeat(at_once));
    for _ in 0..flood.bytes.div_ceil(flood.record * at_once) {
        peer.put(piece.clone());
        peer.flush().await?;
    }
    Ok(())
}
