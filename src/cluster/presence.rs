//! What this agent says of itself in etcd (PROTOCOL sections 1 and 10). Pure.

use std::fmt;

use super::keys::Keys;

/// What `nodes/agents/{instance id}` is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// The agent exists and is not ready yet.
    Starting,
    /// The agent serves.
    Running {
        /// The host that it reports to the manager.
        ip: String,
    },
}

/// This agent's two keys as they are in etcd; `None` where the key is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// `nodes/agents/{instance id}`.
    pub(super) state: Option<Vec<u8>>,
    /// `nodes/agents/{instance id}/ip`.
    pub(super) ip: Option<Vec<u8>>,
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Running { ip } => write!(f, "running at {ip}"),
        }
    }
}

impl Presence {
    /// The puts that make etcd say this, in order: whoever sees `running` finds the address there too. Empty
    /// if etcd says it already.
    ///
    /// `starting` leaves the address of an earlier life alone; `running` will set it right.
    pub(super) fn repairs(&self, seen: &Seen, keys: &Keys) -> Vec<(String, String)> {
        let mut puts = Vec::new();
        let state = match self {
            Self::Starting => "starting",
            Self::Running { ip } => {
                if seen.ip.as_deref() != Some(ip.as_bytes()) {
                    puts.push((keys.agent_ip(), ip.clone()));
                }
                "running"
            }
        };
        if seen.state.as_deref() != Some(state.as_bytes()) {
            puts.push((keys.agent_state(), state.to_owned()));
        }
        puts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;

    fn check(presence: &Presence, state: Option<&str>, ip: Option<&str>, expected: &[(&str, &str)]) {
        let keys = Keys::new("local", &InstanceId::new("i-a"));
        let bytes = |text: &str| text.as_bytes().to_vec();
        let seen = Seen { state: state.map(bytes), ip: ip.map(bytes) };
        let puts = presence.repairs(&seen, &keys);
        let root = "/sorna/local/nodes/agents/i-a";
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| (format!("{root}{key}"), (*value).to_owned())).collect();
        assert_eq!(puts, expected);
    }

    #[test]
    fn only_what_is_wrong_is_put_and_the_address_goes_first() {
        let running = Presence::Running { ip: "10.0.0.7".into() };
        check(&Presence::Starting, None, None, &[("", "starting")]);
        check(&Presence::Starting, Some("running"), Some("old"), &[("", "starting")]);
        check(&Presence::Starting, Some("starting"), None, &[]);
        check(&running, None, None, &[("/ip", "10.0.0.7"), ("", "running")]);
        check(&running, Some("starting"), Some("10.0.0.7"), &[("", "running")]);
        check(&running, Some("running"), Some("10.0.0.8"), &[("/ip", "10.0.0.7")]);
        check(&running, Some("running"), Some("10.0.0.7"), &[]);
    }
}
