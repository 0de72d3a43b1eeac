//! What the output of all kernels takes in memory together, and what of it one run may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Output at which reading from the runner stops until somebody collects, in bytes (section 12, item 29). More makes answers no faster:
/// it would be held, and cleared by the system for each answer; and a caller that keeps up has it before it goes to the disk.
pub const FULL: usize = 2 * 1024 * 1024;

/// Output of all runs of the node at which each may have [`LEAST`], in bytes: users who print without end are many at times, and each
/// answer is held once more until its caller has taken it.
pub(super) const ALL: usize = 16 * 1024 * 1024;

/// What a run may have whatever the others hold, in bytes.
pub(super) const LEAST: usize = 128 * 1024;

/// What the outputs of a node's kernels hold, in bytes. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<AtomicUsize>);

/// The part of one output, given back when that goes.
#[derive(Debug, Default)]
pub(super) struct Share {
    all: Held,
    own: usize,
}

impl Share {
    /// An output that holds nothing yet.
    pub(super) fn of(all: &Held) -> Self {
        Self { all: all.clone(), own: 0 }
    }

    /// Roughly what the output holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.own
    }

    /// The output holds so much more.
    pub(super) fn add(&mut self, bytes: usize) {
        self.own += bytes;
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The output holds so much.
    pub(super) fn set(&mut self, bytes: usize) {
        // One after the other: the sum is wrong for a moment, and never by more than this output.
        self.all.0.fetch_sub(std::mem::take(&mut self.own), Ordering::Relaxed);
        self.add(bytes);
    }

    /// Whether it may not hold more now.
    pub(super) fn is_full(&self) -> bool {
        self.own >= FULL || (self.own >= LEAST && self.all.0.load(Ordering::Relaxed) >= ALL)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_many_hold_much_each_may_have_less() {
        let all = Held::default();
        let mut others: Vec<Share> = (0..ALL / FULL).map(|_| Share::of(&all)).collect();
        for other in &mut others {
            other.set(FULL - 1);
            assert!(!other.is_full());
        }
        let mut one = Share::of(&all);
        one.add(LEAST - 1);
        assert!(!one.is_full() && others.iter().all(Share::is_full));
        one.add(1);
        assert!(one.is_full());
        others.pop();
        assert!(!one.is_full(), "one that is gone holds nothing");
        one.set(FULL);
        assert!(one.is_full());
        drop((one, others));
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
