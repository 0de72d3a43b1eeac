//! What lets packets through: to the agent, to kernels, and between kernels.

use std::fs;

use super::finding::Finding;
use crate::docker::Docker;

/// Whether the system passes packets on, as Docker's published ports need.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Ubuntu's firewall says here whether it is on.
const UFW: &str = "/etc/ufw/ufw.conf";

/// `firewalld` has this while it runs.
const FIREWALLD: &str = "/run/firewalld";

pub(super) async fn look(docker: &Docker) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Ok(reach) = docker.containers_reach_each_other().await {
        found.push(if reach {
            Finding::doubtful(
                "kernels' network",
                "",
                "kernels reach each other's ports that take code",
                "where users don't trust each other, set \"icc\": false in /etc/docker/daemon.json",
            )
        } else {
            Finding::good("kernels' network", "", "kernels don't reach each other")
        });
    }
    if fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "0") {
        found.push(Finding::doubtful(
            "forwarding",
            FORWARD,
            "off: nobody reaches the ports of kernels from elsewhere",
            "sysctl -w net.ipv4.ip_forward=1, or start Docker again, which sets it",
        ));
    }
    let ufw = fs::read_to_string(UFW).unwrap_or_default();
    found.push(match guard(&ufw, fs::exists(FIREWALLD).unwrap_or(false)) {
        Some(name) => Finding::doubtful(
            "firewall",
            "",
            format!("{name} is on"),
            "let the manager reach the RPC port, and users the ports of kernels",
        ),
        None => Finding::good("firewall", "", "neither ufw nor firewalld is on"),
    });
    found
}

/// Which firewall is on, if one of the common ones is.
fn guard(ufw: &str, firewalld: bool) -> Option<&'static str> {
    let ufw_is_on = ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("enabled=yes"));
    match (ufw_is_on, firewalld) {
        (true, _) => Some("ufw"),
        (false, true) => Some("firewalld"),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_firewalls_are_known() {
        assert_eq!(guard("# comment\nENABLED=yes\n", false), Some("ufw"));
        assert_eq!(guard("ENABLED=no\n", true), Some("firewalld"));
        assert_eq!(guard("", false), None);
    }
}
