//! How often a scratch directory is worth measuring; pure.

use std::time::Duration;

/// A measurement may take one part in so many of the time that goes by.
const SHARE: u32 = 50;
/// Even the costliest directory is measured again after this time.
const LONGEST: Duration = Duration::from_secs(300);

/// How long to leave a directory alone after a measurement that took `cost`: nothing to speak of for an ordinary
/// one (1 ms: 50 ms, less than the reporter's period), 100 s for one that ran into its limit of 2 s.
pub(super) fn pause_after(cost: Duration) -> Duration {
    cost.saturating_mul(SHARE).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costly_directories_are_measured_less_often() {
        let check =
            |cost, pause| assert_eq!(pause_after(Duration::from_millis(cost)), Duration::from_millis(pause));
        check(0, 0);
        check(1, 50);
        check(2_000, 100_000);
        check(60_000, 300_000);
        assert_eq!(pause_after(Duration::MAX), LONGEST);
    }
}
