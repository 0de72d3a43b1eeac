//! Messages out of a peer's bytes, from one that may be malicious: its bytes decide how long a message goes on and how
//! large a frame claims to be, and nothing but our [`Caps`] decides what is kept. Pure.
//!
//! No memory is taken for what a head announces, only for bytes that came.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{self, COMMAND, Head, LARGEST_COMMAND, MORE, take_head};

const MIB: u64 = 1024 * 1024;

/// How many bytes are asked of a connection at once.
const READ: usize = 32 * 1024;

/// What is taken of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// A message of more frames breaks the rules, empty ones included.
    frames: usize,
    /// A larger frame breaks the rules. Reading on in one that never ends would keep a core busy, and nothing pushes
    /// back on whoever sends it.
    frame: u64,
    /// What becomes of a message within these limits that is large all the same.
    large: Large,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Large {
    /// Of the first frame [`LARGEST_COMMAND`] bytes are kept, of the second so many; of others, which make a message
    /// no record, nothing.
    Cut(usize),
    /// A message of more bytes breaks the rules.
    Refuse(u64),
}

impl Caps {
    /// For a kernel's runner, where user code may speak: a record is a kind and data, of which `keep` bytes are kept.
    #[must_use]
    pub const fn records(keep: usize) -> Self {
        Self { frames: 1024, frame: 256 * MIB, large: Large::Cut(keep) }
    }

    /// For whoever calls or answers, an upload included; `most` is the limit of a message in bytes.
    #[must_use]
    pub const fn calls(most: u64) -> Self {
        Self { frames: 64, frame: most, large: Large::Refuse(most) }
    }

    /// For a peer that has nothing to say but commands.
    #[must_use]
    pub const fn commands() -> Self {
        Self { frames: 0, frame: LARGEST_COMMAND as u64, large: Large::Refuse(0) }
    }
}

/// How a peer broke the rules; the connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A frame over the limit, or a command that is none.
    #[error("it sent a frame that makes no sense or is too large")]
    Frame,
    /// A message that goes on and on.
    #[error("it sent a message of more than {0} frames")]
    FrameCount(usize),
    /// A message over the limit.
    #[error("it sent a message of more than {0} bytes")]
    Size(u64),
    /// The peer gave the connection up.
    #[error("it refused to go on: {0:?}")]
    Refused(String),
}

/// What a peer says after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// The peer sent a message.
    Message(Message),
    /// The message in the making has as many bytes as are allowed, and wants so many; more come with the allowance.
    Wants(u64),
    /// The peer wants a PONG with this context.
    Ping(Bytes),
    /// The peer has read everything up to our last PING.
    Pong,
}

/// A message, or what is kept of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The message's frames, never none; [`Caps`] say which are cut.
    pub frames: Vec<Bytes>,
    /// How many bytes of the second frame came and were not kept.
    pub cut: usize,
}

/// Takes a peer's bytes apart; holds one message in the making and [`READ`] bytes, roughly.
#[derive(Debug)]
pub(super) struct Inbox {
    caps: Caps,
    /// How many bytes of a message are taken without asking.
    free: u64,
    /// How many bytes of this message are allowed by now.
    allowed: u64,
    /// How many bytes of this message came.
    taken: u64,
    /// Bytes that were not looked at yet.
    unread: BytesMut,
    /// The message that is being received, but for the frame that is.
    message: Message,
    /// How many bytes its frames have, as announced by their heads.
    bytes: u64,
    /// The frame that is being received.
    frame: Option<Frame>,
    /// What is kept of that frame so far.
    body: Vec<u8>,
}

/// The rest of a frame.
#[derive(Debug, Clone, Copy)]
struct Frame {
    flags: u8,
    /// How many bytes are still to come.
    left: u64,
    /// How many of those are to be kept.
    keep: usize,
}

impl Inbox {
    /// `unread` came behind the handshake.
    pub(super) fn new(caps: Caps, unread: BytesMut) -> Self {
        Self {
            caps,
            free: u64::MAX,
            allowed: u64::MAX,
            taken: 0,
            unread,
            message: Message::default(),
            bytes: 0,
            frame: None,
            body: Vec::new(),
        }
    }

    /// Asks before a message grows beyond so many bytes.
    pub(super) fn ask_above(&mut self, bytes: u64) {
        (self.free, self.allowed) = (bytes, bytes);
    }

    /// Lets the message in the making grow up to so many bytes.
    pub(super) fn allow(&mut self, bytes: u64) {
        self.allowed = bytes;
    }

