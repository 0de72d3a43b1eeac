//! How often each core is handed out.

use std::collections::BTreeMap;

/// Counts by number; a number that is not handed out is not in the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<u32, u32>);

impl Tally {
    /// One more share of each of `numbers`.
    pub(super) fn add(&mut self, numbers: &[u32]) {
        for number in numbers {
            *self.0.entry(*number).or_default() += 1;
        }
    }

    /// One share less of each of `numbers`.
    pub(super) fn remove(&mut self, numbers: &[u32]) {
        for number in numbers {
            if let Some(count) = self.0.get_mut(number) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(number);
                }
            }
        }
    }

    /// The shares of `number` that are handed out.
    pub(super) fn count(&self, number: u32) -> u32 {
        self.0.get(&number).copied().unwrap_or(0)
    }

    /// All counts above 0.
    pub(super) fn counts(&self) -> &BTreeMap<u32, u32> {
        &self.0
    }
}
