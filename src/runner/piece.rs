//! What output consists of between two answers. Pure.

use bytes::Bytes;

use super::spill::Mark;
use crate::wire::record::Record;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// What an item costs beside its text, so that a flood of empty items fills the buffer too.
pub(super) const ITEM_COST: usize = 64;

/// One of a program's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// A part of what came, in order.
#[derive(Debug)]
pub(super) enum Piece {
    /// What came of one stream without anything else in between, as it came; never empty.
    Text(Stream, Vec<u8>),
    /// Anything else that is shown.
    Item(ConsoleItem),
    /// An answer ends here.
    Stop(RunStatus),
}

impl Piece {
    /// Roughly what it takes in memory, in bytes.
    pub(super) fn cost(&self) -> usize {
        ITEM_COST
            + match self {
                Self::Text(_, raw) => raw.len(),
                Self::Item(
                    ConsoleItem::Stdout(t)
                    | ConsoleItem::Stderr(t)
                    | ConsoleItem::Html(t)
                    | ConsoleItem::Log(t),
                ) => t.len(),
                Self::Item(ConsoleItem::Media(a, b)) => a.len() + b.len(),
                Self::Item(ConsoleItem::Completion(json)) | Self::Stop(RunStatus::WaitingInput(json)) => {
                    json_weight(json)
                }
                Self::Stop(_) => 0,
            }
    }

    /// A record that makes the same again, of a text but for its first bytes; `None` where nothing is left. An end that the agent
    /// itself set has none: its kernel ends with it.
    pub(super) fn record(&self, but_for: usize) -> Option<Record> {
        Some(match self {
            Self::Text(stream, raw) => {
                let rest = Bytes::copy_from_slice(raw.get(but_for..).filter(|rest| !rest.is_empty())?);
                match stream {
                    Stream::Stdout => Record::Stdout(rest),
                    Stream::Stderr => Record::Stderr(rest),
                }
            }
            Self::Item(ConsoleItem::Stdout(text)) => Record::Stdout(text.clone().into()),
            Self::Item(ConsoleItem::Stderr(text)) => Record::Stderr(text.clone().into()),
            Self::Item(ConsoleItem::Media(mime, data)) => Record::Media(mime.clone(), data.clone()),
            Self::Item(ConsoleItem::Html(text)) => Record::Html(text.clone()),
            Self::Item(ConsoleItem::Log(text)) => Record::Log(text.clone()),
            Self::Item(ConsoleItem::Completion(found)) => Record::Completion(found.clone()),
            Self::Stop(RunStatus::WaitingInput(options)) => Record::WaitingInput(options.clone()),
            Self::Stop(RunStatus::CleanFinished(code)) => Record::CleanFinished(*code),
            Self::Stop(RunStatus::BuildFinished(code)) => Record::BuildFinished(*code),
            Self::Stop(RunStatus::Finished(code)) => Record::Finished(*code),
            Self::Stop(RunStatus::Continued | RunStatus::ExecTimeout) => return None,
        })
    }

    /// Whether both streams begin anew behind it.
    pub(super) fn ends_step(&self) -> bool {
        let Self::Stop(status) = self else { return false };
        matches!(status, RunStatus::CleanFinished(_) | RunStatus::BuildFinished(_) | RunStatus::Finished(_))
    }
}

/// Where so many pieces end, of which this is the last.
pub(super) fn end(pieces: usize, last: Option<&Piece>) -> Mark {
    match last {
        Some(Piece::Text(_, raw)) => Mark { pieces: pieces - 1, bytes: raw.len() },
        _ => Mark { pieces, bytes: 0 },
    }
}

/// What JSON takes in memory, roughly: `[0,0,0,…]` takes many times the bytes it was sent in.
fn json_weight(json: &serde_json::Value) -> usize {
    size_of::<serde_json::Value>()
        + match json {
            serde_json::Value::String(text) => text.len(),
            serde_json::Value::Array(items) => items.iter().map(json_weight).sum(),
            serde_json::Value::Object(pairs) => {
                pairs.iter().map(|(key, item)| size_of::<String>() + key.len() + json_weight(item)).sum()
            }
            _ => 0,
        }
}
