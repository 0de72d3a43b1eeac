//! Where the agent reaches a kernel's runner.
//!
//! At the container's own address, if the host can reach that: the ports that Docker publishes go through a proxy
//! process per port, which dies with dockerd, and with it what it has read and not passed on. Containers that outlive
//! dockerd (`live-restore`) thus keep their runs. Where the container's address leads nowhere, as in an agent
//! that runs in a container or beside a network of another kind, the published ports do.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::runner::RunnerAddr;
use crate::wire::reply::Ports;

/// The runner's ports in the container.
const INPUT: u16 = 2000;
const OUTPUT: u16 = 2001;

/// Nobody listens there; a host that is reached refuses at once. Not a runner's port: old libzmq counts any
/// connection for a peer, and would give it a record.
const NOBODY: u16 = 1;

/// An address on the same machine answers in less than a millisecond.
const LIMIT: Duration = Duration::from_millis(300);

/// The runner of a container that runs.
pub(super) async fn runner(container: Option<IpAddr>, published: &Ports) -> RunnerAddr {
    if let Some(host) = container
        && is_reachable(host, NOBODY).await
    {
        return RunnerAddr { host, input: INPUT, output: OUTPUT };
    }
    let container = container.map(tracing::field::display);
    tracing::debug!(container, "the container's own address can't be reached; using its published ports");
    RunnerAddr { host: Ipv4Addr::LOCALHOST.into(), input: published.repl_in, output: published.repl_out }
}

async fn is_reachable(host: IpAddr, port: u16) -> bool {
    // A connection would be to something in between that takes everything.
    let connected = timeout(LIMIT, TcpStream::connect((host, port))).await;
    matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: Ports = Ports { repl_in: 7, repl_out: 8, stdin: 9, stdout: 10 };

    #[tokio::test]
    async fn an_address_that_answers_is_taken_and_another_is_not() {
        let direct = runner(Some(Ipv4Addr::LOCALHOST.into()), &PUBLISHED).await;
        assert_eq!(direct, RunnerAddr { host: Ipv4Addr::LOCALHOST.into(), input: 2000, output: 2001 });
        // An address that is no machine's, and a container without one.
        for nowhere in [Some(Ipv4Addr::BROADCAST.into()), None] {
            let published = runner(nowhere, &PUBLISHED).await;
            assert_eq!((published.input, published.output), (7, 8), "{nowhere:?}");
        }
    }
}
