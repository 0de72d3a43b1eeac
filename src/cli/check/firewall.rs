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

pub(super) async fn look(docker: &Docker, network: Option<&str>) -> Vec<Finding> {
    let mut found = vec![kernels_network(docker, network).await];
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

/// What kernels reach of each other and of this machine.
async fn kernels_network(docker: &Docker, network: Option<&str>) -> Finding {
    let what = "kernels' network";
    let Some(name) = network else {
        let has_tool = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| dir.join("iptables-restore").exists())
        });
        return if has_tool {
            Finding::good(what, "", "the agent's own, shut off from this machine")
        } else {
            Finding::doubtful(
                what,
                "",
                "the agent's own, but nothing shuts this machine and the cluster's services off from it",
                "install the package iptables",
            )
        };
    };
    match docker.network(name).await {
        Ok(Some(found)) if found.is_open => Finding::doubtful(
            what,
            name,
            "kernels reach each other's ports that take code, and this machine's services",
            "leave --kernel-network out: they get a network of their own",
        ),
        Ok(Some(_)) => Finding::good(what, name, "kernels don't reach each other"),
        Ok(None) => Finding::bad(
            what,
            name,
            "Docker has no network of that name",
            "make it, or leave --kernel-network out",
        ),
        Err(error) => Finding::doubtful(what, name, error.to_string(), "see what is said of Docker"),
    }
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
