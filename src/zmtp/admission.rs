//! Which addresses may call. Pure: who keeps it up to date is the business of the port's owner.
//!
//! The wire can't carry a password, so the address that a connection comes from is all that is known of a caller, and
//! it is looked at before a byte of the caller's is.

use std::fmt;
use std::net::IpAddr;

use crate::address::Network;

/// Who is let in. By default nobody but this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Addresses whose programs are trusted.
    pub callers: Vec<IpAddr>,
    /// Networks that the operator trusts.
    pub trusted: Vec<Network>,
    /// Networks of containers on this machine. What calls from there is nobody's, whatever else is allowed.
    pub containers: Vec<Network>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It calls from a container's address.
    Container,
    /// It is none of those that are let in.
    Stranger,
    /// It has as many connections as one address may have.
    TooMany,
}

impl Admission {
    /// Whether a connection from `from`, which came in at this machine's address `at`, is let in.
    ///
    /// A program of this machine calls from the address that it calls, or from loopback. A container has an address of
    /// its own, and so has what calls through a machine that translates addresses.
    pub fn admit(&self, from: IpAddr, at: IpAddr) -> Result<(), Refused> {
        let (from, at) = (from.to_canonical(), at.to_canonical());
        if from.is_loopback() {
            return Ok(());
        }
        if self.containers.iter().any(|network| network.contains(from)) {
            return Err(Refused::Container);
        }
        let is_known = from == at
            || self.callers.iter().any(|caller| caller.to_canonical() == from)
            || self.trusted.iter().any(|network| network.contains(from));
        if is_known { Ok(()) } else { Err(Refused::Stranger) }
    }
}

impl fmt::Display for Refused {
    /// What an operator should do if the caller is somebody who should be let in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => {
                "it calls from a Docker network of this machine, where users' code may run; a manager in a container \
                 has to use the host's network"
            }
            Self::Stranger => {
                "it is neither this machine nor the manager's host as etcd names it; if it is the manager (it may have \
                 several addresses, or call through a gateway), set --trusted-peers to its address or network"
            }
            Self::TooMany => "it has as many connections as one address may have; it should close those that it does not use",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_manager_this_machine_and_trusted_networks_are_let_in() {
        let admission = Admission {
            callers: vec![ip("10.0.0.1"), ip("fd00::1")],
            trusted: networks(&["192.168.0.0/16"]),
            containers: networks(&["172.17.0.0/16"]),
        };
        let here = ip("10.0.0.9");
        for from in ["127.0.0.1", "127.8.8.8", "::1", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "192.168.7.7"]
        {
            assert_eq!(admission.admit(ip(from), here), Ok(()), "{from}");
        }
        assert_eq!(admission.admit(here, here), Ok(()), "this machine at its own address");
        for from in ["10.0.0.2", "8.8.8.8", "fd00::2", "0.0.0.0"] {
            assert_eq!(admission.admit(ip(from), here), Err(Refused::Stranger), "{from}");
        }
        assert_eq!(Admission::default().admit(ip("10.0.0.1"), here), Err(Refused::Stranger));
    }

    #[test]
    fn containers_never_are_whatever_else_is_allowed() {
        let admission = Admission {
            callers: vec![ip("172.17.0.5")],
            trusted: networks(&["0.0.0.0/0", "::/0"]),
            containers: networks(&["172.17.0.0/16", "fd01::/64"]),
        };
        for from in ["172.17.0.5", "::ffff:172.17.0.5", "172.17.0.1", "fd01::2"] {
            assert_eq!(admission.admit(ip(from), ip("172.17.0.1")), Err(Refused::Container), "{from}");
        }
        assert_eq!(admission.admit(ip("8.8.8.8"), ip("172.17.0.1")), Ok(()));
    }
}
