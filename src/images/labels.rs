//! What a kernel image declares in its labels (PROTOCOL section 7). Pure.
//!
//! A label that can't be read counts as absent: images are made by many people, and a slip in one label must not
//! keep all kernels of the image from starting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The execution time limit of an image that declares none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one kernel image declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// The image's id: `sha256:…`.
    pub id: String,
    /// The version of these labels' meaning, `io.sorna.version`; 1 when absent.
    pub version: u32,
    /// The time limit of one execution, `io.sorna.timeout`; `None` for no limit, 10 s when absent.
    pub exec_timeout: Option<Duration>,
    /// Variables to set to the number of cores, `io.sorna.envs.corecount`.
    pub corecount_vars: Vec<String>,
    /// What the image can do, `io.sorna.features`.
    pub features: BTreeSet<Feature>,
    /// Whether it may have GPUs, `io.sorna.nvidia.enabled`.
    pub nvidia_enabled: bool,
    /// The most cores that it can use, `io.sorna.maxcores`; never 0.
    pub max_cores: Option<u32>,
    /// The most memory in bytes that it can use, `io.sorna.maxmem`; never 0.
    pub max_mem: Option<u64>,
}

/// Something that an image can do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// `uid-match`: it runs as the user id in `LOCAL_USER_ID`.
    UidMatch,
    /// `user-input`: its programs may ask for input.
    UserInput,
    /// `batch`: it builds and runs programs.
    Batch,
    /// `query`: it runs pieces of code one after another.
    Query,
    /// `tty`: it serves a terminal.
    Tty,
    /// A word that this agent does not know.
    Other(String),
}

impl Feature {
    fn from_word(word: &str) -> Self {
        match word {
            "uid-match" => Self::UidMatch,
            "user-input" => Self::UserInput,
            "batch" => Self::Batch,
            "query" => Self::Query,
            "tty" => Self::Tty,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl KernelImage {
    /// Reads the labels.
    #[must_use]
    pub fn from_labels(id: String, labels: &BTreeMap<String, String>) -> Self {
        let label = |name: &str| labels.get(name).map(|value| value.trim());
        let corecount = label("io.sorna.envs.corecount").unwrap_or_default();
        let features = label("io.sorna.features").unwrap_or_default();
        Self {
            id,
            version: label("io.sorna.version").and_then(|text| text.parse().ok()).unwrap_or(1),
            exec_timeout: exec_timeout(label("io.sorna.timeout")),
            corecount_vars: corecount
                .split(',')
                .map(str::trim)
                .filter(|name| is_variable(name))
                .map(str::to_owned)
                .collect(),
            features: features.split_whitespace().map(Feature::from_word).collect(),
            nvidia_enabled: label("io.sorna.nvidia.enabled") == Some("yes"),
            max_cores: label("io.sorna.maxcores")
                .and_then(|text| text.parse().ok())
                .filter(|cores| *cores > 0),
            max_mem: label("io.sorna.maxmem").and_then(bytes),
        }
    }
}

fn exec_timeout(label: Option<&str>) -> Option<Duration> {
    let declared = label.and_then(|text| text.parse().ok()).map(Duration::try_from_secs_f64);
    match declared {
        Some(Ok(Duration::ZERO)) => None,
        Some(Ok(limit)) => Some(limit),
        Some(Err(_)) | None => Some(DEFAULT_TIMEOUT),
    }
}

/// Whether the text can name an environment variable without saying more than that.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `128m`, `1.5g`, `512 MiB`, `1024`: the units are powers of 1024, as Docker reads them.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number = number.trim();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let scale = 1024u64.pow(power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    // Three digits of a fraction are enough for a limit, and spare it floating point.
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let thousandths: u64 = digits.parse().ok()?;
    let part = scale.checked_mul(thousandths)? / 1000;
    whole.checked_mul(scale)?.checked_add(part).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(labels: &[(&str, &str)]) -> KernelImage {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KernelImage::from_labels("sha256:a".to_owned(), &labels)
    }

    #[test]
    fn all_labels_are_read() {
        let image = read(&[
            ("io.sorna.version", "2"),
            ("io.sorna.timeout", "30"),
            ("io.sorna.envs.corecount", "OPENBLAS_NUM_THREADS, NPROC,,BAD=1,2X"),
            ("io.sorna.features", "batch query  uid-match user-input tty novel"),
            ("io.sorna.nvidia.enabled", "yes"),
            ("io.sorna.maxcores", "1"),
            ("io.sorna.maxmem", "128m"),
        ]);
        assert_eq!((image.version, image.exec_timeout), (2, Some(Duration::from_secs(30))));
        assert_eq!(image.corecount_vars, ["OPENBLAS_NUM_THREADS", "NPROC"]);
        assert!(image.features.contains(&Feature::UidMatch) && image.features.contains(&Feature::Tty));
        assert!(image.features.contains(&Feature::Other("novel".into())));
        assert_eq!(image.features.len(), 6);
        assert!(image.nvidia_enabled);
        assert_eq!((image.max_cores, image.max_mem), (Some(1), Some(128 << 20)));
    }

    #[test]
    fn an_image_without_labels_has_the_defaults() {
        let image = read(&[]);
        assert_eq!((image.version, image.exec_timeout), (1, Some(DEFAULT_TIMEOUT)));
        assert!(image.corecount_vars.is_empty() && image.features.is_empty() && !image.nvidia_enabled);
        assert_eq!((image.max_cores, image.max_mem), (None, None));
    }

    #[test]
    fn time_limits() {
        for (text, expected) in [
            ("0", None),
            ("0.0", None),
            ("2.5", Some(Duration::from_millis(2500))),
            ("", Some(DEFAULT_TIMEOUT)),
            ("-1", Some(DEFAULT_TIMEOUT)),
            ("nan", Some(DEFAULT_TIMEOUT)),
            ("inf", Some(DEFAULT_TIMEOUT)),
            ("soon", Some(DEFAULT_TIMEOUT)),
        ] {
            assert_eq!(read(&[("io.sorna.timeout", text)]).exec_timeout, expected, "{text:?}");
        }
    }

    #[test]
    fn memory_sizes() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("1.5g", Some(3 << 29)),
            ("512 MiB", Some(512 << 20)),
            ("2Tb", Some(2 << 40)),
            ("0", None),
            ("-1m", None),
            ("m", None),
            ("1x", None),
            ("1.é", None),
            ("99999999999999999999t", None),
            ("99999999999t", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_label_panics(value in "\\PC{0,20}") {
            for name in ["version", "timeout", "envs.corecount", "features", "maxcores", "maxmem"] {
                read(&[(&format!("io.sorna.{name}"), &value)]);
            }
        }
    }
}
