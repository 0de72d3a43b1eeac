//! Output that nobody has collected, on its way to the disk, where the next life of the agent finds it. Pure.
//!
//! Read again, what the disk holds makes the same output again. What is collected is taken off the disk.

use crate::ids::RunId;
use crate::wire::record::Record;

/// A place in a run's output, which only grows behind it until somebody collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// So many pieces are before it,
    pub(super) pieces: usize,
    /// and so many bytes of the next.
    pub(super) bytes: usize,
}

/// What of one run's output is not on the disk as it should be.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// What is behind it is to be added.
    since: Mark,
    /// What the disk holds was collected: it is to be replaced.
    is_stale: bool,
    /// Whether the disk holds anything.
    is_on_disk: bool,
    /// How often the output was collected.
    collections: u64,
    /// The disk refused: what it holds has a gap, so nothing more is written until the output was collected.
    is_broken: bool,
}

/// What is to be done to the output of one run on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Spilled {
    /// Tells the kernel's runs apart, and orders them.
    pub number: u64,
    /// Which run.
    pub run: RunId,
    /// What to do.
    pub change: Change,
}

/// A change to what the disk holds of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Add these records.
    Append(Vec<Record>),
    /// Replace everything by these.
    Replace(Vec<Record>),
    /// Remove everything.
    Remove,
}

/// Output that an earlier life of the agent left.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOutput {
    /// The number under which it is on the disk.
    pub number: u64,
    /// Whose it is.
    pub run: RunId,
    /// The records.
    pub records: Vec<Record>,
}

impl Unwritten {
    /// Of output that was read off the disk, up to its end.
    pub(super) fn restored(end: Mark) -> Self {
        Self { since: end, is_on_disk: true, ..Self::default() }
    }

    /// Of output up to this end, of which the disk is to hold nothing.
    pub(super) fn none(end: Mark) -> Self {
        Self { since: end, ..Self::default() }
    }

    /// The output was collected, all but what is there now.
    pub(super) fn collected(&mut self) {
        let collections = self.collections.wrapping_add(1);
        *self = Self { is_stale: true, is_on_disk: self.is_on_disk, collections, ..Self::default() };
    }

    /// What is behind it is to be added; `None` while nothing is written.
    pub(super) fn since(&self) -> Option<Mark> {
        (!self.is_broken).then_some(self.since)
    }

    /// What to do now with the records behind [`Self::since`], of output with this end; from here on it counts as done.
    pub(super) fn take(&mut self, fresh: Vec<Record>, end: Mark) -> Option<Change> {
        self.since = end;
        let is_stale = std::mem::take(&mut self.is_stale) && self.is_on_disk;
        let change = match (is_stale, fresh.is_empty()) {
            (false, true) => return None,
            (false, false) => Change::Append(fresh),
            (true, false) => Change::Replace(fresh),
            (true, true) => Change::Remove,
        };
        self.is_on_disk = change != Change::Remove;
        Some(change)
    }

    /// The disk refused what was [taken](Self::take).
    pub(super) fn refused(&mut self) {
        *self = Self { is_broken: true, is_on_disk: true, collections: self.collections, ..Self::default() };
    }

    /// How often the output was collected so far.
    pub(super) fn collections(&self) -> u64 {
        self.collections
    }

    /// Whether the disk holds anything.
    pub(super) fn is_on_disk(&self) -> bool {
        self.is_on_disk
    }

    /// Whether there is something to do about output with this end.
    pub(super) fn is_due(&self, end: Mark) -> bool {
        !self.is_broken && (self.since != end || (self.is_stale && self.is_on_disk))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn record(number: u8) -> Record {
        Record::Stdout(Bytes::from(vec![number]))
    }

    #[derive(Debug, Clone)]
    enum Op {
        Came(u8),
        Collected(usize),
        Write,
        Refuse,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => any::<u8>().prop_map(Op::Came),
            2 => (0..3_usize).prop_map(Op::Collected),
            3 => Just(Op::Write),
            1 => Just(Op::Refuse),
        ]
    }

    proptest! {
        /// After each write the disk holds exactly what was not collected, unless it has refused since.
        #[test]
        fn the_disk_holds_what_was_not_collected(ops in prop::collection::vec(op(), 0..40)) {
            let (mut unwritten, mut uncollected, mut disk) = (Unwritten::default(), Vec::new(), Vec::new());
            let mut is_broken = false;
            let end = |uncollected: &[Record]| Mark { pieces: uncollected.len(), bytes: 0 };
            let take = |unwritten: &mut Unwritten, uncollected: &[Record]| {
                let since = unwritten.since()?;
                unwritten.take(uncollected[since.pieces..].to_vec(), end(uncollected))
            };
            for op in ops {
                match op {
                    Op::Came(number) => uncollected.push(record(number)),
                    Op::Collected(keep) => {
                        uncollected = uncollected.split_off(uncollected.len().saturating_sub(keep));
                        unwritten.collected();
                        is_broken = false;
                    }
                    Op::Refuse => if take(&mut unwritten, &uncollected).is_some() {
                        unwritten.refused();
                        is_broken = true;
                    },
                    Op::Write => {
                        match take(&mut unwritten, &uncollected) {
                            Some(Change::Append(records)) => disk.extend(records),
                            Some(Change::Replace(records)) => disk = records,
                            Some(Change::Remove) => disk.clear(),
                            None => {}
                        }
                        prop_assert!(!unwritten.is_due(end(&uncollected)));
                        if !is_broken {
                            prop_assert_eq!(&disk, &uncollected);
                        }
                        prop_assert!(unwritten.is_on_disk() || disk.is_empty());
                    }
                }
            }
        }
    }
}
