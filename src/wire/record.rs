//! What a kernel's runner sends: two frames each (PROTOCOL section 8, section 12 item 25).
//!
//! User code shares the container with the runner and can write anything into this socket, so every shape of
//! frame is either a record or a [`BadRecord`] that is logged and skipped.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// A record over this size is cut, in bytes.
pub const MAX_RECORD: usize = 10 * 1024 * 1024;

/// How much of a record's data [`Record::decode`] needs: enough to see that it is over the limit, and to cut it at a
/// character.
pub const KEPT: usize = MAX_RECORD + 4;

/// JSON over this size is not parsed into values, in bytes: they take sixteen times the memory, and so long that
/// other tasks on the thread would be late. The records concerned have some hundred bytes; media may be larger.
const MAX_JSON: usize = 1024 * 1024;

/// A record, decoded as far as its kind asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Raw bytes of standard output; UTF-8 may be cut anywhere.
    Stdout(Bytes),
    /// Raw bytes of standard error.
    Stderr(Bytes),
    /// MIME type and data.
    Media(String, String),
    /// HTML text.
    Html(String),
    /// A text for the log.
    Log(String),
    /// The answer to a `complete` command.
    Completion(Json),
    /// The run waits for input; a map, empty when the runner sent none.
    WaitingInput(Json),
    /// The clean step is over.
    CleanFinished(Option<i64>),
    /// The build step is over.
    BuildFinished(Option<i64>),
    /// The run is over.
    Finished(Option<i64>),
    /// The answer to a `status` command.
    Status,
    /// The answer to a `start-service` command; a map, as far as the runner says it right.
    ServiceResult(Json),
}

/// Frames that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Not two frames.
    #[error("a record has 2 frames, this has {0}")]
    FrameCount(usize),
    /// A type that nobody knows.
    #[error("unknown record type {0:?}")]
    UnknownType(String),
    /// JSON that can't be read, of a kind without which nothing hangs.
    #[error("{0} record: not the JSON it should be")]
    Json(&'static str),
    /// Media over the size limit: cut JSON is no JSON, so a note takes its place.
    #[error("media of {0} bytes is over the limit of {MAX_RECORD} bytes")]
    MediaTooLarge(usize),
}

impl BadRecord {
    /// The same of a record that had `cut` bytes more than were kept of it.
    #[must_use]
    pub fn of_cut(self, cut: usize) -> Self {
        match self {
            Self::MediaTooLarge(kept) => Self::MediaTooLarge(kept.saturating_add(cut)),
            other => other,
        }
    }
}

/// What a media record holds. Typed, so that other JSON fails early and takes no memory.
#[derive(Deserialize)]
struct Media {
    #[serde(rename = "type")]
    mime: String,
    data: String,
}

impl Record {
    /// From the frames as they came. Of the data more than [`KEPT`] bytes make no difference, but to a size that is told.
    pub fn decode(frames: &[Bytes]) -> Result<Self, BadRecord> {
        let [kind, data] = frames else { return Err(BadRecord::FrameCount(frames.len())) };
        match &kind[..] {
            b"stdout" => Ok(Self::Stdout(cut(data))),
            b"stderr" => Ok(Self::Stderr(cut(data))),
            b"html" => Ok(Self::Html(text(data))),
            b"log" => Ok(Self::Log(text(data))),
            b"media" => media(data),
            b"completion" => parsed(data).map(Self::Completion).ok_or(BadRecord::Json("completion")),
            // The kinds below end a wait: with broken JSON they still do.
            b"waiting-input" => {
                let options = parsed(data).filter(Json::is_object);
                Ok(Self::WaitingInput(options.unwrap_or_else(|| Json::Object(serde_json::Map::new()))))
            }
            b"clean-finished" => Ok(Self::CleanFinished(exit_code(data))),
            b"build-finished" => Ok(Self::BuildFinished(exit_code(data))),
            b"finished" => Ok(Self::Finished(exit_code(data))),
            b"status" => Ok(Self::Status),
            // Somebody waits for it: broken JSON is an answer, too.
            b"service-result" => Ok(Self::ServiceResult(parsed(data).unwrap_or(Json::Null))),
            other => {
                let name = String::from_utf8_lossy(&other[..other.len().min(40)]).into_owned();
                Err(BadRecord::UnknownType(name))
            }
        }
    }
}

