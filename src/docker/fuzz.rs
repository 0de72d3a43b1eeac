//! What any answer of an engine must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where it does.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use super::log_tail::{Framing, Lines, Tail};
use super::{container, events, network, stats};

/// A container's log; the first byte says whether it is that of a terminal and the size of the pieces.
pub fn log(bytes: &[u8]) {
    const LIMIT: usize = 40;
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let read = |step: usize| {
        let (mut framing, mut tail) = (Framing::new(choice & 1 == 1), Tail::new(LIMIT));
        bytes.chunks(step).for_each(|piece| framing.unframe(piece, &mut tail));
        let mut asked = Lines::FIRST;
        while let Some(more) = tail.next_question(asked) {
            assert!(more.0 > asked.0, "the same question again");
            asked = more;
        }
        tail.into_bytes()
    };
    let kept = read(usize::from(choice) / 2 + 1);
    assert!(kept.len() <= LIMIT);
    assert_eq!(kept, read(bytes.len().max(1)), "pieces make a difference");
}

/// An answer in JSON, taken for each kind of answers that are looked into.
pub fn answer(bytes: &[u8]) {
    if let Ok(found) = serde_json::from_slice(bytes) {
        let _ = container::from_inspection(found);
    }
    if let Ok(found) = serde_json::from_slice(bytes) {
        let _ = container::from_summary(found);
    }
    if let Ok(found) = serde_json::from_slice(bytes) {
        let _ = network::from_inspection(found);
    }
    if let Ok(found) = serde_json::from_slice(bytes) {
        let _ = stats::read(&found);
    }
    if let Ok(found) = serde_json::from_slice(bytes) {
        let _ = events::read(found);
    }
}
