//! How far a pull has come. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::docker::PullStep;
use crate::units::Memory;

/// What the engine said of one pull so far.
#[derive(Debug)]
pub(super) struct Progress {
    /// By layer: bytes that are here, and all of its bytes.
    layers: HashMap<String, (u64, u64)>,
    /// When something moved last.
    moved: Instant,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { layers: HashMap::new(), moved: now }
    }

    /// One more message.
    pub(super) fn add(&mut self, step: PullStep, now: Instant) {
        let before = self.layers.get(&step.layer).copied();
        let total = step.total.max(before.map_or(0, |(_, total)| total));
        // Unpacking counts from the beginning again; what is here stays here.
        let done = step.done.max(before.map_or(0, |(done, _)| done)).min(total);
        self.layers.insert(step.layer, (done, total));
        self.moved = now;
    }

    /// What is here, and all that is known to come.
    pub(super) fn sums(&self) -> (Memory, Memory) {
        let sum = |of: fn(&(u64, u64)) -> u64| Memory::from_bytes(self.layers.values().map(of).sum());
        (sum(|(done, _)| *done), sum(|(_, total)| *total))
    }

    /// Whether nothing moved for so long.
    pub(super) fn is_stalled(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_added_up_and_never_go_back() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut progress = Progress::new(now);
        let step = |layer: &str, done, total| PullStep { layer: layer.into(), done, total };
        progress.add(step("a", 10, 100), now);
        progress.add(step("b", 5, 50), now + second);
        progress.add(step("a", 100, 100), now + second);
        progress.add(step("a", 1, 100), now + second);
        progress.add(step("a", 0, 0), now + second);
        assert_eq!(progress.sums(), (Memory::from_bytes(105), Memory::from_bytes(150)));
        assert!(!progress.is_stalled(second, now + second));
        assert!(progress.is_stalled(second, now + 2 * second));
    }
}
