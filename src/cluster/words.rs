//! What etcd's client says of a failure, in words for an operator. Pure.
//!
//! The client's own text has the cause as Rust's programmers see it, types and braces included.

use std::error::Error;

/// The server's own words, or the connection's, and the cause at the bottom of them.
pub(super) fn in_words(error: &etcd_client::Error) -> String {
    let (text, cause) = match error {
        etcd_client::Error::GRpcStatus(status) => {
            let text = match status.message() {
                "" => status.code().to_string(),
                message => message.to_owned(),
            };
            (text, bottom(status))
        }
        etcd_client::Error::TransportError(error) => (error.to_string(), bottom(error)),
        other => (other.to_string(), None),
    };
    match cause {
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text,
    }
}

/// The first of all causes, if there is one.
fn bottom(error: &dyn Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}
