//! Patience with what fails: how long to wait before the next attempt, and which of many failures are worth a log
//! line. Pure: the caller brings the time and the randomness.

use std::time::{Duration, Instant};

/// Pauses between attempts: each twice as long as the one before, up to a longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// The pause after the first failure, and the longest pause.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after `failures` failures in a row; none before the first.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.longest),
        }
    }

    /// The same, of which `random` takes away up to a half, so that many agents don't all come back in the same
    /// instant.
    #[must_use]
    pub fn spread(&self, failures: u32, random: u64) -> Duration {
        let pause = self.pause(failures);
        let half = u64::try_from((pause / 2).as_micros()).unwrap_or(u64::MAX - 1);
        pause.saturating_sub(Duration::from_micros(random % (half + 1)))
    }
}

/// A row of failures of one thing: the first is worth a warning, the following ones are details, and what ends the
/// row is told with their number.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// When the row began; `None` while all is well.
    since: Option<Instant>,
    /// Of this row.
    failures: u32,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// How many attempts failed.
    pub failures: u32,
    /// From the first failure to the success.
    pub lasted: Duration,
}

impl Past {
    /// How long it lasted, in seconds, to the tenth, for a log line.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        seconds(self.lasted)
    }
}

/// A duration in seconds, to the tenth, for a log line.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

impl Outage {
    /// One more failure; `true` for the first of a row, which is to be told.
    #[must_use = "the first failure of a row is to be told"]
    pub fn failed(&mut self, now: impl Into<Instant>) -> bool {
        self.failures = self.failures.saturating_add(1);
        let is_first = self.since.is_none();
        self.since.get_or_insert_with(|| now.into());
        is_first
    }

    /// The attempt succeeded. The outage that is over now, to be told, if there was one.
    #[must_use = "the end of an outage is to be told"]
    pub fn worked(&mut self, now: impl Into<Instant>) -> Option<Past> {
        let Self { since, failures } = std::mem::take(self);
        let lasted = now.into().saturating_duration_since(since?);
        Some(Past { failures, lasted })
    }

    /// How long it has lasted; zero while all is well.
    #[must_use]
    pub fn lasts(&self, now: impl Into<Instant>) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.into().saturating_duration_since(since))
    }

    /// How many attempts have failed in a row; a [`Backoff`] takes it.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// Counts what anybody may cause as often as they like; only the powers of two are worth a log line.
#[derive(Debug, Clone, Default)]
pub struct Tally(u64);

impl Tally {
    /// Counts one more; the count, if it is to be told.
    #[must_use = "the count is to be told"]
    pub fn more(&mut self) -> Option<u64> {
        self.0 = self.0.saturating_add(1);
        self.0.is_power_of_two().then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);
    const BACKOFF: Backoff = Backoff::new(FIRST, LONGEST);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|failures| BACKOFF.pause(failures).as_millis());
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    }

    #[test]
    fn an_outage_is_told_at_its_beginning_and_at_its_end() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert_eq!(outage.worked(start), None);
        assert!(outage.failed(after(1)));
        assert!(!outage.failed(after(2)));
        assert!(!outage.failed(after(5)));
        assert_eq!((outage.failures(), outage.lasts(after(8))), (3, Duration::from_secs(7)));
        assert_eq!(outage.worked(after(8)), Some(Past { failures: 3, lasted: Duration::from_secs(7) }));
        assert_eq!((outage.worked(after(9)), outage.failures()), (None, 0));
        let past = Past { failures: 1, lasted: Duration::from_millis(7_261) };
        assert!((past.seconds() - 7.3).abs() < 1e-9, "{}", past.seconds());
        assert!(outage.failed(after(10)), "the next one is news again");
    }

    #[test]
    fn few_of_many_are_told() {
        let mut tally = Tally::default();
        let told: Vec<u64> = (0..1000).filter_map(|_| tally.more()).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }

    proptest! {
        #[test]
        fn pauses_stay_in_bounds(
            first in 0..5_000_u64, longest in 0..u64::MAX, failures in any::<u32>(), random in any::<u64>(),
        ) {
            let backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(longest));
            let (pause, spread) = (backoff.pause(failures), backoff.spread(failures, random));
            prop_assert!(pause <= Duration::from_millis(longest), "{pause:?}");
            prop_assert!(spread <= pause && spread >= pause / 2, "{spread:?} of {pause:?}");
        }

        #[test]
        fn later_pauses_are_no_shorter(failures in any::<u32>()) {
            prop_assert!(BACKOFF.pause(failures.saturating_add(1)) >= BACKOFF.pause(failures));
        }

        #[test]
        fn each_outage_is_told_twice_and_no_failure_is_lost(is_good in proptest::collection::vec(any::<bool>(), 0..50)) {
            let start = Instant::now();
            let mut outage = Outage::default();
            let (mut begun, mut ended, mut counted) = (0, 0, 0);
            for (at, good) in is_good.iter().enumerate() {
                let now = start + Duration::from_secs(at as u64);
                if *good {
                    if let Some(past) = outage.worked(now) {
                        ended += 1;
                        counted += past.failures as usize;
                    }
                } else if outage.failed(now) {
                    begun += 1;
                }
            }
            let is_open = outage.failures() > 0;
            prop_assert_eq!(begun, ended + usize::from(is_open));
            prop_assert_eq!(counted + outage.failures() as usize, is_good.iter().filter(|good| !**good).count());
        }
    }
}
