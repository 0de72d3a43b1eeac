//! What any frames must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use bytes::Bytes;

use super::answer::Answer;
use super::call::Call;
use super::event::{self, HeardEvent};
use super::request::Request;
use super::value;

/// A call of the RPC port: its frames, each behind its length (two bytes, big-endian).
pub fn call(bytes: &[u8]) {
    let Ok(call) = Call::decode(&frames(bytes)) else { return };
    let written = call.encode();
    // By their bytes: a number that is none is not equal to itself.
    let again = Call::decode(&written).ok().map(|call| call.encode());
    assert_eq!(again, Some(written), "it is another call when read again");
    let _ = Request::parse(&call.method, call.args, call.kwargs);
}

/// What the agent's own client, and `backendai-agent events`, read: frames as for [`call`].
pub fn answer(bytes: &[u8]) {
    let frames = frames(bytes);
    if let Ok(answer) = Answer::decode(&frames) {
        let written = answer.encode();
        let again = Answer::decode(&written).ok().map(|answer| answer.encode());
        assert_eq!(again, Some(written), "it is another answer when read again");
    }
    if let Some(heard) = HeardEvent::decode(&frames) {
        let _ = heard.to_json();
    }
    for frame in &frames {
        if let Ok(value) = value::unpack(frame) {
            let _ = value::from_json(&value::to_json(&value));
        }
        let _ = event::unpack_images(frame);
    }
}

/// What is before the first length that goes beyond the end, and then the rest.
fn frames(bytes: &[u8]) -> Vec<Bytes> {
    let (mut rest, mut frames) = (Bytes::copy_from_slice(bytes), Vec::new());
    while let [high, low, ..] = rest[..] {
        let _ = rest.split_to(2);
        let length = usize::from(u16::from_be_bytes([high, low]));
        frames.push(rest.split_to(length.min(rest.len())));
    }
    frames
}
