//! ZeroMQ sockets over tokio: libzmq does the protocol in its own I/O thread, this room makes its sockets
//! awaitable, bounded and safe to cancel.
//!
//! - [`Context`] owns the libzmq contexts; [`Limits`] says how much a peer may cost us.
//! - [`Router`], [`Dealer`] and [`Pull`] (and, as a peer for tests, a PUSH) each wrap one libzmq socket and one task owns each. No task
//!   and no thread is started here; the only exception is the short-lived thread in which a libzmq context
//!   ends, because that call blocks (`engine.rs`).
//! - How a socket waits without missing a wake-up is explained in `socket.rs`, and only there.
//! - Waiting on every method here may be cancelled: a message is taken or handed over whole, in one poll.
//!
//! What ZeroMQ does not promise, this room does not either: a message that was accepted is lost
//! when its connection breaks before the bytes are out. Events, of which none may be lost, go another way
//! (`events/line.rs`). Nor do runners speak through here: libzmq holds a message without end, and code in a container
//! can send one (`runner/intake.rs`, `runner/outlet.rs`).
//!
//! Binding and connecting need a running tokio runtime and panic outside of one, as tokio's own sockets do.

mod context;
mod dealer;
mod departures;
mod endpoint;
mod engine;
mod error;
mod inbox;
mod keepalive;
mod limits;
mod pull;
#[cfg(test)]
mod push;
mod router;
mod socket;
#[cfg(test)]
mod tests;

pub use context::Context;
pub use dealer::Dealer;
pub use departures::Peer;
pub use endpoint::BadEndpoint;
pub use error::ZmqError;
pub use keepalive::keep_alive;
pub use limits::Limits;
pub use pull::Pull;
#[cfg(test)]
pub use push::Push;
pub use router::{Delivery, Heard, Router};

/// One ZeroMQ message: its frames in order, never empty when it was received.
pub type Multipart = Vec<bytes::Bytes>;
