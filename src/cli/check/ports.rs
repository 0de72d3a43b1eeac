//! Whether the ports that the agent listens on can be had.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::finding::{Finding, Verdict};
use crate::address::{HostPort, called_at};
use crate::agent::config::Config;
use crate::client::{Client, serves_page};

/// How long an agent that has the port may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// The ports that the system gives to connections that go out.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let rpc = SocketAddr::from((config.rpc_listen, config.agent_port));
    let mut found =
        vec![match listens("RPC port", &config.agent_port.to_string(), rpc, "give another --agent-port") {
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
        let what = "port for monitoring";
        let remedy = "choose another address of this machine with --metrics-addr";
        found.push(match listens(what, &addr.to_string(), addr, remedy) {
            taken if taken.verdict == Verdict::Bad && serves_page(called(addr), LIMIT).await => {
                Finding::good(what, addr, "an agent serves here already")
            }
            found => found,
        });
    }
    found
}

/// Whether the port is taken by an agent: a node that is looked at while it works is no fault.
async fn an_agent_answers(at: SocketAddr) -> bool {
    let Ok(address) = called(at).to_string().parse::<HostPort>() else { return false };
    let client = Client::new(address, Some(LIMIT));
    client.call("ping", vec!["check".into()]).await.is_ok_and(|answer| answer.as_str() == Some("check"))
}

/// The address at which this machine calls what listens there.
fn called(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(called_at(at.ip()), at.port())
}

fn listens(what: &'static str, at: &str, addr: SocketAddr, remedy: &str) -> Finding {
    match TcpListener::bind(addr) {
        Ok(_) => Finding::good(what, at, "free"),
        Err(error) => Finding::bad(what, at, &error, with_cause(error.kind(), remedy)),
    }
}

/// What to do about a port that can't be had.
fn with_cause(kind: ErrorKind, remedy: &str) -> String {
    match kind {
        ErrorKind::AddrInUse => {
            format!("another program has it: stop that (`ss -ltnp` shows it), or {remedy}")
        }
        ErrorKind::PermissionDenied => format!("low ports are for root alone: {remedy}"),
        ErrorKind::AddrNotAvailable => format!("no interface of this machine has that address: {remedy}"),
        _ => remedy.to_owned(),
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
    fn the_remedy_goes_with_the_cause() {
        let remedy = |kind| with_cause(kind, "give another --agent-port");
        assert!(remedy(ErrorKind::AddrInUse).starts_with("another program has it"));
        assert_eq!(
            remedy(ErrorKind::PermissionDenied),
            "low ports are for root alone: give another --agent-port"
        );
        assert!(remedy(ErrorKind::AddrNotAvailable).starts_with("no interface"));
    }

    #[test]
    fn ports_of_outgoing_connections_are_known() {
        assert!(is_outgoing("32768\t60999\n", 40000) && is_outgoing("32768\t60999\n", 60999));
        assert!(!is_outgoing("32768\t60999\n", 6001) && !is_outgoing("", 6001));
    }
}
