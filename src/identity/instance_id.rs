//! What can be an instance id: part of a key in etcd, of events and of log lines. Pure.

use crate::ids::InstanceId;

/// The longest instance id that is taken, in bytes.
pub(super) const LONGEST_ID: usize = 128;

/// Text that can't be an instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInstanceId {
    /// There is no text.
    #[error("the instance id is empty; give a name such as i-worker1")]
    Empty,
    /// The id is part of keys in etcd, where a slash separates, and of log lines.
    #[error(
        "the instance id {given:?} holds {found:?}; give a name without slashes, spaces or control characters"
    )]
    Character {
        /// The text, cut at 64 characters.
        given: String,
        /// The first character of it that is not allowed.
        found: char,
    },
    /// Nobody means such a text as a name.
    #[error("the instance id has {length} bytes; give a name of at most {LONGEST_ID}")]
    Long {
        /// The length of the id in bytes.
        length: usize,
    },
}

/// Takes a text as an instance id if it can be part of a key in etcd and of an event.
pub fn check_instance_id(text: &str) -> Result<InstanceId, BadInstanceId> {
    if text.is_empty() {
        return Err(BadInstanceId::Empty);
    }
    if let Some(found) = text.chars().find(|c| is_unfit(*c)) {
        return Err(BadInstanceId::Character { given: text.chars().take(64).collect(), found });
    }
    if text.len() > LONGEST_ID {
        return Err(BadInstanceId::Long { length: text.len() });
    }
    Ok(InstanceId::new(text))
}

/// Whether no instance id may hold it.
pub(super) fn is_unfit(c: char) -> bool {
    c == '/' || c.is_whitespace() || c.is_control()
}