impl Record {
    /// The two frames that [`decode`](Self::decode) reads the same record from.
    #[must_use]
    pub fn encode(&self) -> [Bytes; 2] {
        let json = |value: &Json| Bytes::from(value.to_string());
        let end =
            |code: &Option<i64>| code.map_or_else(Bytes::new, |code| json(&json!({ "exitCode": code })));
        let (kind, data) = match self {
            Self::Stdout(bytes) => ("stdout", bytes.clone()),
            Self::Stderr(bytes) => ("stderr", bytes.clone()),
            Self::Media(mime, data) => ("media", json(&json!({ "type": mime, "data": data }))),
            Self::Html(text) => ("html", text.clone().into()),
            Self::Log(text) => ("log", text.clone().into()),
            Self::Completion(found) => ("completion", json(found)),
            Self::WaitingInput(options) => ("waiting-input", json(options)),
            Self::CleanFinished(code) => ("clean-finished", end(code)),
            Self::BuildFinished(code) => ("build-finished", end(code)),
            Self::Finished(code) => ("finished", end(code)),
            Self::Status => ("status", Bytes::new()),
            Self::ServiceResult(answer) => ("service-result", json(answer)),
        };
        [Bytes::from_static(kind.as_bytes()), data]
    }
}

/// Cut to the limit, at a character where the bytes are UTF-8.
fn cut(data: &Bytes) -> Bytes {
    if data.len() <= MAX_RECORD {
        return data.clone();
    }
    let is_inside = |at: usize| data.get(at).is_some_and(|b| b & 0b1100_0000 == 0b1000_0000);
    // A character has at most three continuation bytes; more than that is not UTF-8 and is cut anywhere.
    let end = (MAX_RECORD - 3..=MAX_RECORD).rev().find(|at| !is_inside(*at)).unwrap_or(MAX_RECORD);
    data.slice(..end)
}

fn text(data: &Bytes) -> String {
    String::from_utf8_lossy(&cut(data)).into_owned()
}

fn parsed(data: &[u8]) -> Option<Json> {
    if data.len() > MAX_JSON {
        return None;
    }
    serde_json::from_slice(data).ok()
}

fn media(data: &Bytes) -> Result<Record, BadRecord> {
    if data.len() > MAX_RECORD {
        return Err(BadRecord::MediaTooLarge(data.len()));
    }
    // serde would take a list of two texts for the struct, too.
    let is_map = data.trim_ascii_start().starts_with(b"{");
    let media = is_map.then(|| serde_json::from_slice(data).ok()).flatten();
    let Media { mime, data } = media.ok_or(BadRecord::Json("media"))?;
    Ok(Record::Media(mime, data))
}