    /// Where the peer's next bytes go.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        self.unread.reserve(READ);
        &mut self.unread
    }

    /// Gives the buffer back when nothing is in it; there may be thousands of silent peers.
    pub(super) fn shrink(&mut self) {
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }

    /// The memory that a frame in the making takes, in bytes.
    #[cfg(feature = "rooms")]
    pub(super) fn reserved(&self) -> usize {
        self.body.capacity()
    }

    /// Whether the peer is in the middle of something.
    #[cfg(test)]
    pub(super) fn is_amid(&self) -> bool {
        self.frame.is_some() || !self.message.frames.is_empty() || !self.unread.is_empty()
    }

    /// The next thing that concerns us, or `None` until more bytes are there. An error is for good.
    pub(super) fn take(&mut self) -> Result<Option<Heard>, Broken> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match take_head(&mut self.unread) {
                    Some(head) => self.begin(head)?,
                    None => return Ok(None),
                },
            };
            let Some(body) = self.gather(&mut frame) else {
                self.frame = Some(frame);
                let is_held_up = frame.flags & COMMAND == 0 && !self.unread.is_empty();
                // Twice as much at a time, so that what is allowed and did not come is less than what came.
                let wanted = self.bytes.min(self.allowed.saturating_mul(2));
                return Ok(is_held_up.then_some(Heard::Wants(wanted)));
            };
            if frame.flags & COMMAND != 0 {
                // Also between the frames of a message, where libzmq understands them too.
                match command(&body)? {
                    Some(heard) => return Ok(Some(heard)),
                    None => continue,
                }
            }
            self.message.frames.push(body);
            if frame.flags & MORE == 0 {
                (self.bytes, self.taken, self.allowed) = (0, 0, self.free);
                return Ok(Some(Heard::Message(std::mem::take(&mut self.message))));
            }
        }
    }

    /// Judges a frame by its head.
    fn begin(&mut self, Head { flags, length }: Head) -> Result<Frame, Broken> {
        let whole = |most: usize| usize::try_from(length).map_or(most, |length| length.min(most));
        if flags & COMMAND != 0 {
            if length > LARGEST_COMMAND as u64 {
                return Err(Broken::Frame);
            }
            return Ok(Frame { flags, left: length, keep: whole(LARGEST_COMMAND) });
        }
        let Caps { frames, frame, large } = self.caps;
        let count = self.message.frames.len();
        if count >= frames {
            return Err(Broken::FrameCount(frames));
        }
        if length > frame {
            return Err(Broken::Frame);
        }
        self.bytes = self.bytes.saturating_add(length);
        let most = match large {
            Large::Refuse(most) if self.bytes > most => return Err(Broken::Size(most)),
            Large::Refuse(_) => usize::MAX,
            Large::Cut(keep) => match count {
                0 => LARGEST_COMMAND,
                1 => keep,
                _ => 0,
            },
        };
        let keep = whole(most);
        if count == 1 {
            self.message.cut = usize::try_from(length - keep as u64).unwrap_or(usize::MAX);
        }
        Ok(Frame { flags, left: length, keep })
    }

    /// Reads on in a frame, as far as is allowed. What is kept of it, once it is over.
    fn gather(&mut self, frame: &mut Frame) -> Option<Bytes> {
        let mut most = frame.left;
        if frame.flags & COMMAND == 0 {
            most = most.min(self.allowed.saturating_sub(self.taken));
        }
        let here = usize::try_from(most).map_or(self.unread.len(), |most| most.min(self.unread.len()));
        let ends = here as u64 == frame.left;
        if frame.flags & COMMAND == 0 {
            self.taken += here as u64;
        }
        if ends && self.body.is_empty() && here == frame.keep {
            // Most frames come whole, and cost no copy.
            return Some(self.unread.split_to(here).freeze());
        }
        let kept = here.min(frame.keep);
        grow(&mut self.body, kept, frame.keep);
        self.body.extend_from_slice(&self.unread[..kept]);
        self.unread.advance(here);
        frame.left -= here as u64;
        frame.keep -= kept;
        ends.then(|| Bytes::from(std::mem::take(&mut self.body)))
    }
}

/// What a command asks or tells; most concern nobody.
fn command(body: &Bytes) -> Result<Option<Heard>, Broken> {
    let (name, data) = frame::command(body).ok_or(Broken::Frame)?;
    match name {
        // Behind the time to live.
        b"PING" => Ok(Some(Heard::Ping(data.slice(data.len().min(2)..)))),
        b"PONG" => Ok(Some(Heard::Pong)),
        b"ERROR" => Err(Broken::Refused(frame::text(data.get(1..).unwrap_or_default()))),
        _ => Ok(None),
    }
}

/// Makes room for `more` bytes: doubling, but never for more than the `most` that may still come.
fn grow(body: &mut Vec<u8>, more: usize, most: usize) {
    if body.capacity() - body.len() < more {
        body.reserve_exact(body.len().max(more).min(most));
    }
}

#[cfg(test)]
mod tests;
