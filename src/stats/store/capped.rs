//! A connection that breaks when the other side says more than it was asked for: the library keeps what comes until an
//! answer is whole, and a server that streams without end would fill the memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream with a bound on what is read between two writes.
#[derive(Debug)]
pub(super) struct Capped<S> {
    stream: S,
    most: usize,
    read: usize,
}

impl<S> Capped<S> {
    /// At most so many bytes are read for what is written at a time.
    pub(super) fn new(stream: S, most: usize) -> Self {
        Self { stream, most, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.read += buffer.filled().len() - before;
        if self.read > self.most {
            let text = format!("it answered more than {} bytes", self.most);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn each_question_may_be_answered_by_so_much_and_no_more() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut capped = Capped::new(near, 10);
        let mut answer = [0; 10];
        for _ in 0..3 {
            capped.write_all(b"?").await.unwrap();
            far.write_all(&[7; 10]).await.unwrap();
            capped.read_exact(&mut answer).await.unwrap();
        }
        far.write_all(&[7]).await.unwrap();
        let error = capped.read_exact(&mut answer[..1]).await.unwrap_err();
        assert!(error.to_string().contains("more than 10 bytes"), "{error}");
    }
}
