//! The clock: heartbeats and statistics carry times that others compare.

use super::finding::Finding;

/// From this difference on, in seconds, somebody should look: statistics expire after 30 s.
const TOO_FAR: f64 = 5.0;

/// `ahead`: how far Redis' clock is ahead, where Redis said.
pub(super) fn look(ahead: Option<f64>) -> Vec<Finding> {
    vec![match ahead {
        None => Finding::good("clock", "", "nobody to compare with: Redis was not reached"),
        Some(ahead) if ahead.abs() >= TOO_FAR => Finding::doubtful(
            "clock",
            "",
            format!("differs from that of Redis' machine by {ahead:.1} s"),
            "keep both right with NTP (timedatectl set-ntp true)",
        ),
        Some(ahead) => {
            Finding::good("clock", "", format!("as that of Redis' machine, to {:.1} s", ahead.abs()))
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_is_told() {
        for (ahead, verdict) in [
            (None, Verdict::Good),
            (Some(-0.2), Verdict::Good),
            (Some(5.0), Verdict::Doubtful),
            (Some(-3600.0), Verdict::Doubtful),
        ] {
            assert_eq!(look(ahead)[0].verdict, verdict, "{ahead:?}");
        }
    }
}
