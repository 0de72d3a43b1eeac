//! What a kernel image declares in its labels (PROTOCOL section 7). Pure.
//!
//! A label that can't be read counts as absent: images are made by many people, and a slip in one label must not
//! keep all kernels of the image from starting.

use std::collections::BTreeMap;
use std::time::Duration;

/// The execution time limit of an image that declares none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one kernel image declares, as far as this agent goes by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// The time limit of one execution, `io.sorna.timeout`; `None` for no limit, 10 s when absent.
    pub exec_timeout: Option<Duration>,
    /// Variables to set to the number of cores, `io.sorna.envs.corecount`.
    pub corecount_vars: Vec<String>,
    /// Whether it runs as the user id in `LOCAL_USER_ID`: `uid-match` in `io.sorna.features`.
    pub matches_uid: bool,
    /// Whether it may have GPUs, `io.sorna.nvidia.enabled`.
    pub nvidia_enabled: bool,
}

impl KernelImage {
    /// Reads the labels.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let label = |name: &str| labels.get(name).map(|value| value.trim());
        let corecount = label("io.sorna.envs.corecount").unwrap_or_default();
        let features = label("io.sorna.features").unwrap_or_default();
        Self {
            exec_timeout: exec_timeout(label("io.sorna.timeout")),
            corecount_vars: corecount
                .split(',')
                .map(str::trim)
                .filter(|name| is_variable(name))
                .map(str::to_owned)
                .collect(),
            matches_uid: features.split_whitespace().any(|word| word == "uid-match"),
            nvidia_enabled: label("io.sorna.nvidia.enabled") == Some("yes"),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(labels: &[(&str, &str)]) -> KernelImage {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KernelImage::from_labels(&labels)
    }

    #[test]
    fn all_labels_are_read() {
        let image = read(&[
            ("io.sorna.timeout", "30"),
            ("io.sorna.envs.corecount", "OPENBLAS_NUM_THREADS, NPROC,,BAD=1,2X"),
            ("io.sorna.features", "batch query  uid-match user-input tty novel"),
            ("io.sorna.nvidia.enabled", "yes"),
        ]);
        assert_eq!(image.exec_timeout, Some(Duration::from_secs(30)));
        assert_eq!(image.corecount_vars, ["OPENBLAS_NUM_THREADS", "NPROC"]);
        assert!(image.matches_uid && image.nvidia_enabled);
    }

    #[test]
    fn an_image_without_labels_has_the_defaults() {
        let image = read(&[]);
        assert_eq!(image.exec_timeout, Some(DEFAULT_TIMEOUT));
        assert!(image.corecount_vars.is_empty() && !image.matches_uid && !image.nvidia_enabled);
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

    proptest! {
        #[test]
        fn no_label_panics(value in "\\PC{0,20}") {
            for name in ["timeout", "envs.corecount", "features"] {
                read(&[(&format!("io.sorna.{name}"), &value)]);
            }
        }
    }
}
