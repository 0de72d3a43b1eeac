//! ZMTP, the wire protocol of ZeroMQ, over tokio: the RPC server (ROUTER), its clients (DEALER), events (PUSH) and both
//! ends of a kernel's runner (PUSH and PULL).
//!
//! Why not a library: libzmq holds a message without end until memory is out and has no option against it, and does not
//! say what became of a message; ARCHITECTURE.md says what speaks against the others.
//!
//! - [`frame`], [`hello`], [`inbox`]: pure; bytes to messages and back, with [`Caps`] on all that a peer decides
//! - [`connection`]: one connection, past its handshake
//! - [`redial`]: one that is made again; [`listener`]: many that peers make; [`budget`]: what these hold together
//! - [`admission`]: pure; from which addresses peers may call
//! - [`pull`]: a PULL that listens
//!
//! What libzmq does with a PING, by its version, and why [`frame::probe`] carries the MORE flag:
//!
//! - 4.2 and newer answer it with a PONG from the thread that reads the connection. It takes frames in their order, so
//!   the PONG proves that every message before the PING is in the peer's hands. (Before 4.3 the PONG lacks the context.)
//! - 4.1 and older take commands for messages. A PING would reach the application, and the manager's receiver dies of
//!   a message that isn't three frames. With MORE it is the beginning of a message whose end never comes, which no
//!   application sees and which is undone when the connection closes.
//! - From 4.3.3 on a peer says in its greeting that it knows PING ([`PeerInfo::minor`]); older ones say the same,
//!   whether they do or not.

pub mod admission;
pub mod budget;
pub mod connection;
pub mod frame;
#[cfg(feature = "rooms")]
pub mod fuzz;
pub mod hello;
pub mod inbox;
pub mod listener;
pub mod pull;
pub mod redial;
mod shares;

pub use admission::{Admission, Refused};
pub use budget::{Budget, Held};
pub use connection::{Connection, Event, KeepAlive, Trouble};
pub use hello::{Kind, PeerInfo};
pub use inbox::{Caps, Message};
pub use listener::{Incoming, ListenError, Listener};
pub use pull::Pull;
pub use redial::Redial;

/// One message to be sent: its frames in order, at least one.
pub type Multipart = Vec<bytes::Bytes>;
