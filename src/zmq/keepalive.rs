//! TCP keepalive for the connections that don't go through libzmq (`events/line.rs`, `runner/link.rs`).

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// An idle connection is probed after `idle`, then every `every`, and given up after `times` probes without an answer.
pub fn keep_alive(stream: &TcpStream, idle: Duration, every: Duration, times: u32) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, every)?;
    sockopt::set_tcp_keepcnt(stream, times)?;
    Ok(())
}
