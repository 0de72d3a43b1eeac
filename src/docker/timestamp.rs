//! The engine's time stamps (RFC 3339). Pure.

use std::time::{Duration, SystemTime};

/// `2026-11-24T15:42:02.123456789Z`, or with an offset like `+09:00`.
///
/// `None` for what can't be read and for times before 1970: the engine writes the year 1 for "never".
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute, second) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let since_epoch = u64::try_from(seconds - offset_seconds(zone)?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(since_epoch, nanoseconds(fraction)?))
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 4 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.get(..9).unwrap_or(fraction);
    format!("{digits:0<9}").parse().ok()
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

/// Days between 1970-01-01 and a date of the Gregorian calendar, counted in years that begin in March, so that
/// the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Option<u128> {
        parse(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos())
    }

    #[test]
    fn known_moments() {
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2000-02-29T12:00:00.5Z"), Some(951_825_600_500_000_000));
        assert_eq!(nanos("2026-11-24T15:42:02.123456789Z"), Some(1_795_534_922_123_456_789));
        assert_eq!(nanos("2026-11-25T00:42:02.123456789+09:00"), nanos("2026-11-24T15:42:02.123456789Z"));
    }

    #[test]
    fn never_and_nonsense_are_none() {
        for text in ["0001-01-01T00:00:00Z", "", "2026-11-24", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn consecutive_days_are_a_day_apart(year in 1970i64..2400, month in 1i64..=12, day in 1i64..28) {
            prop_assert_eq!(days_since_1970(year, month, day) + 1, days_since_1970(year, month, day + 1));
            let (y, m) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            let length = days_since_1970(y, m, 1) - days_since_1970(year, month, 1);
            prop_assert!((28..=31).contains(&length));
        }
    }
}
