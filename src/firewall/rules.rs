//! The rules, as `iptables-restore` reads them. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::address::Network;

/// Where clouds tell programs of a machine who they are, keys included: the link-local network (Amazon, Google, Azure,
/// Oracle and others), Azure's wire server, Alibaba. Some of them are name servers as well.
const METADATA: [&str; 3] = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"];

/// The port of name servers.
const DNS: u16 = 53;

/// One service that is not for kernels, on another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Its machine.
    pub host: IpAddr,
    /// Its TCP port.
    pub port: u16,
}

/// Everything that the containers of one bridge may not reach. IPv4 only: their network has no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The bridge, which is also the chain's name.
    pub bridge: String,
    /// The addresses of the bridge's containers.
    pub subnets: Vec<Network>,
    /// Services of the cluster; those on this machine are out of reach anyway.
    pub services: Vec<Service>,
    /// The port of agents, here and on other machines: one that runs beside the manager would be taken for it.
    pub agent_port: u16,
}

impl Fence {
    /// The chain, filled anew in one step; what jumps to it is left as it is.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = format!("*mangle\n:{} - [0:0]\n", self.bridge);
        let mut rule = |condition: &str, verdict: &str| {
            let _ = writeln!(text, "-A {} {condition} -j {verdict}", self.bridge);
        };
        // Answers: the agent and terminals of users connect to containers, never the other way round.
        rule("-m conntrack --ctstate RELATED,ESTABLISHED", "RETURN");
        // A name server on this machine is the one thing of it that kernels need.
        for protocol in ["udp", "tcp"] {
            rule(&format!("-p {protocol} --dport {DNS} -m addrtype --dst-type LOCAL"), "RETURN");
        }
        // This machine, at whatever address: its services, and ports that Docker publishes for other kernels.
        for kind in ["LOCAL", "BROADCAST", "MULTICAST"] {
            rule(&format!("-m addrtype --dst-type {kind}"), "DROP");
        }
        for subnet in self.subnets.iter().filter(|subnet| subnet.is_v4()) {
            rule(&format!("-d {subnet}"), "DROP");
        }
        for network in METADATA {
            for protocol in ["udp", "tcp"] {
                rule(&format!("-d {network} -p {protocol} --dport {DNS}"), "RETURN");
            }
            rule(&format!("-d {network}"), "DROP");
        }
        for Service { host, port } in self.services.iter().filter(|service| service.host.is_ipv4()) {
            rule(&format!("-d {host}/32 -p tcp --dport {port}"), "DROP");
        }
        rule(&format!("-p tcp --dport {}", self.agent_port), "DROP");
        text + "COMMIT\n"
    }

    /// What leads from the hook into the chain.
    #[must_use]
    pub fn jump(bridge: &str) -> [&str; 5] {
        ["PREROUTING", "-i", bridge, "-j", bridge]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_names_pass_and_the_machine_and_the_cluster_do_not() {
        let fence = Fence {
            bridge: "bai-12345678".into(),
            subnets: vec!["172.18.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()],
            services: vec![
                Service { host: "10.0.0.1".parse().unwrap(), port: 2379 },
                Service { host: "fd00::1".parse().unwrap(), port: 2379 },
            ],
            agent_port: 6001,
        };
        let text = fence.chain();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "*mangle",
                ":bai-12345678 - [0:0]",
                "-A bai-12345678 -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
            ]
        );
        assert_eq!(*lines.last().unwrap(), "COMMIT");
        let at = |part: &str| {
            lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {text}"))
        };
        assert!(
            at("-p udp --dport 53 -m addrtype --dst-type LOCAL -j RETURN") < at("--dst-type LOCAL -j DROP")
        );
        assert!(at("-d 169.254.0.0/16 -p udp --dport 53 -j RETURN") < at("-d 169.254.0.0/16 -j DROP"));
        for line in [
            "-d 172.18.0.0/16 -j DROP",
            "-d 10.0.0.1/32 -p tcp --dport 2379 -j DROP",
            "-p tcp --dport 6001 -j DROP",
        ] {
            at(line);
        }
        assert!(!text.contains("fd00"), "an address of the other family would make all of it fail: {text}");
        assert_eq!(Fence::jump("bai-1").join(" "), "PREROUTING -i bai-1 -j bai-1");
    }
}
