//! Aggregation of one run's output between two answers (PROTOCOL section 8).
//!
//! Text is kept as it came and becomes characters when it is collected: each byte is copied once on its way in, and what is to go to
//! the disk is not held twice.

use std::collections::VecDeque;

pub use super::held::FULL;
use super::held::{Held, Share};
use super::piece::{self, Piece, Stream};
use super::spill::{Change, Mark, Unwritten};
use super::utf8::Utf8;
use crate::wire::record::Record;
use crate::wire::reply::{ConsoleItem, RunStatus};

/// Output at which reading from the runner stops while somebody waits for completions, which come through the same socket behind the output.
pub const FULL_WHILE_ASKING: usize = 64 * 1024 * 1024;

/// What came since the last answer, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Text, items, and the points at which an answer must end.
    pieces: VecDeque<Piece>,
    /// Roughly what `pieces` hold; what back-pressure goes by.
    share: Share,
    /// Whether it was more than it may be: until it is collected, also if others make room.
    full: bool,
    /// What of this the disk does not hold yet.
    unwritten: Unwritten,
}

impl Output {
    /// Of a run of the node whose outputs are counted together in `all`.
    pub(super) fn among(all: &Held) -> Self {
        Self { share: Share::of(all), ..Self::default() }
    }

    /// Counted among others from now on.
    pub(super) fn join(&mut self, all: &Held) {
        let bytes = self.bytes();
        self.share = Share::of(all);
        self.share.set(bytes);
    }

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
        self.share.set(self.pieces.iter().map(Piece::cost).sum());
        self.full = self.share.is_full();
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
        self.full
    }

    /// Roughly what it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.share.bytes()
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

    /// How often it was collected so far: what the disk lacks came later.
    pub(super) fn collections(&self) -> u64 {
        self.unwritten.collections()
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
                text.extend_from_slice(raw);
                self.grown(raw.len());
            }
            _ => self.add(Piece::Text(stream, raw.to_vec())),
        }
    }

    fn add(&mut self, piece: Piece) {
        let cost = piece.cost();
        self.pieces.push_back(piece);
        self.grown(cost);
    }

    fn grown(&mut self, bytes: usize) {
        self.share.add(bytes);
        self.full |= self.share.is_full();
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
mod tests;
