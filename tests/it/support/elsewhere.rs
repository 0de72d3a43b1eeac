//! An address of this machine that is not loopback's, to call from as another machine would.
//!
//! It lies on `lo`, in the range for benchmarks (198.18.0.0/15) that no network uses, so that nothing leaves the machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use backendai_agent::zmtp::Kind;
use backendai_agent::zmtp::hello::{GREETING, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::ports::Port;
use super::secs;

/// One such address, until it is dropped.
pub(crate) struct Elsewhere {
    ip: Ipv4Addr,
    /// Makes it this test's own.
    _number: Port,
}

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let number = Port::lease();
        let [high, low] = number.number().to_be_bytes();
        let ip = Ipv4Addr::new(198, 18, high, low);
        // One that a killed test has left is as good.
        let added = ip_addr("replace", ip);
        assert!(added, "could not give {ip} to lo");
        Self { ip, _number: number }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// Connects from there.
    pub(crate) async fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.ip(), 0).into())?;
        socket.connect(to).await
    }
}

/// Whether the agent speaks with who has opened this connection; one that it refuses is closed without a word.
pub(crate) async fn is_heard(stream: std::io::Result<TcpStream>) -> bool {
    let Ok(mut stream) = stream else { return false };
    let hello = [&GREETING[..], &ready(Kind::Dealer)].concat();
    let _ = stream.write_all(&hello).await;
    let mut said = [0; 64];
    match tokio::time::timeout(secs(5), stream.read_exact(&mut said))
        .await
        .expect("neither heard nor refused")
    {
        Ok(_) => true,
        Err(error) => {
            assert!(said.iter().all(|byte| *byte == 0), "refused after it was spoken to: {error}");
            false
        }
    }
}

fn ip_addr(what: &str, ip: Ipv4Addr) -> bool {
    let address = format!("{ip}/32");
    let done = Command::new("ip").args(["addr", what, &address, "dev", "lo"]).output();
    done.is_ok_and(|done| done.status.success())
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        ip_addr("del", self.ip);
    }
}
