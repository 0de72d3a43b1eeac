//! Another machine: a network namespace at the other end of a wire (a veth pair).
//!
//! Its addresses are of the range for benchmarks (198.19.0.0/16) that no network uses; nothing leaves the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use super::ports::Port;
use super::process::Process;

/// The other machine; gone when dropped.
pub(crate) struct Machine {
    name: String,
    wire: String,
    /// Of this machine on the wire.
    here: Ipv4Addr,
    /// Of the other.
    there: Ipv4Addr,
    _number: Port,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let number = Port::lease();
        let n = number.number();
        // Networks of four addresses.
        let base = u32::from(Ipv4Addr::new(198, 19, 0, 0)) + u32::from(n - 20_000) * 4;
        let [here, there] = [base + 1, base + 2].map(Ipv4Addr::from);
        let machine =
            Self { name: format!("bai-it-{n}"), wire: format!("bai-w-{n}"), here, there, _number: number };
        machine.remove();
        let Self { name, wire, .. } = &machine;
        for line in [
            format!("netns add {name}"),
            format!("link add {wire} type veth peer name eth0 netns {name}"),
            format!("addr add {here}/30 dev {wire}"),
            format!("link set {wire} up"),
            format!("-n {name} addr add {there}/30 dev eth0"),
            format!("-n {name} link set lo up"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {here}"),
        ] {
            let made = Command::new("ip").args(line.split(' ')).output().unwrap();
            assert!(made.status.success(), "ip {line}: {made:?}");
        }
        machine
    }

    /// This machine's address, as the other knows it.
    pub(crate) fn here(&self) -> IpAddr {
        self.here.into()
    }

    /// The other machine's address.
    pub(crate) fn there(&self) -> IpAddr {
        self.there.into()
    }

    /// Runs Python there, to be killed when dropped.
    pub(crate) fn python(&self, code: &str, log: &Path) -> Process {
        let line = ["ip", "netns", "exec", &self.name, "python3", "-u", "-c", code];
        Process::spawn("a program elsewhere", &line.map(str::to_owned), &[], log)
    }

    fn remove(&self) {
        for line in [format!("netns del {}", self.name), format!("link del {}", self.wire)] {
            let _ = Command::new("ip").args(line.split(' ')).output();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.remove();
    }
}