fn exit_code(data: &[u8]) -> Option<i64> {
    parsed(data)?.get("exitCode")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(kind: &'static str, data: impl Into<Bytes>) -> Result<Record, BadRecord> {
        Record::decode(&[Bytes::from_static(kind.as_bytes()), data.into()])
    }

    proptest! {
        #[test]
        fn any_frames_are_a_record_or_refused(frames in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..40), 0..4)) {
            let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
            let _ = Record::decode(&frames);
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_again() {
        let bytes = Bytes::from_static(b"\xe2\x82");
        let options = json!({ "is_password": true });
        for record in [
            Record::Stdout(bytes.clone()),
            Record::Stderr(bytes),
            Record::Media("image/png".into(), "data \"quoted\"".into()),
            Record::Html("<b>".into()),
            Record::Log("x".into()),
            Record::Completion(json!(["a", 1])),
            Record::WaitingInput(options),
            Record::CleanFinished(Some(2)),
            Record::BuildFinished(None),
            Record::Finished(Some(-1)),
            Record::Status,
            Record::ServiceResult(json!({ "status": "started" })),
        ] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn the_end_of_a_run_is_the_end_whatever_its_json() {
        assert_eq!(decode("finished", r#"{"exitCode": 3}"#), Ok(Record::Finished(Some(3))));
        assert_eq!(decode("finished", ""), Ok(Record::Finished(None)));
        assert_eq!(decode("finished", "{{{"), Ok(Record::Finished(None)));
        assert_eq!(decode("build-finished", "[]"), Ok(Record::BuildFinished(None)));
        assert_eq!(decode("clean-finished", "{{{"), Ok(Record::CleanFinished(None)));
        assert_eq!(decode("service-result", "{{{"), Ok(Record::ServiceResult(Json::Null)));
        assert_eq!(decode("waiting-input", "7"), Ok(Record::WaitingInput(serde_json::json!({}))));
    }

    #[test]
    fn what_no_runner_should_send_is_named() {
        assert_eq!(Record::decode(&[]), Err(BadRecord::FrameCount(0)));
        assert_eq!(decode("dance", ""), Err(BadRecord::UnknownType("dance".into())));
        assert_eq!(decode("media", r#"{"type": 1}"#), Err(BadRecord::Json("media")));
        assert_eq!(decode("media", r#"["image/png", "xx"]"#), Err(BadRecord::Json("media")));
        assert_eq!(decode("html", &b"\xff"[..]), Ok(Record::Html("\u{fffd}".into())));
    }

    #[test]
    fn a_large_record_is_cut_at_a_character() {
        let long = "a".repeat(MAX_RECORD - 1) + "☃☃";
        let Ok(Record::Stdout(bytes)) = decode("stdout", long.clone()) else { panic!() };
        assert_eq!(bytes.len(), MAX_RECORD - 1);
        assert!(std::str::from_utf8(&bytes).is_ok());
        let Ok(Record::Stdout(bytes)) = decode("stdout", vec![0x80; MAX_RECORD + 9]) else { panic!() };
        assert_eq!(bytes.len(), MAX_RECORD);
        assert_eq!(decode("media", long.clone()), Err(BadRecord::MediaTooLarge(long.len())));
    }

    #[test]
    fn media_keys_that_nobody_knows_are_ignored() {
        let json = r#" {"data": "x\n", "width": [1, {"of": null}], "type": "image/png"}"#;
        assert_eq!(decode("media", json), Ok(Record::Media("image/png".into(), "x\n".into())));
        let large = format!(r#"{{"type": "t", "data": "{}"}}"#, "x".repeat(MAX_JSON));
        assert_eq!(decode("media", large), Ok(Record::Media("t".into(), "x".repeat(MAX_JSON))));
    }

    #[test]
    fn large_json_is_not_parsed_and_still_ends_a_wait() {
        let list = |bytes: usize| format!("[{}0]", "0,".repeat(bytes / 2));
        let (small, large) = (list(MAX_JSON / 2), list(MAX_JSON));
        assert!(matches!(decode("completion", small), Ok(Record::Completion(_))));
        assert_eq!(decode("completion", large.clone()), Err(BadRecord::Json("completion")));
        let asks = format!(r#"{{"is_password": true, "x": {large}}}"#);
        assert_eq!(decode("waiting-input", asks), Ok(Record::WaitingInput(serde_json::json!({}))));
        let end = format!(r#"{{"exitCode": 1, "x": {large}}}"#);
        assert_eq!(decode("finished", end), Ok(Record::Finished(None)));
    }

    #[test]
    fn what_is_kept_of_a_record_decodes_like_all_of_it() {
        for (kind, filler) in
            [("stdout", "a"), ("stdout", "é☃"), ("stdout", "☃é"), ("stdout", "😀"), ("media", "a")]
        {
            let all = Bytes::from(filler.repeat((MAX_RECORD + 12) / filler.len()));
            for over in 0..9 {
                let (all, kept) = (all.slice(..MAX_RECORD + over), all.slice(..MAX_RECORD + over.min(4)));
                let cut = all.len() - kept.len();
                assert_eq!(
                    decode(kind, kept).map_err(|bad| bad.of_cut(cut)),
                    decode(kind, all),
                    "{kind} {over}"
                );
            }
        }
    }
}
