//! Whether Docker answers, judged by probes. Pure; time comes in as an argument.
//!
//! One late answer proves nothing: a busy engine gives one now and then, and a machine whose slots come and go with it gets no
//! sessions. Two in a row count, and one good answer ends it.

use std::time::{Duration, Instant};

use crate::patience::Outage;

/// How many probes in a row have to fail.
const MISSES: u32 = 2;

/// Docker, as the probes see it.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The failures in a row, and since when.
    outage: Outage,
}

/// What a probe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Docker does not answer any more.
    Lost,
    /// Docker answers again, after so long.
    Back(Duration),
}

impl Pulse {
    /// A probe that began at `now` was answered, or not.
    pub(super) fn probed(&mut self, is_answered: bool, now: Instant) -> Option<Change> {
        if !is_answered {
            // Not told yet, whether or not it is the first.
            let _: bool = self.outage.failed(now);
            return (self.outage.failures() == MISSES).then_some(Change::Lost);
        }
        let past = self.outage.worked(now)?;
        (past.failures >= MISSES).then_some(Change::Back(past.lasted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_answer_changes_nothing_and_two_are_told_once_each_way() {
        let start = Instant::now();
        let mut pulse = Pulse::default();
        let mut told = Vec::new();
        for (second, is_answered) in "+-+--++-+---+".chars().map(|c| c == '+').enumerate() {
            let now = start + Duration::from_secs(second as u64);
            told.extend(pulse.probed(is_answered, now).map(|change| (second, change)));
        }
        let back = |seconds| Change::Back(Duration::from_secs(seconds));
        assert_eq!(told, [(4, Change::Lost), (5, back(2)), (10, Change::Lost), (12, back(3))]);
    }
}
