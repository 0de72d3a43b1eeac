//! What can go wrong with a socket: one variant per step, with the endpoint it happened on.

use super::endpoint::BadEndpoint;

/// A socket could not be made, or failed for good.
///
/// A peer that is away, slow or talks nonsense is no error: libzmq reconnects, and drops what it can't read.
#[derive(Debug, thiserror::Error)]
pub enum ZmqError {
    /// The endpoint's text is unusable.
    #[error("{endpoint:?} is not a ZeroMQ endpoint: {source}")]
    Endpoint {
        /// The text as it was given, shortened.
        endpoint: String,
        /// What is wrong with it.
        source: BadEndpoint,
    },
    /// libzmq made no context or no socket.
    #[error(
        "could not create a ZeroMQ socket for {endpoint}: {source}; if this says \"too many open files\", \
         raise the limit (LimitNOFILE= in the systemd unit, or ulimit -n)"
    )]
    Create {
        /// What the socket was meant for.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// libzmq refused a setting from [`Limits`](super::Limits).
    #[error("ZeroMQ refused the setting {option} for {endpoint}: {source}")]
    Option {
        /// What the socket was meant for.
        endpoint: String,
        /// The setting's name in libzmq's manual.
        option: &'static str,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// Another process listens there already.
    #[error(
        "could not listen on {endpoint}: the port is taken; stop the other program (`ss -ltnp` shows it; \
         perhaps a second agent) or choose another port"
    )]
    AddressInUse {
        /// Where we wanted to listen.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// The address is not one of this machine's.
    #[error("could not listen on {endpoint}: no interface of this machine has that address")]
    AddressNotHere {
        /// Where we wanted to listen.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// Listening failed for any other reason.
    #[error("could not listen on {endpoint}: {source}; ports below 1024 need privileges")]
    Bind {
        /// Where we wanted to listen.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// The connection could not even be set up; a peer that does not answer is not an error.
    #[error("could not set up a connection to {endpoint}: {source}")]
    Connect {
        /// Where we wanted to connect.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// The runtime could not watch the socket, or stopped watching it.
    #[error("could not wait for the ZeroMQ socket of {endpoint}: {source}; is the runtime shutting down?")]
    Watch {
        /// The socket's endpoint.
        endpoint: String,
        /// The runtime's reason.
        source: std::io::Error,
    },
    /// libzmq could not say what the socket is ready for, or which port it got.
    #[error("could not query the ZeroMQ socket of {endpoint}: {source}")]
    Query {
        /// The socket's endpoint.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// Receiving failed for good.
    #[error("could not receive from {endpoint}: {source}")]
    Receive {
        /// The socket's endpoint.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// Sending failed for good; nothing of the message was sent.
    #[error("could not send to {endpoint}: {source}")]
    Send {
        /// The socket's endpoint.
        endpoint: String,
        /// libzmq's reason.
        source: zmq::Error,
    },
    /// The message has too few frames to be sent on this kind of socket.
    #[error("a message of {frames} frame(s) can't be sent to {endpoint}: at least {needed} are needed")]
    TooFewFrames {
        /// The socket's endpoint.
        endpoint: String,
        /// How many the message had.
        frames: usize,
        /// One, or on a router two: the routing id and something to send.
        needed: usize,
    },
}

impl ZmqError {
    /// Sorts libzmq's reasons for a failed bind.
    pub(super) fn bind(endpoint: &str, source: zmq::Error) -> Self {
        let endpoint = endpoint.to_owned();
        match source {
            zmq::Error::EADDRINUSE => Self::AddressInUse { endpoint, source },
            // ENODEV: the host is neither an address nor the name of an interface.
            zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV => Self::AddressNotHere { endpoint, source },
            _ => Self::Bind { endpoint, source },
        }
    }
}
