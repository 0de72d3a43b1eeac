//! How long to wait before etcd is tried again. Pure: the caller brings the randomness.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(2);

/// The pause after `round` rounds in which no endpoint answered: doubling from 0.1 s to 2 s, of which
/// `random` takes away up to a half, so that the agents of a cluster don't all come back in the same instant.
pub(super) fn pause(round: u32, random: u64) -> Duration {
    let full = FIRST.saturating_mul(1 << round.min(16)).min(LONGEST);
    let half = full / 2;
    let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
    half + Duration::from_micros(random % (micros + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_stay_in_bounds(round in any::<u32>(), random in any::<u64>()) {
            let pause = pause(round, random);
            prop_assert!(pause >= FIRST / 2 && pause <= LONGEST, "{pause:?}");
        }

        #[test]
        fn later_rounds_wait_no_less(round in 0..20u32, random in any::<u64>()) {
            prop_assert!(pause(round + 5, random) >= pause(round, 0));
        }
    }
}
