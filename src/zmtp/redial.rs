//! A connection that is made again for as long as its owner lives.
//!
//! Until the first contact the other side is expected to be starting, and is tried often: a new kernel's runner refuses
//! connections for as long as its interpreter takes to start. Afterwards failures in a row make the pauses longer, and longer
//! still while nobody comes.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep;

use super::connection::{Connection, Event, KeepAlive, Trouble};
use super::frame;
use super::hello::Kind;
use super::inbox::{Caps, Message};
use crate::patience::{Backoff, Tally};

/// The pause between attempts before the first contact,
const EAGER: Duration = Duration::from_millis(25);
/// for so long.
const EAGERNESS: Duration = Duration::from_secs(20);
/// The pauses after failures otherwise,
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// and when the other side is away for so long, one part in [`SHARE`] of that time, up to a limit: kernels whose images have no
/// runner are there for days, and a node has many.
const LONG: Duration = Duration::from_secs(40);
const SHARE: u32 = 20;
const LONGEST: Duration = Duration::from_secs(10);

/// A firewall that forgot a connection (too many of them, or its tables were flushed) takes what the other side sends for an
/// attempt to connect from there, and drops it, until this side says something; a receiving end never does. So TCP probes it
/// soon, and for long: what is on its way is lost with a connection that is given up.
const KEEP: KeepAlive = KeepAlive {
    idle: Duration::from_secs(5),
    every: Duration::from_secs(5),
    times: 24,
    unacknowledged: None,
};

/// One end of a connection that is made again.
pub struct Redial {
    /// `host:port`.
    address: String,
    own: Kind,
    caps: Caps,
    state: State,
    pace: Pace,
    /// Whether the message that is being sent was put.
    put: bool,
    /// Whether a connection that stood was lost, and nobody has asked since.
    broke: bool,
}

/// What goes on lives here and not in a call's stack, so that a call can be cancelled anywhere.
enum State {
    /// An attempt to connect, with the pause before it.
    Opening(Pin<Box<dyn Future<Output = Result<Connection, Trouble>> + Send>>),
    Open(Box<Connection>),
}

impl Redial {
    /// Connects to `host:port` as a socket of kind `own` once it is first asked for something.
    #[must_use]
    pub fn new(address: String, own: Kind, caps: Caps) -> Self {
        let state = opening(&address, own, caps, Duration::ZERO);
        Self { address, own, caps, state, pace: Pace::new(Instant::now()), put: false, broke: false }
    }

    /// Waits for the next message, through the connection that stands or one attempt at another. An error says how
    /// that ended; the next call goes on with a new connection, after a pause. May be cancelled.
    pub async fn recv(&mut self) -> Result<Message, Trouble> {
        let received = match self.connection().await {
            Ok(connection) => connection.recv().await,
            Err(trouble) => Err(trouble),
        };
        received.map_err(|trouble| self.lost(trouble))
    }

    /// Sends a message in the same way. May be cancelled, and is then, as after an error, called again with the same
    /// message, which goes on where it was or begins anew over another connection. As from any PUSH, what was written
    /// and not read is lost with its connection.
    pub async fn send(&mut self, message: &[Bytes]) -> Result<(), Trouble> {
        let sent = self.try_send(message).await;
        if sent.is_ok() {
            self.put = false;
        }
        sent.map_err(|trouble| self.lost(trouble))
    }

    /// Waits for a connection, by one attempt at it if there is none, and in the same way.
    pub async fn ready(&mut self) -> Result<(), Trouble> {
        let opened = self.connection().await.map(drop);
        opened.map_err(|trouble| self.lost(trouble))
    }

    /// Closes this side of the connection that stands. What the peer has written already can be received still, until it closes
    /// its own side, which is an error. Whether there was such a connection; without one there is nothing to wait for.
    pub async fn part(&mut self) -> bool {
        match &mut self.state {
            State::Open(connection) => connection.end_writing().await.is_ok(),
            State::Opening(_) => false,
        }
    }

    /// Waits until the connection that stands ends, or one attempt at another has failed. For a peer that has nothing to say, which
    /// is not read. May be cancelled.
    pub async fn stand(&mut self) -> Trouble {
        let trouble = match self.connection().await {
            Ok(connection) => loop {
                match connection.next(false).await {
                    Ok(Event::Leaving) => break Trouble::Closed,
                    Ok(_) => {}
                    Err(trouble) => break trouble,
                }
            },
            Err(trouble) => trouble,
        };
        self.lost(trouble)
    }

    /// Whether a connection that stood was lost since this was asked last.
    pub fn has_broken(&mut self) -> bool {
        std::mem::take(&mut self.broke)
    }

