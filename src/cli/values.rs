//! From text to values. Pure; `None` is a text that does not fit, and [`wants`] says what would.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::address::{self, HostPort};
use crate::agent::config::SocketPlace;
use crate::scratch::{Acl, Quota};
use crate::secret::Secret;
use crate::units::Memory;

/// 365 days: beyond that a duration is a slip of the finger.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Beyond 1 TiB a log file's size is one, too.
const LARGEST_LOG: Memory = Memory::from_mib(1 << 20);

/// Reads a value, or tells what would be right.
pub(super) fn wants<T>(
    advice: &'static str,
    read: impl Fn(&str) -> Option<T> + Clone,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| read(text).ok_or_else(|| format!("give {advice}"))
}

/// What the type itself takes.
pub(super) fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
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
pub(super) fn duration_in(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Option<Duration> + Clone {
    move |text| duration(text).filter(|duration| range.contains(duration))
}

/// A duration of a tenth of a second at least, or zero, which switches something off.
pub(super) fn duration_or_off(text: &str) -> Option<Duration> {
    duration(text).filter(|duration| duration.is_zero() || *duration >= Duration::from_millis(100))
}

/// A whole number between two others.
pub(super) fn number_in<T: FromStr + PartialOrd>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Option<T> + Clone
where
    RangeInclusive<T>: Clone,
{
    move |text| text.parse().ok().filter(|number| range.contains(number))
}

/// Something that becomes a part of an etcd key and of labels: no `/`, no white space, not empty.
pub(super) fn name(text: &str) -> Option<String> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    (!text.is_empty() && !text.contains(odd)).then(|| text.to_owned())
}

/// The name of a Docker network that other machines can reach; `host` and `none` are none.
pub(super) fn network(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_part);
    (is_name && !["host", "none", "default"].contains(&text)).then(|| text.to_owned())
}

/// `host:port`, as a person types it or as etcd has it: `tcp://host:port`.
pub(super) fn endpoint(text: &str) -> Option<HostPort> {
    text.strip_prefix("tcp://").unwrap_or(text).parse().ok()
}

/// A host that can be called at an IPv4 address, as far as its text tells.
pub(super) fn ipv4_host(text: &str) -> Option<String> {
    address::host(text).filter(|host| host.parse::<Ipv6Addr>().is_err())
}

/// Anything on one line that isn't blank.
pub(super) fn text(text: &str) -> Option<String> {
    (!text.trim().is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// A [`text`] that is not shown.
pub(super) fn secret(text: &str) -> Option<Secret> {
    self::text(text).map(Secret::new)
}

/// What stands in front of an image's name: a host with a dot, a port or `localhost`, else it would be read as a part of a
/// name at Docker Hub; perhaps a path.
pub(super) fn registry(text: &str) -> Option<String> {
    let host = text.split('/').next().filter(|host| *host == "localhost" || host.contains(['.', ':']))?;
    let is_word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_good =
        is_word(name) && port.parse().is_ok_and(|port: u16| port > 0) && text.split('/').skip(1).all(is_word);
    is_good.then(|| text.to_owned())
}

/// An `http` or `https` URL without a user, query or fragment.
pub(super) fn url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// A switch that is on unless it is said otherwise.
pub(super) fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// The two of S3's many access lists that make sense here.
pub(super) fn acl(text: &str) -> Option<Acl> {
    match text {
        "private" => Some(Acl::Private),
        "public-read" => Some(Acl::PublicRead),
        _ => None,
    }
}

/// MiB, with or without a fraction.
pub(super) fn memory(text: &str) -> Option<Memory> {
    text.parse().ok().and_then(Memory::from_slot)
}

/// MiB, with or without a fraction; what is not zero does not become zero.
pub(super) fn mebibytes(text: &str) -> Option<Memory> {
    let mebibytes: f64 = text.parse().ok()?;
    let size = Memory::from_slot(mebibytes).filter(|size| *size <= LARGEST_LOG)?;
    Some(if mebibytes > 0.0 { size.max(Memory::from_bytes(1)) } else { size })
}

/// MiB that a kernel's directory fits in, or zero, which sets no limit.
pub(super) fn quota(text: &str) -> Option<Memory> {
    memory(text).filter(|size| *size == Memory::default() || *size >= Quota::LEAST)
}

/// A path for a socket, or `none`.
pub(super) fn socket(text: &str) -> Result<SocketPlace, String> {
    match text {
        "none" => Ok(SocketPlace::Nowhere),
        // The system takes no longer ones.
        path if path.starts_with('/') && path.len() < 108 => Ok(SocketPlace::At(path.into())),
        _ => Err("give an absolute path of at most 107 bytes, or none".to_owned()),
    }
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
    fn names_and_urls() {
        check(name, &[("local", "local".to_owned())], &["", "a/b", "a b", "a\n"]);
        check(text, &[("us east", "us east".to_owned())], &["", " ", "a\nb"]);
        let minio = ("http://minio:9000/", Url::parse("http://minio:9000").unwrap());
        check(url, &[minio], &["", "minio:9000", "ftp://h", "http://u:p@h", "http://h/?a", "http://"]);
        let acls = [("private", Acl::Private), ("public-read", Acl::PublicRead)];
        check(acl, &acls, &["", "Private", "public"]);
    }

    #[test]
    fn registries() {
        let good = ["127.0.0.1:5000", "registry.example.com", "localhost/mirror", "h:5000/a/b-c"];
        check(
            registry,
            &good.map(|text| (text, text.to_owned())),
            &[
                "",
                "https://r.example.com",
                "lablup",
                "r:0",
                "r:x",
                "r.example.com/",
                "r.example.com/../x",
                ":5000",
            ],
        );
    }

    #[test]
    fn hosts_of_ipv4() {
        let good = [("10.0.0.5", "10.0.0.5".to_owned()), ("worker-1.lan", "worker-1.lan".to_owned())];
        check(ipv4_host, &good, &["", "fd00::5", "[fd00::5]", "::1", "::ffff:10.0.0.5", "h:1"]);
    }

    #[test]
    fn endpoints() {
        let good = |text: &'static str| (text, "h:1".parse().unwrap());
        check(endpoint, &[good("h:1"), good("tcp://h:1")], &["", "h", "http://h:1", "tcp://", "h:0"]);
    }

    #[test]
    fn numbers() {
        let port = number_in(1..=u16::MAX);
        check(port, &[("1", 1), ("65535", 65535)], &["", "0", "65536", "-1", "6001 "]);
    }

    #[test]
    fn sizes() {
        let good = [("10.0", 10 << 20), ("0.5", 1 << 19), ("1e-9", 1), ("0", 0)];
        let good = good.map(|(text, bytes)| (text, Memory::from_bytes(bytes)));
        check(mebibytes, &good, &["", "-1", "nan", "inf", "10M", "1e30"]);
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
