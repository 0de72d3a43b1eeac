//! Networks as operators write them: `10.0.0.0/8`, `fd00::/8`, or one address. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// All addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

/// The text was no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; right would be 10.0.0.0/8, fd00::/8 or one address such as 10.0.0.5")]
pub struct BadNetwork(String);

impl Network {
    /// Whether the address is one of these. An IPv4 address in the clothes of IPv6 (`::ffff:10.0.0.5`) is IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }
}

impl From<IpAddr> for Network {
    /// The network of this address alone.
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    /// Bits behind the prefix are forgiven: `10.0.0.5/8` is `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let bad = |_| BadNetwork(text.chars().take(64).collect());
        text.parse().map(|network: IpNet| Self(network.trunc())).map_err(bad)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses() {
        for (text, shown, inside, outside) in [
            ("10.0.0.0/8", "10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
            ("10.1.2.3/16", "10.1.0.0/16", "::ffff:10.1.9.9", "::1"),
            (" 10.0.0.5 ", "10.0.0.5/32", "10.0.0.5", "10.0.0.6"),
            ("fd00::/8", "fd00::/8", "fd12::1", "fe80::1"),
            ("::ffff:10.0.0.5", "10.0.0.5/32", "10.0.0.5", "10.0.0.4"),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), shown);
            assert!(network.contains(inside.parse().unwrap()), "{text}: {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}: {outside}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "manager.lan", "10.0.0.0/8,11.0.0.0/8", &"x".repeat(500)] {
            let error = bad.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("right would be") && error.len() < 200, "{error}");
        }
    }
}
