//! Putting frames together into messages, with an end to both: a peer decides how many frames it sends and
//! how large they are, we decide what we keep. Pure.
//!
//! This bounds what the agent keeps, not what libzmq does: it holds a message until the last frame is there,
//! its queue limits count whole messages, and it has no option against a peer that sends frames without end.
//! Such a peer's memory is freed when its connection closes. A runner's output, which code in a container can forge,
//! therefore comes in without libzmq (`runner/intake.rs`).

use bytes::Bytes;

use super::Multipart;

/// More frames than any message of the protocol has: an RPC request has five, a record of a kernel two.
pub(super) const MAX_FRAMES: usize = 64;

/// The message that is being received.
///
/// It lives in the socket and not in a call's stack, so that a long message can be drained in several turns.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Frames so far; emptied as soon as the message turns out too large.
    frames: Multipart,
    /// Bytes so far, dropped ones included.
    bytes: usize,
    /// How many frames came so far, dropped ones included.
    count: usize,
    /// The most bytes that a whole message may have.
    max_bytes: usize,
}

/// What a frame led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The message goes on.
    More,
    /// This was its last frame.
    Whole(Multipart),
    /// This was the last frame of a message that was too large and is gone.
    Dropped {
        /// How many frames it had.
        frames: usize,
        /// How many bytes it had.
        bytes: usize,
    },
}

impl Inbox {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { frames: Vec::new(), bytes: 0, count: 0, max_bytes }
    }

    /// Takes the next frame; `more` says whether others follow.
    pub(super) fn push(&mut self, frame: Bytes, more: bool) -> Step {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(frame.len());
        let fits = self.count <= MAX_FRAMES && self.bytes <= self.max_bytes;
        if fits {
            self.frames.push(frame);
        } else {
            // Not `clear`: a garbage peer should not leave its allocation behind.
            self.frames = Vec::new();
        }
        if more {
            return Step::More;
        }
        let done = std::mem::replace(self, Self::new(self.max_bytes));
        if fits { Step::Whole(done.frames) } else { Step::Dropped { frames: done.count, bytes: done.bytes } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(inbox: &mut Inbox, sizes: &[usize]) -> Step {
        let mut last = Step::More;
        for (at, size) in sizes.iter().enumerate() {
            assert_eq!(last, Step::More);
            last = inbox.push(vec![7; *size].into(), at + 1 < sizes.len());
            assert!(inbox.frames.len() <= MAX_FRAMES);
        }
        last
    }

    proptest! {
        #[test]
        fn every_message_ends_whole_or_dropped_and_leaves_nothing(
            messages in prop::collection::vec(prop::collection::vec(0usize..40, 1..80), 1..6)
        ) {
            let mut inbox = Inbox::new(1000);
            for sizes in &messages {
                let bytes: usize = sizes.iter().sum();
                let fits = sizes.len() <= MAX_FRAMES && bytes <= 1000;
                match feed(&mut inbox, sizes) {
                    Step::Whole(frames) => {
                        prop_assert!(fits);
                        prop_assert_eq!(&frames.iter().map(Bytes::len).collect::<Vec<_>>(), sizes);
                    }
                    Step::Dropped { frames, bytes: counted } => {
                        prop_assert!(!fits);
                        prop_assert_eq!((frames, counted), (sizes.len(), bytes));
                    }
                    Step::More => prop_assert!(false, "a last frame ended nothing"),
                }
                prop_assert_eq!((inbox.count, inbox.bytes, inbox.frames.len()), (0, 0, 0));
            }
        }
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        let mut inbox = Inbox::new(64);
        assert!(matches!(feed(&mut inbox, &[1; MAX_FRAMES]), Step::Whole(_)));
        assert_eq!(feed(&mut inbox, &[0; MAX_FRAMES + 1]), Step::Dropped { frames: 65, bytes: 0 });
        assert_eq!(feed(&mut inbox, &[64, 1]), Step::Dropped { frames: 2, bytes: 65 });
    }
}
