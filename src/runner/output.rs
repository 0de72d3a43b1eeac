//! Aggregation of one run's output between two answers (PROTOCOL section 8).
//!
//! Text is kept as it came and becomes characters when it is collected: each byte is copied once on its way in, and what is to go to
//! the disk is not held twice.

use std::collections::VecDeque;

use super::piece::{self, Piece, Stream};
use super::spill::{Change, Mark, Unwritten};
use super::utf8::Utf8;
use crate::wire::record::Record;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// Output at which reading from the runner stops until somebody collects, in bytes (section 12, item 29).
pub const FULL: usize = 8 * 1024 * 1024;

/// The same while somebody waits for completions, which come through the same socket behind the output.
pub const FULL_WHILE_ASKING: usize = 64 * 1024 * 1024;

/// What came since the last answer, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Text, items, and the points at which an answer must end.
    pieces: VecDeque<Piece>,
    /// Roughly what `pieces` hold, in bytes; what back-pressure goes by.
    bytes: usize,
    /// What of this the disk does not hold yet.
    unwritten: Unwritten,
}

impl Output {
    /// Output that an earlier life of the agent had on the disk.
    #[must_use]
    pub fn restored(records: Vec<Record>) -> Self {
        let mut output = Self::default();
        for record in records {
            output.push(record);
        }
        output.unwritten = Unwritten::restored(output.end());
        output
    }

