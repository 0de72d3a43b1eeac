//! What any command to `dev`'s Redis must not do, for the fuzzer and for `tests/decoders.rs`: the function panics where it does.
#![allow(clippy::missing_panics_doc, reason = "a panic is what this is for")]

use std::time::Instant;

use bytes::BytesMut;

use super::hashes::Hashes;
use super::resp;

/// What a client sends; the first byte says in pieces of which size.
pub fn commands(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let now = Instant::now();
    let answered = |step: usize| {
        let (mut hashes, mut unread, mut written) = (Hashes::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            unread.extend_from_slice(piece);
            loop {
                match resp::command(&mut unread) {
                    Ok(Some(command)) => hashes.answer(&command, now).0.write(&mut written),
                    Ok(None) => break,
                    Err(malformed) => return (written, Some(malformed)),
                }
            }
        }
        (written, None)
    };
    assert_eq!(answered(usize::from(step) + 1), answered(bytes.len().max(1)), "pieces make a difference");
}