    /// Whether a message was put and is not written whole.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.put
    }

    /// Whether the last error is worth a log line: attempts may fail many times a second, and the powers of two tell enough.
    #[must_use]
    pub fn is_worth_telling(&self) -> bool {
        self.pace.is_worth_telling
    }

    async fn try_send(&mut self, message: &[Bytes]) -> Result<(), Trouble> {
        let is_put = self.put;
        let connection = self.connection().await?;
        if !is_put {
            connection.catch_up()?;
            connection.put(frame::message(message));
            self.put = true;
        }
        self.connection().await?.flush().await
    }

    async fn connection(&mut self) -> Result<&mut Connection, Trouble> {
        if let State::Opening(attempt) = &mut self.state {
            let opened = attempt.await?;
            self.pace.reached();
            self.state = State::Open(Box::new(opened));
        }
        match &mut self.state {
            State::Open(connection) => Ok(connection),
            State::Opening(_) => Err(Trouble::Closed),
        }
    }

    /// With the old state go its connection and its half message.
    fn lost(&mut self, trouble: Trouble) -> Trouble {
        self.broke |= matches!(self.state, State::Open(_));
        self.state = opening(&self.address, self.own, self.caps, self.pace.after(&trouble, Instant::now()));
        self.put = false;
        trouble
    }
}

fn opening(address: &str, own: Kind, caps: Caps, pause: Duration) -> State {
    let address = address.to_owned();
    State::Opening(Box::pin(async move {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        Connection::open(address, own, caps, KEEP).await
    }))
}

/// When to try again.
#[derive(Debug)]
struct Pace {
    /// Whether the other side was never reached, and so may be starting.
    is_first: bool,
    /// Since when it is sought; `None` while it is there.
    away_since: Option<Instant>,
    /// How often in a row there was no connection.
    failures: u32,
    /// The same, for the log.
    tally: Tally,
    /// Whether the last of them is worth a line.
    is_worth_telling: bool,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            is_first: true,
            away_since: Some(now),
            failures: 0,
            tally: Tally::default(),
            is_worth_telling: false,
        }
    }

    fn reached(&mut self) {
        *self = Self {
            is_first: false,
            away_since: None,
            failures: 0,
            tally: Tally::default(),
            is_worth_telling: false,
        };
    }

    fn after(&mut self, trouble: &Trouble, now: Instant) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.is_worth_telling = self.tally.more().is_some();
        let away = now.saturating_duration_since(*self.away_since.get_or_insert(now));
        let is_soon = away < EAGERNESS;
        match trouble {
            _ if self.is_first && is_soon && !trouble.is_nonsense() => EAGER,
            // As Docker's proxy does while the runner starts again, which is not to be missed.
            Trouble::Closed | Trouble::Io(_) if is_soon => PAUSES.pause(1),
            _ if away < LONG => PAUSES.pause(self.failures),
            _ => (away / SHARE).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::inbox::Broken;
    use super::*;

    fn pauses(pace: &mut Pace, now: Instant, trouble: &Trouble) -> [u128; 7] {
        [(); 7].map(|()| pace.after(trouble, now).as_millis())
    }

    #[test]
    fn pauses_grow_with_failures_and_not_with_ends_nor_while_the_peer_may_be_starting() {
        let refused = || Trouble::Connect(ErrorKind::ConnectionRefused.into());
        let growing = [100, 200, 400, 800, 1600, 2000, 2000];
        let now = Instant::now();
        for trouble in [refused(), Trouble::Late(EAGER), Trouble::Closed] {
            assert_eq!(pauses(&mut Pace::new(now), now, &trouble), [25; 7], "{trouble}");
        }
        assert_eq!(pauses(&mut Pace::new(now), now, &Broken::Frame.into()), growing, "nonsense at the start");
        let later = now + EAGERNESS;
        assert_eq!(pauses(&mut Pace::new(now), later, &refused()), growing, "it never came");
        for trouble in [refused(), Trouble::Late(EAGER), Broken::FrameCount(1).into()] {
            let mut pace = Pace::new(now);
            pace.reached();
            assert_eq!(pauses(&mut pace, now, &trouble), growing, "{trouble}");
            assert_eq!(pauses(&mut pace, now, &Trouble::Closed), [100; 7]);
        }
    }

    #[test]
    fn who_is_away_for_long_is_tried_seldom_however_that_shows_and_is_tried_soon_after_the_next_contact() {
        let refused = || Trouble::Connect(ErrorKind::ConnectionRefused.into());
        let now = Instant::now();
        for trouble in [refused(), Trouble::Closed, Trouble::Late(EAGER)] {
            for was_reached in [false, true] {
                let mut pace = Pace::new(now);
                if was_reached {
                    pace.reached();
                }
                pauses(&mut pace, now, &trouble);
                let after = |pace: &mut Pace, secs| pace.after(&trouble, now + Duration::from_secs(secs));
                assert_eq!(after(&mut pace, 30), Duration::from_secs(2), "{trouble}");
                assert_eq!(after(&mut pace, 100), Duration::from_secs(5), "{trouble}");
                assert_eq!(after(&mut pace, 86_400), LONGEST, "{trouble}");
                pace.reached();
                assert_eq!(after(&mut pace, 86_500), Duration::from_millis(100), "{trouble}");
            }
        }
    }
}
