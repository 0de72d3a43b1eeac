//! What any records of a runner must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use bytes::Bytes;
use serde_json::Value as Json;

use super::output::Output;
use super::utf8::Utf8;
use crate::wire::record::Record;
use crate::wire::reply::ConsoleItem;

/// The kinds of records, by number.
const KINDS: [&str; 13] = [
    "stdout",
    "stderr",
    "media",
    "html",
    "log",
    "completion",
    "waiting-input",
    "clean-finished",
    "build-finished",
    "finished",
    "status",
    "service-result",
    "?",
];

/// The records of a run, each a byte for its kind, its length, and its data.
pub fn records(bytes: &[u8]) {
    let (mut output, mut rest) = (Output::default(), bytes);
    let (mut printed, mut shown) = (Vec::new(), String::new());
    while let [kind, length, data @ ..] = rest {
        let (data, after) = data.split_at(data.len().min(usize::from(*length)));
        rest = after;
        let kind = KINDS[usize::from(*kind) % KINDS.len()];
        let frames = [Bytes::from_static(kind.as_bytes()), Bytes::copy_from_slice(data)];
        let Ok(record) = Record::decode(&frames) else { continue };
        // The last digit of a long fraction may be another one: the library's parser rounds.
        if !is_fraction_among(&record) {
            assert_eq!(
                Record::decode(&record.encode()).as_ref(),
                Ok(&record),
                "kept output is read otherwise"
            );
        }
        if let Record::Stdout(bytes) = &record {
            printed.extend_from_slice(bytes);
        }
        let is_whole = output.push(record);
        if is_whole {
            shown += &stdout(&mut output);
        }
    }
    output.push(Record::Finished(None));
    while output.holds_stop() {
        shown += &stdout(&mut output);
    }
    assert_eq!(output.bytes(), 0, "something is left of a run that is over");
    // Each end of a step ends a character that is not whole, so that there may be more of those.
    let bare = |text: &str| text.replace(char::REPLACEMENT_CHARACTER, "");
    assert!(bare(&shown).len() >= bare(&String::from_utf8_lossy(&printed)).len() / 2, "output was lost");
}

fn is_fraction_among(record: &Record) -> bool {
    fn among(json: &Json) -> bool {
        match json {
            Json::Number(number) => number.is_f64(),
            Json::Array(items) => items.iter().any(among),
            Json::Object(pairs) => pairs.values().any(among),
            _ => false,
        }
    }
    match record {
        Record::Completion(json) | Record::WaitingInput(json) | Record::ServiceResult(json) => among(json),
        _ => false,
    }
}

fn stdout(output: &mut Output) -> String {
    let (items, _) = output.take();
    let text = items.into_iter().filter_map(|item| match item {
        ConsoleItem::Stdout(text) => Some(text),
        _ => None,
    });
    text.collect()
}

/// Text that comes in pieces, whose size the first byte says.
pub fn utf8(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut decoder = Utf8::default();
    let mut text: String = bytes.chunks(usize::from(step) + 1).map(|piece| decoder.feed(piece)).collect();
    text.extend(decoder.finish());
    assert_eq!(text, String::from_utf8_lossy(bytes), "pieces make a difference");
}
