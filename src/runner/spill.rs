//! Output that nobody has collected, on its way to the disk, where the next life of the agent finds it. Pure.
//!
//! Records are kept as they came: read again, they make the same output again. What is collected is taken off the disk.

use crate::ids::RunId;
use crate::wire::record::Record;

/// What of one run's output is not on the disk as it should be.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Records that are to be added.
    fresh: Vec<Record>,
    /// What the disk holds was collected: it is to be replaced.
    is_stale: bool,
    /// Whether the disk holds anything.
    is_on_disk: bool,
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
    /// Of output that was read off the disk.
    pub(super) fn restored() -> Self {
        Self { is_on_disk: true, ..Self::default() }
    }

    /// A record came.
    pub(super) fn came(&mut self, record: &Record) {
        if !self.is_broken {
            self.fresh.push(record.clone());
        }
    }

    /// The output was collected, all but these records.
    pub(super) fn collected(&mut self, left: Vec<Record>) {
        *self = Self { fresh: left, is_stale: true, is_on_disk: self.is_on_disk, is_broken: false };
    }

    /// What to do now; from here on it counts as done.
    pub(super) fn take(&mut self) -> Option<Change> {
        let fresh = std::mem::take(&mut self.fresh);
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
        *self = Self { is_broken: true, is_on_disk: true, ..Self::default() };
    }

    /// Whether the disk holds anything.
    pub(super) fn is_on_disk(&self) -> bool {
        self.is_on_disk
    }

    /// Whether there is something to do.
    pub(super) fn is_due(&self) -> bool {
        !self.fresh.is_empty() || (self.is_stale && self.is_on_disk)
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
            for op in ops {
                match op {
                    Op::Came(number) => {
                        uncollected.push(record(number));
                        unwritten.came(&record(number));
                    }
                    Op::Collected(keep) => {
                        uncollected = uncollected.split_off(uncollected.len().saturating_sub(keep));
                        unwritten.collected(uncollected.clone());
                        is_broken = false;
                    }
                    Op::Refuse => if unwritten.take().is_some() {
                        unwritten.refused();
                        is_broken = true;
                    },
                    Op::Write => {
                        match unwritten.take() {
                            Some(Change::Append(records)) => disk.extend(records),
                            Some(Change::Replace(records)) => disk = records,
                            Some(Change::Remove) => disk.clear(),
                            None => {}
                        }
                        prop_assert!(!unwritten.is_due());
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
