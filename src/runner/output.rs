//! Aggregation of one run's output between two answers (PROTOCOL section 8).

use std::collections::VecDeque;

use bytes::Bytes;

use super::spill::Unwritten;
use super::utf8::Utf8;
use crate::wire::record::Record;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// Output at which reading from the runner stops until somebody collects, in bytes (section 12, item 29).
pub const FULL: usize = 8 * 1024 * 1024;

/// The same while somebody waits for completions, which come through the same socket behind the output.
pub const FULL_WHILE_ASKING: usize = 64 * 1024 * 1024;

/// What an item costs beside its text, so that a flood of empty items fills the buffer too.
const ITEM_COST: usize = 64;

/// What came since the last answer, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Items and the points at which an answer must end.
    pieces: VecDeque<Piece>,
    /// Roughly what `pieces` hold, in bytes; what back-pressure goes by.
    bytes: usize,
    /// Standard output's decoder; starts anew at every end of a step.
    stdout: Utf8,
    /// Standard error's decoder.
    stderr: Utf8,
    /// What of this the disk does not hold yet.
    pub(super) unwritten: Unwritten,
}

#[derive(Debug)]
enum Piece {
    Item(ConsoleItem),
    Stop(RunStatus),
}

impl Output {
    /// Output that an earlier life of the agent had on the disk.
    #[must_use]
    pub fn restored(records: Vec<Record>) -> Self {
        let mut output = Self { unwritten: Unwritten::restored(), ..Self::default() };
        for record in records {
            output.add(record);
        }
        output
    }

    /// Adds a record. Whether an answer that waits for this run can go out now.
    pub fn push(&mut self, record: Record) -> bool {
        self.unwritten.came(&record);
        self.add(record)
    }

    fn add(&mut self, record: Record) -> bool {
        match record {
            Record::Stdout(bytes) => {
                let text = self.stdout.feed(&bytes);
                self.text(text, false);
            }
            Record::Stderr(bytes) => {
                let text = self.stderr.feed(&bytes);
                self.text(text, true);
            }
            Record::Media(mime, data) => self.item(mime.len() + data.len(), ConsoleItem::Media(mime, data)),
            Record::Html(text) => self.item(text.len(), ConsoleItem::Html(text)),
            Record::Log(text) => self.item(text.len(), ConsoleItem::Log(text)),
            Record::Completion(json) => self.item(json_weight(&json), ConsoleItem::Completion(json)),
            Record::WaitingInput(options) => self.stop(RunStatus::WaitingInput(options)),
            Record::CleanFinished(code) => {
                self.end_streams();
                self.stop(RunStatus::CleanFinished(code));
            }
            Record::BuildFinished(code) => {
                self.end_streams();
                self.stop(RunStatus::BuildFinished(code));
            }
            Record::Finished(code) => {
                self.end_streams();
                self.stop(RunStatus::Finished(code));
            }
            Record::Status | Record::ServiceResult(_) => {}
        }
        matches!(self.pieces.back(), Some(Piece::Stop(_))) || self.is_full()
    }

    /// A note of the agent's own among the error output.
    pub fn note(&mut self, text: &str) {
        self.push(Record::Stderr(format!("{text}\n").into()));
    }

    /// Ends the answer here with this status.
    pub fn stop(&mut self, status: RunStatus) {
        let piece = Piece::Stop(status);
        self.bytes += cost(&piece);
        self.pieces.push_back(piece);
    }

