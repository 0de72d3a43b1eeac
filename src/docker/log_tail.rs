//! The newest bytes of a log: unframing, a bounded buffer, and how many lines to ask for. Pure.

use std::collections::VecDeque;

/// Docker cuts what a container writes at newlines, and a longer line every 16 KiB.
const LONGEST_ENTRY: u64 = 16 * 1024;

/// The lines to ask for first: 16 MB if all are of the longest kind, and often enough for a whole log.
const FIRST_LINES: u64 = 1000;

/// How much more than computed to ask for, in percent, since older lines may be shorter.
const MARGIN_PERCENT: u64 = 130;

/// The most that one question may exceed the one before: an answer that the deadline cuts is lost, and then the
/// one before has to do.
const LARGEST_STEP: u64 = 256;

/// Keeps the newest bytes of what it is fed.
#[derive(Debug)]
pub(super) struct Tail {
    /// The bytes kept, at most `limit`.
    kept: VecDeque<u8>,
    /// The most bytes to keep.
    limit: usize,
    /// All bytes fed so far.
    seen: u64,
    /// All newlines fed so far.
    newlines: u64,
}

impl Tail {
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: VecDeque::new(), limit, seen: 0, newlines: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        self.newlines += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        let newest = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.kept.len() + newest.len()).saturating_sub(self.limit);
        self.kept.drain(..excess);
        self.kept.extend(newest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.kept.into()
    }

    /// What to ask for after the complete answer to `asked` lines; `None` if this answer will do.
    pub(super) fn next_question(&self, asked: Lines) -> Option<Lines> {
        let asked = asked.0;
        let most_entries = self.newlines + self.seen / LONGEST_ENTRY + 1;
        if self.seen >= self.limit as u64 || most_entries < asked {
            return None;
        }
        let wanted = (self.limit as u64).saturating_mul(asked) / self.seen.max(1);
        let wanted = wanted.saturating_mul(MARGIN_PERCENT) / 100;
        Some(Lines(wanted.clamp(asked.saturating_mul(2), asked.saturating_mul(LARGEST_STEP))))
    }
}

/// A number of lines to ask the engine for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines(pub(super) u64);

impl Lines {
    pub(super) const FIRST: Self = Self(FIRST_LINES);
}

/// How a log's bytes are framed.
#[derive(Debug)]
pub(super) enum Framing {
    /// A terminal's output comes as it is.
    Raw,
    /// Otherwise each piece has a header of 8 bytes: the stream, three zeroes, the length (big endian).
    Multiplexed {
        /// The part of the next header that came so far.
        header: Vec<u8>,
        /// Bytes of the current piece that are still to come.
        remaining: usize,
    },
}

impl Framing {
    pub(super) fn new(is_tty: bool) -> Self {
        if is_tty { Self::Raw } else { Self::Multiplexed { header: Vec::with_capacity(8), remaining: 0 } }
    }

    /// Hands the payload in `bytes` to `sink`; headers may be cut anywhere between two calls.
    pub(super) fn unframe(&mut self, mut bytes: &[u8], sink: &mut Tail) {
        let Self::Multiplexed { header, remaining } = self else {
            sink.push(bytes);
            return;
        };
        while !bytes.is_empty() {
            if *remaining > 0 {
                let (payload, rest) = bytes.split_at(bytes.len().min(*remaining));
                sink.push(payload);
                *remaining -= payload.len();
                bytes = rest;
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(8 - header.len()));
            header.extend_from_slice(part);
            bytes = rest;
            if let &[_, _, _, _, a, b, c, d] = header.as_slice() {
                *remaining = u32::from_be_bytes([a, b, c, d]) as usize;
                header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(limit: usize, chunks: &[Vec<u8>]) -> Tail {
        let mut tail = Tail::new(limit);
        for chunk in chunks {
            tail.push(chunk);
        }
        tail
    }

    proptest! {
        #[test]
        fn the_tail_is_the_end_of_everything(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            limit in 0usize..100,
        ) {
            let all = chunks.concat();
            let tail = fed(limit, &chunks);
            prop_assert!(tail.kept.len() <= limit);
            prop_assert_eq!(tail.into_bytes(), &all[all.len().saturating_sub(limit)..]);
        }

        #[test]
        fn unframing_does_not_depend_on_where_the_bytes_are_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..10),
            cut in 1usize..12,
        ) {
            let mut framed = Vec::new();
            for piece in &pieces {
                framed.extend_from_slice(&[1, 0, 0, 0]);
                framed.extend_from_slice(&u32::try_from(piece.len()).unwrap().to_be_bytes());
                framed.extend_from_slice(piece);
            }
            let mut tail = Tail::new(usize::MAX);
            let mut framing = Framing::new(false);
            for part in framed.chunks(cut) {
                framing.unframe(part, &mut tail);
            }
            prop_assert_eq!(tail.into_bytes(), pieces.concat());
        }

        #[test]
        fn questions_grow_until_they_end(line in 1usize..20_000, limit in 1usize..1_000_000) {
            // An endless log of equal lines: each answer holds what was asked for.
            let mut asked = Lines::FIRST;
            for _ in 0..20 {
                let bytes = asked.0.saturating_mul(line as u64 + 1);
                let tail = Tail { kept: VecDeque::new(), limit, seen: bytes, newlines: asked.0 };
                match tail.next_question(asked) {
                    None => return Ok(()),
                    Some(next) => prop_assert!(next.0 > asked.0),
                }
                asked = tail.next_question(asked).unwrap();
            }
            prop_assert!(false, "still asking after 20 answers");
        }
    }

    #[test]
    fn a_short_log_needs_one_question_and_a_full_answer_no_other() {
        assert_eq!(fed(100, &[b"a\nb\n".to_vec()]).next_question(Lines(1000)), None);
        assert_eq!(fed(4, &[b"a\nb\n".to_vec()]).next_question(Lines(2)), None);
        assert_eq!(fed(100, &[b"a\nb\n".to_vec()]).next_question(Lines(2)), Some(Lines(65)));
    }

    #[test]
    fn raw_bytes_are_left_alone() {
        let mut tail = Tail::new(100);
        Framing::new(true).unframe(b"\x01\x00\x00\x00\xff\xff\xff\xffhello", &mut tail);
        assert_eq!(tail.into_bytes(), b"\x01\x00\x00\x00\xff\xff\xff\xffhello");
    }
}
