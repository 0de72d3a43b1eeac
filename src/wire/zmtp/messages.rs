//! The messages of a PUSH, from one that may be malicious: its bytes decide how long a message goes on and how large
//! a frame claims to be, and nothing but limits of ours decides what is kept. Pure.
//!
//! Of a message's first frame, a record's kind, and its second, the data, the beginning is kept and the rest of the data
//! is counted; of frames behind them nothing is kept, since a message that has any is only ever reported. No memory is taken for what a head
//! announces, only for bytes that came.

use bytes::{Buf, Bytes, BytesMut};

use super::{COMMAND, Decoder, Head, LARGEST, MORE, Said, ZmtpError, command, take_head};

/// A message of more frames breaks the rules. A record has two; others are reported, and the next message may be one.
pub const MAX_FRAMES: usize = 1024;

/// A larger frame breaks the rules. Reading on in one that never ends would keep a core busy, and nothing pushes back
/// on whoever sends it.
pub const MAX_FRAME: u64 = 256 * 1024 * 1024;

/// How many bytes are asked of the connection at once.
const READ: usize = 32 * 1024;

/// What a PUSH says after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It sent a message.
    Message(Message),
    /// It wants a PONG with this context.
    Ping(Bytes),
}

/// A message, or what is kept of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its frames, never none; see the module's doc for which are cut.
    pub frames: Vec<Bytes>,
    /// How many bytes of the second frame came and were not kept.
    pub cut: usize,
}

/// Takes a PUSH's bytes apart; holds one message in the making and [`READ`] bytes, roughly.
#[derive(Debug)]
pub struct Messages {
    /// The most bytes that are kept of a message's second frame.
    keep: usize,
    /// Bytes that were not looked at yet.
    unread: BytesMut,
    /// The message that is being received, but for the frame that is.
    message: Message,
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

impl Messages {
    /// For a peer whose handshake `decoder` has read; it may have read further.
    #[must_use]
    pub fn after(decoder: Decoder, keep: usize) -> Self {
        Self { keep, unread: decoder.unread, message: Message::default(), frame: None, body: Vec::new() }
    }

    /// Where the peer's next bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.unread.reserve(READ);
        &mut self.unread
    }

    /// The next thing that concerns us, or `None` until more bytes are there. An error is for good.
    pub fn take(&mut self) -> Result<Option<Heard>, ZmtpError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match take_head(&mut self.unread) {
                    Some(head) => self.begin(&head)?,
                    None => return Ok(None),
                },
            };
            let Some(body) = self.gather(&mut frame) else {
                self.frame = Some(frame);
                return Ok(None);
            };
            if frame.flags & COMMAND != 0 {
                // Also between the frames of a message, where libzmq understands them too.
                if let Said::Ping(context) = command(&body, super::Kind::Push)? {
                    return Ok(Some(Heard::Ping(context)));
                }
                continue;
            }
            self.message.frames.push(body);
            if frame.flags & MORE == 0 {
                return Ok(Some(Heard::Message(std::mem::take(&mut self.message))));
            }
        }
    }

    /// Judges a frame by its head.
    fn begin(&mut self, head: &Head) -> Result<Frame, ZmtpError> {
        let &Head { flags, length } = head;
        if length > MAX_FRAME {
            return Err(ZmtpError::Frame);
        }
        let most = if flags & COMMAND != 0 {
            if length > LARGEST as u64 {
                return Err(ZmtpError::Frame);
            }
            LARGEST
        } else {
            match self.message.frames.len() {
                0 => LARGEST,
                1 => self.keep,
                2..MAX_FRAMES => 0,
                _ => return Err(ZmtpError::FrameCount),
            }
        };
        let keep = usize::try_from(length).map_or(most, |length| length.min(most));
        if flags & COMMAND == 0 && self.message.frames.len() == 1 {
            self.message.cut = usize::try_from(length - keep as u64).unwrap_or(usize::MAX);
        }
        Ok(Frame { flags, left: length, keep })
    }

    /// Reads on in a frame. What is kept of it, once it is over.
    fn gather(&mut self, frame: &mut Frame) -> Option<Bytes> {
        let here = usize::try_from(frame.left).map_or(self.unread.len(), |left| left.min(self.unread.len()));
        let ends = here as u64 == frame.left;
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

/// Makes room for `more` bytes: doubling, but never for more than the `most` that may still come.
fn grow(body: &mut Vec<u8>, more: usize, most: usize) {
    if body.capacity() - body.len() < more {
        body.reserve_exact(body.len().max(more).min(most));
    }
}

#[cfg(test)]
mod tests;