    /// Adds a record. Whether an answer that waits for this run can go out now.
    pub fn push(&mut self, record: Record) -> bool {
        match record {
            Record::Stdout(bytes) => self.text(Stream::Stdout, &bytes),
            Record::Stderr(bytes) => self.text(Stream::Stderr, &bytes),
            Record::Media(mime, data) => self.add(Piece::Item(ConsoleItem::Media(mime, data))),
            Record::Html(text) => self.add(Piece::Item(ConsoleItem::Html(text))),
            Record::Log(text) => self.add(Piece::Item(ConsoleItem::Log(text))),
            Record::Completion(json) => self.add(Piece::Item(ConsoleItem::Completion(json))),
            Record::WaitingInput(options) => self.stop(RunStatus::WaitingInput(options)),
            Record::CleanFinished(code) => self.stop(RunStatus::CleanFinished(code)),
            Record::BuildFinished(code) => self.stop(RunStatus::BuildFinished(code)),
            Record::Finished(code) => self.stop(RunStatus::Finished(code)),
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
        self.add(Piece::Stop(status));
    }

    /// Everything up to the next end of an answer, or all there is. The beginning of a character whose rest has not come stays.
    pub fn take(&mut self) -> (Vec<ConsoleItem>, Option<RunStatus>) {
        let (mut items, mut stop, mut decoders) = (Vec::new(), None, Decoders::default());
        while let Some(piece) = self.pieces.pop_front() {
            if piece.ends_step() {
                decoders.end(&mut items);
            }
            match piece {
                Piece::Text(stream, raw) => {
                    let text = decoders.of(stream).take(raw);
                    join(&mut items, stream, text);
                }
                Piece::Item(item) => items.push(item),
                Piece::Stop(status) => {
                    stop = Some(status);
                    break;
                }
            }
        }
        for (stream, begun) in decoders.left() {
            self.pieces.push_front(Piece::Text(stream, begun));
        }
        self.collected();
        (items, stop)
    }

    /// Takes back what [`Self::take`] gave and nobody was answered.
    pub fn give_back(&mut self, items: Vec<ConsoleItem>, stop: Option<RunStatus>) {
        let pieces = items.into_iter().map(|item| match item {
            ConsoleItem::Stdout(text) => Piece::Text(Stream::Stdout, text.into_bytes()),
            ConsoleItem::Stderr(text) => Piece::Text(Stream::Stderr, text.into_bytes()),
            item => Piece::Item(item),
        });
        let pieces: Vec<Piece> = pieces.chain(stop.map(Piece::Stop)).collect();
        for piece in pieces.into_iter().rev() {
            self.pieces.push_front(piece);
        }
        self.collected();
    }

    fn collected(&mut self) {
        self.bytes = self.pieces.iter().map(Piece::cost).sum();
        self.unwritten.collected();
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

    /// What is to be done to what the disk holds of it; from here on it counts as done.
    pub(super) fn spill(&mut self) -> Option<Change> {
        let since = self.unwritten.since()?;
        let pieces = self.pieces.iter().enumerate().skip(since.pieces);
        let fresh =
            pieces.filter_map(|(at, piece)| piece.record(if at == since.pieces { since.bytes } else { 0 }));
        self.unwritten.take(fresh.collect(), self.end())
    }

    /// Whether there is something to be done.
    pub(super) fn has_to_spill(&self) -> bool {
        self.unwritten.is_due(self.end())
    }

    /// The disk refused what was to be done.
    pub(super) fn spill_refused(&mut self) {
        self.unwritten.refused();
    }

    /// Whether the disk holds anything of it.
    pub(super) fn is_on_disk(&self) -> bool {
        self.unwritten.is_on_disk()
    }

    /// The disk is to hold nothing of it.
    pub(super) fn unkeep(&mut self) {
        self.unwritten = Unwritten::none(self.end());
    }

    fn end(&self) -> Mark {
        piece::end(self.pieces.len(), self.pieces.back())
    }

    /// Joins text to the piece before it when that is of the same stream.
    fn text(&mut self, stream: Stream, raw: &[u8]) {
        if raw.is_empty() {
            return;
        }
        match self.pieces.back_mut() {
            Some(Piece::Text(last, text)) if *last == stream => {
                self.bytes += raw.len();
                text.extend_from_slice(raw);
            }
            _ => self.add(Piece::Text(stream, raw.to_vec())),
        }
    }

    fn add(&mut self, piece: Piece) {
        self.bytes += piece.cost();
        self.pieces.push_back(piece);
    }
}

/// The decoders of both streams.
#[derive(Default)]
struct Decoders {
    stdout: Utf8,
    stderr: Utf8,
}

impl Decoders {
    fn of(&mut self, stream: Stream) -> &mut Utf8 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// A step is over: no rest comes for a character that has begun.
    fn end(&mut self, items: &mut Vec<ConsoleItem>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            join(items, stream, self.of(stream).finish().map(String::from).unwrap_or_default());
        }
    }

    /// Characters that have begun.
    fn left(self) -> impl Iterator<Item = (Stream, Vec<u8>)> {
        let begun = [(Stream::Stdout, self.stdout.begun()), (Stream::Stderr, self.stderr.begun())];
        begun.into_iter().filter(|(_, begun)| !begun.is_empty())
    }
}

/// Adds text to the item before it when that is of the same stream.
fn join(items: &mut Vec<ConsoleItem>, stream: Stream, text: String) {
    if text.is_empty() {
        return;
    }
    match (stream, items.last_mut()) {
        (Stream::Stdout, Some(ConsoleItem::Stdout(last)))
        | (Stream::Stderr, Some(ConsoleItem::Stderr(last))) => {
            last.push_str(&text);
        }
        (Stream::Stdout, _) => items.push(ConsoleItem::Stdout(text)),
        (Stream::Stderr, _) => items.push(ConsoleItem::Stderr(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::piece::ITEM_COST;
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

    #[derive(Debug, Clone)]
    enum Op {
        Came(Record),
        Collected,
        Spilled,
    }

    fn op() -> impl Strategy<Value = Op> {
        // Of characters with several bytes, cut anywhere.
        let text = || proptest::sample::select(vec![&b"x"[..], b"\xe2", b"\x98\x83", b"\xe2\x98", b"\xff"]);
        prop_oneof![
            4 => text().prop_map(|text| Op::Came(Record::Stdout(Bytes::from_static(text)))),
            2 => text().prop_map(|text| Op::Came(Record::Stderr(Bytes::from_static(text)))),
            1 => Just(Op::Came(Record::Html("h".into()))),
            1 => Just(Op::Came(Record::WaitingInput(serde_json::json!({})))),
            1 => Just(Op::Came(Record::BuildFinished(Some(0)))),
            1 => Just(Op::Collected),
            2 => Just(Op::Spilled),
        ]
    }

    proptest! {
        /// Whenever the disk is up to date, the next life of the agent answers what this one would.
        #[test]
        fn what_the_disk_holds_makes_the_same_output(ops in proptest::collection::vec(op(), 0..30)) {
            let (mut output, mut disk) = (Output::default(), Vec::new());
            let spill = |output: &mut Output, disk: &mut Vec<Record>| match output.spill() {
                Some(Change::Append(records)) => disk.extend(records),
                Some(Change::Replace(records)) => *disk = records,
                Some(Change::Remove) => disk.clear(),
                None => {}
            };
            for op in ops {
                match op {
                    Op::Came(record) => drop(output.push(record)),
                    Op::Collected => drop(output.take()),
                    Op::Spilled => spill(&mut output, &mut disk),
                }
            }
            spill(&mut output, &mut disk);
            prop_assert!(!output.has_to_spill());
            let mut restored = Output::restored(disk);
            prop_assert!(!restored.has_to_spill());
            output.push(Record::Finished(None));
            restored.push(Record::Finished(None));
            while output.holds_stop() {
                prop_assert_eq!(output.take(), restored.take());
            }
            prop_assert_eq!(restored.bytes(), 0);
        }
    }

    #[test]
    fn a_character_goes_on_over_an_answer_and_another_stream() {
        let mut output = Output::default();
        output.push(Record::Stdout(Bytes::from_static(b"x\xe2")));
        output.push(Record::WaitingInput(serde_json::json!({})));
        output.push(err("e"));
        output.push(Record::Stdout(Bytes::from_static(b"\x98\x83")));
        let (items, stop) = output.take();
        assert_eq!(items, [ConsoleItem::Stdout("x".into())]);
        output.give_back(items, stop);
        output.take();
        let rest = [ConsoleItem::Stderr("e".into()), ConsoleItem::Stdout("\u{2603}".into())];
        assert_eq!(output.take().0, rest);
        assert_eq!(output.bytes(), 0);
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
