//! Newtypes for the identities that travel through the agent, so that a container id can't be passed
//! where a kernel id is meant, and no text becomes a path before it was checked.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A kernel's id: a UUID in its hyphenated form, as the manager makes it.
///
/// Anything else is refused at the door (PROTOCOL section 12, item 14): the id names a directory below the
/// scratch root and a container, and text that was never checked must reach neither.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId(Uuid);

/// The text was not a UUID with dashes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel_id must be a UUID with dashes, not {given:?}")]
pub struct BadKernelId {
    given: String,
}

impl KernelId {
    /// A new random id; only clients and tests make kernels up, the agent is told.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for KernelId {
    type Err = BadKernelId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `Uuid::try_parse` also takes braces, URNs and the form without dashes.
        if text.len() == 36
            && let Ok(uuid) = Uuid::try_parse(text)
        {
            return Ok(Self(uuid));
        }
        let given = text.chars().take(64).collect();
        Err(BadKernelId { given })
    }
}

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// Docker's id of a container: 64 hex digits.
    ContainerId
}
text_id! {
    /// The id of one run, given by the client or made up here; empty only for [a run whose id nobody knows](RunId::unnamed).
    RunId
}
text_id! {
    /// This agent's name in etcd and in every event: `i-{hostname}`, the cloud's own id, or `--instance-id`.
    InstanceId
}

impl ContainerId {
    /// The first 12 digits, as Docker's own tools show it; for log lines.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl RunId {
    /// Of a run that an agent began which left no note of it. No caller can name it so.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self(String::new())
    }

    /// Whether it is the id of such a run.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }

    /// 32 random hex digits, for a caller that gave none (PROTOCOL section 8).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().as_simple().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_id_is_a_uuid_with_dashes_and_nothing_else() {
        let text = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10";
        let id: KernelId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse::<KernelId>().unwrap(), id);
        for bad in
            ["", "/", "..", "0b9e1d3a1f0c4a529a430c7a6f3b2f10", "{0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10}"]
        {
            assert!(bad.parse::<KernelId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_made_up_run_id_has_32_hex_digits() {
        let id = RunId::random();
        assert_eq!(id.as_str().len(), 32);
        assert!(id.as_str().chars().all(|c| c.is_ascii_hexdigit()));
    }
}
