//! What a socket may cost, and how long it waits for what.

use std::time::Duration;

use super::ZmqError;
use super::endpoint::Host;

const MIB: usize = 1024 * 1024;

/// The settings of one socket; start from one of the constructors.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of one message. A peer that announces a larger frame is disconnected before any memory
    /// is taken; a message whose frames are larger together is dropped, but only after libzmq has held all of
    /// it (`inbox.rs`).
    pub max_message: usize,
    /// How many messages wait to be sent, for each peer, before sending waits in turn.
    pub send_hwm: i32,
    /// How many received messages wait to be read, for each peer, before its TCP connection is no longer read.
    /// Memory then holds about this many messages and one in the making. Short queues cost speed with small
    /// messages: measured with 50 bytes, 4 gives a sixth of the rate of 1000, 16 two fifths, 32 more than half.
    pub recv_hwm: i32,
    /// How long a peer may take to connect, and again to finish the ZeroMQ greeting.
    pub handshake: Duration,
    /// The pause before the first new attempt to connect; doubles from there.
    pub reconnect_min: Duration,
    /// The longest pause between attempts.
    pub reconnect_max: Duration,
    /// For how long libzmq goes on sending what is queued after the socket was dropped; zero in all constructors.
    pub linger: Duration,
}

impl Limits {
    /// The RPC router. Every call brings its own connection, so the queues are short. An upload comes in one message, and
    /// a large one must not cut the connection off.
    #[must_use]
    pub fn server() -> Self {
        Self {
            max_message: 512 * MIB,
            send_hwm: 64,
            recv_hwm: 64,
            handshake: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(2),
            linger: Duration::ZERO,
        }
    }

    /// A client of an agent's RPC router.
    #[must_use]
    pub fn client() -> Self {
        Self { max_message: 128 * MIB, ..Self::server() }
    }

    /// Sets everything on a new socket. libzmq reads most of it when binding or connecting, hence before.
    pub(super) fn apply(&self, socket: &zmq::Socket, endpoint: &str, host: Host) -> Result<(), ZmqError> {
        let set = |option: &'static str, result: zmq::Result<()>| {
            result.map_err(|source| ZmqError::Option { endpoint: endpoint.to_owned(), option, source })
        };
        let largest = i64::try_from(self.max_message).unwrap_or(i64::MAX);
        set("ZMQ_MAXMSGSIZE", socket.set_maxmsgsize(largest))?;
        // Zero would mean no limit at all.
        set("ZMQ_SNDHWM", socket.set_sndhwm(self.send_hwm.max(1)))?;
        set("ZMQ_RCVHWM", socket.set_rcvhwm(self.recv_hwm.max(1)))?;
        set("ZMQ_HANDSHAKE_IVL", socket.set_handshake_ivl(millis(self.handshake)))?;
        set("ZMQ_CONNECT_TIMEOUT", socket.set_connect_timeout(millis(self.handshake)))?;
        set("ZMQ_RECONNECT_IVL", socket.set_reconnect_ivl(millis(self.reconnect_min).max(1)))?;
        set("ZMQ_RECONNECT_IVL_MAX", socket.set_reconnect_ivl_max(millis(self.reconnect_max)))?;
        set("ZMQ_LINGER", socket.set_linger(millis(self.linger)))?;
        set("ZMQ_TCP_KEEPALIVE", socket.set_tcp_keepalive(1))?;
        set("ZMQ_TCP_KEEPALIVE_IDLE", socket.set_tcp_keepalive_idle(60))?;
        set("ZMQ_TCP_KEEPALIVE_INTVL", socket.set_tcp_keepalive_intvl(15))?;
        set("ZMQ_TCP_KEEPALIVE_CNT", socket.set_tcp_keepalive_cnt(4))?;
        if host == Host::V6 {
            set("ZMQ_IPV6", socket.set_ipv6(true))?;
        }
        Ok(())
    }
}

/// libzmq's milliseconds; never its -1, which would mean for ever.
fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