    /// Everything up to the next end of an answer, or all there is.
    pub fn take(&mut self) -> (Vec<ConsoleItem>, Option<RunStatus>) {
        let (mut items, mut stop) = (Vec::new(), None);
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Item(item) => items.push(item),
                Piece::Stop(status) => {
                    stop = Some(status);
                    break;
                }
            }
        }
        self.bytes = self.pieces.iter().map(cost).sum();
        self.unwritten.collected(self.pieces.iter().filter_map(record).collect());
        (items, stop)
    }

    /// Takes back what [`Self::take`] gave and nobody was answered.
    pub fn give_back(&mut self, items: Vec<ConsoleItem>, stop: Option<RunStatus>) {
        let pieces = items.into_iter().map(Piece::Item).chain(stop.map(Piece::Stop)).collect::<Vec<_>>();
        for piece in pieces.into_iter().rev() {
            match (piece, self.pieces.front_mut()) {
                (Piece::Item(ConsoleItem::Stdout(text)), Some(Piece::Item(ConsoleItem::Stdout(next))))
                | (Piece::Item(ConsoleItem::Stderr(text)), Some(Piece::Item(ConsoleItem::Stderr(next)))) => {
                    next.insert_str(0, &text);
                }
                (piece, _) => self.pieces.push_front(piece),
            }
        }
        self.bytes = self.pieces.iter().map(cost).sum();
        self.unwritten.collected(self.pieces.iter().filter_map(record).collect());
    }

    /// Whether a whole answer waits here.
    #[must_use]
    pub fn holds_stop(&self) -> bool {
        // A stop is followed by little: the runner does not go on before it is answered or the run is over.
        self.pieces.iter().rev().any(|p| matches!(p, Piece::Stop(_)))
    }

    /// Whether the next answer is the run's last.
    #[must_use]
    pub fn ends_next(&self) -> bool {
        let next = self.pieces.iter().find(|piece| matches!(piece, Piece::Stop(_)));
        matches!(next, Some(Piece::Stop(RunStatus::Finished(_))))
    }

    /// Whether the run's end is among it.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.pieces.iter().any(|p| matches!(p, Piece::Stop(RunStatus::Finished(_))))
    }

    /// Whether collecting can't wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// Roughly what it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn end_streams(&mut self) {
        let cut = [(self.stdout.finish(), false), (self.stderr.finish(), true)];
        for (rest, is_stderr) in cut {
            self.text(rest.map(String::from).unwrap_or_default(), is_stderr);
        }
    }

    /// Joins text to the item before it when that is of the same stream.
    fn text(&mut self, text: String, is_stderr: bool) {
        if text.is_empty() {
            return;
        }
        let last = match self.pieces.back_mut() {
            Some(Piece::Item(ConsoleItem::Stdout(last))) if !is_stderr => Some(last),
            Some(Piece::Item(ConsoleItem::Stderr(last))) if is_stderr => Some(last),
            _ => None,
        };
        if let Some(last) = last {
            self.bytes += text.len();
            last.push_str(&text);
        } else if is_stderr {
            self.item(text.len(), ConsoleItem::Stderr(text));
        } else {
            self.item(text.len(), ConsoleItem::Stdout(text));
        }
    }

    fn item(&mut self, length: usize, item: ConsoleItem) {
        self.bytes += length + ITEM_COST;
        self.pieces.push_back(Piece::Item(item));
    }
}

/// The record that a piece came from, or one that makes the same piece again. An end that the agent itself set has none: its
/// kernel ends with it.
fn record(piece: &Piece) -> Option<Record> {
    let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    Some(match piece {
        Piece::Item(ConsoleItem::Stdout(text)) => Record::Stdout(bytes(text)),
        Piece::Item(ConsoleItem::Stderr(text)) => Record::Stderr(bytes(text)),
        Piece::Item(ConsoleItem::Media(mime, data)) => Record::Media(mime.clone(), data.clone()),
        Piece::Item(ConsoleItem::Html(text)) => Record::Html(text.clone()),
        Piece::Item(ConsoleItem::Log(text)) => Record::Log(text.clone()),
        Piece::Item(ConsoleItem::Completion(found)) => Record::Completion(found.clone()),
        Piece::Stop(RunStatus::WaitingInput(options)) => Record::WaitingInput(options.clone()),
        Piece::Stop(RunStatus::CleanFinished(code)) => Record::CleanFinished(*code),
        Piece::Stop(RunStatus::BuildFinished(code)) => Record::BuildFinished(*code),
        Piece::Stop(RunStatus::Finished(code)) => Record::Finished(*code),
        Piece::Stop(RunStatus::Continued | RunStatus::ExecTimeout) => return None,
    })
}

