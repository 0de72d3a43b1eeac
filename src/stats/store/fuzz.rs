//! What any answer of a Redis must not do, for the fuzzer and for `tests/decoders.rs`.
#![allow(clippy::missing_panics_doc, reason = "a panic is what this is for")]

use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::access::RedisAccess;
use super::capped::Capped;

/// All that a Redis says on a connection.
pub fn redis(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_all().build().ok();
    }
    RUNTIME.with(|runtime| {
        let exchange = runtime.as_ref().map(|runtime| runtime.block_on(exchange(bytes)));
        assert!(matches!(exchange, Some(Ok(()))), "{exchange:?}");
    });
}

async fn exchange(bytes: &[u8]) -> Result<(), tokio::time::error::Elapsed> {
    let (ours, theirs) = tokio::io::duplex(64);
    let both = async { tokio::join!(asking(ours), answering(theirs, bytes)) };
    timeout(Duration::from_secs(30), both).await?;
    Ok(())
}

/// As the writer asks, over a connection that takes few bytes.
async fn asking(stream: DuplexStream) {
    let settings = RedisAccess::default().settings();
    let limits = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&settings, Capped::new(stream, 256), limits).await;
    let Ok((mut connection, driver)) = made else { return };
    let asked = async move {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("HMSET")
            .arg(&["kernel", "net_rx", "1"])
            .ignore()
            .cmd("EXPIRE")
            .arg(&["kernel", "30"])
            .ignore();
        if redis::cmd("PING").exec_async(&mut connection).await.is_ok() {
            let _ = pipeline.exec_async(&mut connection).await;
        }
    };
    tokio::select! {
        () = driver => {}
        () = asked => {}
    }
}

async fn answering(mut stream: DuplexStream, bytes: &[u8]) {
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let mut asked = Vec::new();
    let said = async {
        let _ = writing.write_all(bytes).await;
        let _ = writing.shutdown().await;
    };
    let _ = tokio::join!(reading.read_to_end(&mut asked), said);
}
