//! A Redis of one process, for hashes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hashes::{Hashes, Stored};
use super::resp::{self, Reply};

/// The pause after a connection that could not be taken: descriptors may be short.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `end`, and tells what is stored as long as somebody takes it.
pub(super) async fn serve(
    listener: TcpListener,
    tell: mpsc::Sender<Stored>,
    end: CancellationToken,
    tracker: TaskTracker,
) {
    let hashes = Arc::new(Mutex::new(Hashes::default()));
    let accepting = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let talk = talk(stream, Arc::clone(&hashes), tell.clone());
            tracker.spawn(end.clone().run_until_cancelled_owned(async move {
                if let Err(error) = talk.await {
                    tracing::debug!(%error, "a client of this process's Redis is gone");
                }
            }));
        }
    };
    end.run_until_cancelled(accepting).await;
}

/// Answers one client until it leaves.
async fn talk(
    mut stream: TcpStream,
    hashes: Arc<Mutex<Hashes>>,
    tell: mpsc::Sender<Stored>,
) -> io::Result<()> {
    let mut read = BytesMut::new();
    while stream.read_buf(&mut read).await? > 0 {
        let mut answers = Vec::new();
        loop {
            match resp::command(&mut read) {
                Ok(Some(command)) => {
                    let answer = hashes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .answer(&command, Instant::now());
                    answer.0.write(&mut answers);
                    if let Some(stored) = answer.1 {
                        // It is kept; only the telling may be left out.
                        let _ = tell.try_send(stored);
                    }
                }
                Ok(None) => break,
                Err(malformed) => {
                    Reply::Error(format!("ERR {malformed}")).write(&mut answers);
                    return stream.write_all(&answers).await;
                }
            }
        }
        stream.write_all(&answers).await?;
    }
    Ok(())
}