fn cost(piece: &Piece) -> usize {
    ITEM_COST
        + match piece {
            Piece::Item(
                ConsoleItem::Stdout(t) | ConsoleItem::Stderr(t) | ConsoleItem::Html(t) | ConsoleItem::Log(t),
            ) => t.len(),
            Piece::Item(ConsoleItem::Media(a, b)) => a.len() + b.len(),
            Piece::Item(ConsoleItem::Completion(json)) | Piece::Stop(RunStatus::WaitingInput(json)) => {
                json_weight(json)
            }
            Piece::Stop(_) => 0,
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn out(text: &str) -> Record {
        Record::Stdout(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn err(text: &str) -> Record {
        Record::Stderr(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The simple model: a list of (stream, text), neighbours joined at the end.
    fn model(writes: &[(bool, String)]) -> Vec<ConsoleItem> {
        let mut joined: Vec<(bool, String)> = Vec::new();
        for (stream, text) in writes.iter().filter(|(_, t)| !t.is_empty()) {
            match joined.last_mut() {
                Some((last, so_far)) if last == stream => so_far.push_str(text),
                _ => joined.push((*stream, text.clone())),
            }
        }
        joined
            .into_iter()
            .map(|(e, t)| if e { ConsoleItem::Stderr(t) } else { ConsoleItem::Stdout(t) })
            .collect()
    }

    proptest! {
        #[test]
        fn aggregation_agrees_with_the_model(writes in proptest::collection::vec((any::<bool>(), ".{0,5}"), 0..20)) {
            let mut output = Output::default();
            for (is_err, text) in &writes {
                output.push(if *is_err { err(text) } else { out(text) });
            }
            prop_assert!(output.push(Record::Finished(Some(0))));
            let (items, status) = output.take();
            prop_assert_eq!(items, model(&writes));
            prop_assert_eq!(status, Some(RunStatus::Finished(Some(0))));
            prop_assert_eq!(output.bytes(), 0);
        }
    }

    #[test]
    fn an_answer_ends_at_the_first_stop() {
        let mut output = Output::default();
        output.push(out("a"));
        output.push(Record::CleanFinished(Some(1)));
        output.push(Record::BuildFinished(Some(0)));
        output.push(out("b"));
        assert!(output.holds_stop());
        assert_eq!(
            output.take(),
            (vec![ConsoleItem::Stdout("a".into())], Some(RunStatus::CleanFinished(Some(1))))
        );
        assert_eq!(output.take(), (vec![], Some(RunStatus::BuildFinished(Some(0)))));
        assert_eq!(output.take(), (vec![ConsoleItem::Stdout("b".into())], None));
    }

    #[test]
    fn what_is_given_back_is_as_if_it_had_not_been_taken() {
        let mut output = Output::default();
        output.push(out("a"));
        output.push(Record::WaitingInput(serde_json::json!({})));
        let before = output.bytes();
        let (items, stop) = output.take();
        output.give_back(items, stop);
        assert_eq!(output.bytes(), before);
        output.push(err("b"));
        let (items, stop) = output.take();
        assert_eq!(items, [ConsoleItem::Stdout("a".into())]);
        assert_eq!(output.take().0, [ConsoleItem::Stderr("b".into())]);
        output.push(out("c"));
        output.give_back(items, stop.filter(|_| false));
        assert_eq!(output.take().0, [ConsoleItem::Stdout("ac".into())], "neighbours are joined");
    }

    #[test]
    fn a_character_cut_at_the_end_of_a_step_is_replaced() {
        let mut output = Output::default();
        output.push(Record::Stdout(Bytes::from_static(b"x\xe2\x98")));
        output.push(Record::Finished(None));
        assert_eq!(output.take().0, [ConsoleItem::Stdout("x\u{fffd}".into())]);
    }

    #[test]
    fn it_is_full_of_text_and_of_many_empty_items() {
        let mut output = Output::default();
        assert!(output.push(out(&"x".repeat(FULL))));
        let mut output = Output::default();
        for _ in 0..=FULL / ITEM_COST {
            output.push(Record::Html(String::new()));
        }
        assert!(output.is_full());
    }

    /// User code can ask for input as often and at such length as it likes.
    #[test]
    fn options_of_a_stop_fill_the_buffer_by_what_they_take_in_memory() {
        let mut output = Output::default();
        let options = serde_json::json!({ "prompt": "x".repeat(FULL / 2), "list": vec![0; 1000] });
        output.push(Record::WaitingInput(options.clone()));
        assert!(!output.is_full());
        assert!(output.bytes() > FULL / 2 + 1000 * size_of::<serde_json::Value>());
        let one = output.bytes();
        output.push(Record::WaitingInput(options));
        assert!(output.is_full());
        output.take();
        assert_eq!(output.bytes(), one);
        output.take();
        assert_eq!(output.bytes(), 0);
    }
}
