//! The agent's pages for monitoring, asked over HTTP.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ports::Port;
use super::{secs, until};

/// Where an agent serves its pages.
pub(crate) struct Pages(Port);

impl Pages {
    /// A free port for them.
    pub(crate) fn lease() -> Self {
        Self(Port::lease())
    }

    /// The value for `--metrics-addr`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.number())
    }

    /// A page: head and body.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.ask(path).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address()).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut page = String::new();
        tokio::time::timeout(secs(10), stream.read_to_string(&mut page)).await??;
        Ok(page)
    }

    /// Waits until `/readyz` has all of `words`, and gives it.
    pub(crate) async fn readyz(&self, words: &[&str], limit: Duration) -> String {
        until(&format!("{words:?} on /readyz"), limit, async || {
            let page = self.ask("/readyz").await.unwrap_or_default();
            words.iter().all(|word| page.contains(word)).then_some(page)
        })
        .await
    }
}
