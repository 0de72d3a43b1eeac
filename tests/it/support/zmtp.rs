//! ZMTP 3.1 with the NULL mechanism, enough for a PULL and a DEALER socket.
//!
//! Written here because the pure-Rust `zeromq` crate hangs up on a peer that sends ZMTP heartbeats, which libzmq
//! answers, and so must a stand-in for the manager. It also shows single connections, which sockets hide.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// One connection after its handshake.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes read and not yet taken as frames; kept here so that a cancelled `recv` loses nothing.
    unread: BytesMut,
    /// Frames of a message whose last frame has not come yet.
    parts: Vec<Bytes>,
}

impl Connection {
    /// Greets the peer as a socket of type `socket` ("PULL", "DEALER") over an open stream.
    pub(crate) async fn greet(stream: TcpStream, socket: &str) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, unread: BytesMut::new(), parts: Vec::new() };
        let mut greeting = [0_u8; 64];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10..12].copy_from_slice(&[3, 1]);
        greeting[12..16].copy_from_slice(b"NULL");
        connection.stream.write_all(&greeting).await?;
        connection.fill(64).await?;
        let theirs = connection.unread.split_to(64);
        if theirs[0] != 0xff || theirs[10] < 3 || &theirs[12..17] != b"NULL\0" {
            return Err(bad("not a ZMTP 3 greeting with the NULL mechanism"));
        }
        let mut ready = BytesMut::from(&b"\x05READY"[..]);
        for (name, value) in [("Socket-Type", socket), ("Identity", "")] {
            ready.put_u8(name.len().try_into().unwrap());
            ready.put_slice(name.as_bytes());
            ready.put_u32(value.len().try_into().unwrap());
            ready.put_slice(value.as_bytes());
        }
        connection.write_frame(COMMAND, &ready).await?;
        let (flags, body) = connection.frame().await?;
        if flags & COMMAND == 0 || !body.starts_with(b"\x05READY") {
            return Err(bad("the peer did not say READY"));
        }
        Ok(connection)
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        for (index, frame) in frames.iter().enumerate() {
            self.write_frame(if index + 1 < frames.len() { MORE } else { 0 }, frame).await?;
        }
        Ok(())
    }

    /// The next message; heartbeats are answered on the way. May be cancelled and called again.
    pub(crate) async fn recv(&mut self) -> io::Result<Vec<Bytes>> {
        loop {
            let (flags, body) = self.frame().await?;
            if flags & COMMAND != 0 {
                if let Some(context) = body.strip_prefix(b"\x04PING") {
                    let pong = [b"\x04PONG", context.get(2..).unwrap_or_default()].concat();
                    self.write_frame(COMMAND, &pong).await?;
                }
                continue;
            }
            self.parts.push(body);
            if flags & MORE == 0 {
                return Ok(std::mem::take(&mut self.parts));
            }
        }
    }

    async fn write_frame(&mut self, flags: u8, body: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(body.len() + 9);
        if let Ok(short) = u8::try_from(body.len()) {
            frame.put_slice(&[flags, short]);
        } else {
            frame.put_u8(flags | LONG);
            frame.put_u64(body.len() as u64);
        }
        frame.put_slice(body);
        self.stream.write_all(&frame).await
    }

    async fn frame(&mut self) -> io::Result<(u8, Bytes)> {
        self.fill(2).await?;
        let flags = self.unread[0];
        let (head, length) = if flags & LONG == 0 {
            (2, usize::from(self.unread[1]))
        } else {
            self.fill(9).await?;
            (9, usize::try_from((&self.unread[1..9]).get_u64()).unwrap())
        };
        self.fill(head + length).await?;
        self.unread.advance(head);
        Ok((flags, self.unread.split_to(length).freeze()))
    }

    /// Reads until `wanted` bytes are there.
    async fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.unread.len() < wanted {
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
