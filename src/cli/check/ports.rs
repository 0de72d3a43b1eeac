//! Whether the ports that the agent listens on can be had.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use super::finding::{Finding, Verdict};
use crate::address::HostPort;
use crate::agent::config::Config;
use crate::client::Client;

/// How long an agent that has the port may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// The ports that the system gives to connections that go out.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let rpc = SocketAddr::from((config.rpc_listen, config.agent_port));
    let mut found = vec![match listens(
        "RPC port",
        &config.agent_port.to_string(),
        rpc,
        "another program has it: stop that, or give --agent-port",
    ) {
        taken if taken.verdict == Verdict::Bad && an_agent_answers(rpc).await => {
            Finding::good("RPC port", config.agent_port, "an agent serves here already")
        }
        found => found,
    }];
    let range = fs::read_to_string(OUTGOING).unwrap_or_default();
    if is_outgoing(&range, config.agent_port) {
        found.push(Finding::doubtful(
            "RPC port",
            config.agent_port,
            "is one that the system gives to connections that go out, and may be taken at a start",
            "choose one outside of net.ipv4.ip_local_port_range, or reserve it (net.ipv4.ip_local_reserved_ports)",
        ));
    }
    if let Some(addr) = config.metrics_addr {
        found.push(listens(
            "port for monitoring",
            &addr.to_string(),
            addr,
            "choose a free address of this machine with --metrics-addr",
        ));
    }
    found
}

/// Whether the port is taken by an agent: a node that is looked at while it works is no fault.
async fn an_agent_answers(at: SocketAddr) -> bool {
    let ip = if at.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { at.ip() };
    let Ok(address) = SocketAddr::new(ip, at.port()).to_string().parse::<HostPort>() else { return false };
    let client = Client::new(address, Some(LIMIT));
    client.call("ping", vec!["check".into()]).await.is_ok_and(|answer| answer.as_str() == Some("check"))
}

fn listens(what: &'static str, at: &str, addr: SocketAddr, remedy: &str) -> Finding {
    match TcpListener::bind(addr) {
        Ok(_) => Finding::good(what, at, "free"),
        Err(error) => Finding::bad(what, at, error, remedy),
    }
}

fn is_outgoing(range: &str, port: u16) -> bool {
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    matches!((ends.next(), ends.next()), (Some(Ok(first)), Some(Ok(last))) if (first..=last).contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_outgoing_connections_are_known() {
        assert!(is_outgoing("32768\t60999\n", 40000) && is_outgoing("32768\t60999\n", 60999));
        assert!(!is_outgoing("32768\t60999\n", 6001) && !is_outgoing("", 6001));
    }
}
