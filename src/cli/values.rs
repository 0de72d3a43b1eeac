//! From text to values. Pure; `None` is a text that does not fit, and its setting says what would.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::address::HostPort;
use crate::scratch::Acl;

/// 365 days: beyond that a duration is a slip of the finger.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// 1 TiB, in MiB.
const LARGEST_LOG: f64 = 1_048_576.0;

/// What a boolean environment variable may say; the reference takes the words, not the digits.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Seconds, with or without a fraction, or a number with a unit: `90`, `0.5`, `250ms`, `90s`, `10m`, `12h`, `7d`.
/// Exact to the millisecond; what is not zero does not become zero.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1.0,
        "" | "s" => 1000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let least = if number > 0.0 { 1.0 } else { 0.0 };
    // Not negative, having no sign; what is far too large becomes the largest integer, and is refused next.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ms = (number * unit_ms).round().max(least) as u64;
    Some(Duration::from_millis(ms)).filter(|duration| *duration <= LONGEST)
}

/// A duration between two others.
pub(super) fn duration_in(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Option<Duration> {
    move |text| duration(text).filter(|duration| range.contains(duration))
}

/// A duration of a tenth of a second at least, or zero, which switches something off.
pub(super) fn duration_or_off(text: &str) -> Option<Duration> {
    duration(text).filter(|duration| duration.is_zero() || *duration >= Duration::from_millis(100))
}

/// 0 or more.
pub(super) fn count(text: &str) -> Option<i64> {
    text.parse().ok().filter(|count| *count >= 0)
}

/// 1–65535.
pub(super) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// One `HOST:PORT` or several, with commas between them.
pub(super) fn host_ports(text: &str) -> Option<Vec<HostPort>> {
    text.split(',').map(|one| one.trim().parse().ok()).collect()
}

/// Something that becomes a part of an etcd key and of labels: no `/`, no white space, not empty.
pub(super) fn name(text: &str) -> Option<String> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    (!text.is_empty() && !text.contains(odd)).then(|| text.to_owned())
}

/// Anything on one line that isn't blank.
pub(super) fn text(text: &str) -> Option<String> {
    (!text.trim().is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// `unix://` and an absolute path, or `tcp://` and a host and port.
pub(super) fn docker_host(text: &str) -> Option<String> {
    let path = text.strip_prefix("unix://").is_some_and(|path| path.len() > 1 && path.starts_with('/'));
    (path || HostPort::from_endpoint(text).is_some()).then(|| text.to_owned())
}

/// An `http` or `https` URL without a user, query or fragment.
pub(super) fn url(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain)
        .then(|| text.trim_end_matches('/').to_owned())
}

/// The first part of S3 keys.
pub(super) fn prefix(text: &str) -> Option<String> {
    (!text.contains(char::is_control)).then(|| text.trim_matches('/').to_owned())
}

/// The two of S3's many access lists that make sense here.
pub(super) fn acl(text: &str) -> Option<Acl> {
    match text {
        "private" => Some(Acl::Private),
        "public-read" => Some(Acl::PublicRead),
        _ => None,
    }
}

/// MiB, with or without a fraction, as bytes; what is not zero does not become zero.
pub(super) fn mebibytes(text: &str) -> Option<u64> {
    let mebibytes: f64 = text.parse().ok()?;
    if !(0.0..=LARGEST_LOG).contains(&mebibytes) {
        return None;
    }
    // In range, as was just checked.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((mebibytes * 1_048_576.0).ceil() as u64)
}

/// How many old log files stay; more than a thousand would make each rotation slow.
pub(super) fn file_count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| *count <= 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: std::fmt::Debug + PartialEq>(
        parse: impl Fn(&str) -> Option<T>,
        good: &[(&str, T)],
        bad: &[&str],
    ) {
        for (text, expected) in good {
            assert_eq!(parse(text).as_ref(), Some(expected), "{text:?}");
        }
        for text in bad {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        let ms = Duration::from_millis;
        let good = [
            ("0", ms(0)),
            ("600", ms(600_000)),
            ("0.25", ms(250)),
            ("250ms", ms(250)),
            ("3s", ms(3000)),
            ("1.5m", ms(90_000)),
            ("12h", ms(12 * 3_600_000)),
            ("7d", ms(604_800_000)),
        ];
        let bad = [
            "",
            "s",
            ".",
            "-1",
            "+1",
            "1e3",
            "1 s",
            "1S",
            "1w",
            "inf",
            "nan",
            "1.2.3",
            "366d",
            "9999999999999999999999",
        ];
        check(duration, &good, &bad);
        check(duration_or_off, &[("0", ms(0)), ("0s", ms(0)), ("3", ms(3000))], &["50ms", "0.0001", "x"]);
        check(duration_in(ms(100)..=ms(4000)), &[("3", ms(3000)), ("4", ms(4000))], &["0", "99ms", "4001ms"]);
    }

    #[test]
    fn booleans_as_the_reference_takes_them_and_digits() {
        let good = [
            ("1", true),
            ("true", true),
            ("YES", true),
            ("On", true),
            ("0", false),
            ("no", false),
            ("False", false),
        ];
        check(boolean, &good, &["", "2", "y", " true", "enabled"]);
    }

    #[test]
    fn addresses() {
        check(port, &[("1", 1), ("65535", 65535)], &["", "0", "65536", "-1", "6001 "]);
        let both = host_ports("a:1, [::1]:2").unwrap();
        assert_eq!(both.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "[::1]:2"]);
        assert_eq!(host_ports("a:1,"), None);
        let unix = "unix:///var/run/docker.sock";
        let docker = [(unix, unix.to_owned()), ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375".to_owned())];
        check(
            docker_host,
            &docker,
            &[
                "",
                "unix://",
                "unix:///",
                "unix://docker.sock",
                "tcp://h",
                "http://h:1",
                "/var/run/docker.sock",
            ],
        );
        let good = [("http://minio:9000/", "http://minio:9000".to_owned())];
        check(url, &good, &["", "minio:9000", "ftp://h", "http://u:p@h", "http://h/?a", "http://"]);
    }

    #[test]
    fn names_and_sizes() {
        check(name, &[("local", "local".to_owned())], &["", "a/b", "a b", "a\n"]);
        check(text, &[("us east", "us east".to_owned())], &["", " ", "a\nb"]);
        check(prefix, &[("/a/b/", "a/b".to_owned()), ("", String::new())], &["a\0"]);
        let good = [("10.0", 10 << 20), ("0.5", 1 << 19), ("1e-9", 1), ("0", 0)];
        check(mebibytes, &good, &["", "-1", "nan", "inf", "10M", "1e30"]);
        check(
            acl,
            &[("private", Acl::Private), ("public-read", Acl::PublicRead)],
            &["", "Private", "public"],
        );
    }

    proptest! {
        #[test]
        fn any_number_of_milliseconds_comes_back(ms in 0_u64..31_536_000_000) {
            prop_assert_eq!(duration(&format!("{ms}ms")), Some(Duration::from_millis(ms)));
        }

        #[test]
        fn a_duration_is_never_odd(text in "[0-9.]{0,25}[a-z]{0,2}|.*") {
            if let Some(duration) = duration(&text) {
                prop_assert!(duration <= LONGEST);
            }
        }
    }
}
