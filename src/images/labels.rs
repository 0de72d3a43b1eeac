//! What a kernel image declares in its labels (PROTOCOL section 7). Pure.
//!
//! Images up to 1.3 have labels `io.sorna.*`, later ones `ai.backend.*`, and some both: of each label the later name goes
//! first.
//!
//! A label that is there must be right: of an image whose label can't be read nobody knows what was meant, and a
//! session that begins with a wrong limit is worse than none. A label that is absent has a default.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::units::{Cores, Memory};
use crate::wire::limits::Limits;
use crate::wire::service::ServicePort;

/// A kernel image that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// What the engine calls it: `lablup/kernel-python:3.6-debian`, at Podman perhaps with `localhost/` in front.
    pub reference: String,
    /// What it declares.
    pub labels: Arc<ImageLabels>,
}

/// The execution time limit of an image that declares none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one kernel image declares, as far as this agent goes by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLabels {
    /// The time limit of one execution, `timeout`; `None` for no limit, 10 s when absent.
    pub exec_timeout: Option<Duration>,
    /// Variables to set to the number of cores, `envs.corecount`.
    pub corecount_vars: Vec<String>,
    /// Whether it runs as the user id in `LOCAL_USER_ID`: `uid-match` in `features`.
    pub matches_uid: bool,
    /// Whether it bears to be kept from what most images don't need, `hardening`; it does when absent.
    pub hardening: bool,
    /// Whether it may have GPUs, `nvidia.enabled`.
    pub nvidia_enabled: bool,
    /// The services in it that can be started, `service-ports`.
    pub services: Vec<ServicePort>,
    /// The most cores that it can use, `maxcores`; never 0.
    max_cores: Option<u32>,
    /// The most memory that it can use, `maxmem`; never 0.
    max_mem: Option<Memory>,
}

/// A label of an image that can't be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its label {name} is {value:?}, which is not {wanted}")]
pub struct BadLabel {
    /// The label's name.
    name: String,
    /// The value of the label, cut to a length that fits a log line.
    value: String,
    /// What it should be.
    wanted: &'static str,
}

impl ImageLabels {
    /// Reads the labels.
    pub fn read(labels: &BTreeMap<String, String>) -> Result<Self, BadLabel> {
        let labels = Raw(labels);
        // Nothing depends on the version, but what is no number is no version of these labels.
        labels.read("version", "a whole number", |text| text.parse::<u32>().ok())?;
        let features = labels.get("features").unwrap_or_default();
        Ok(Self {
            exec_timeout: labels
                .read("timeout", "a number of seconds", seconds)?
                .map_or(Some(DEFAULT_TIMEOUT), |limit| Some(limit).filter(|limit| !limit.is_zero())),
            corecount_vars: labels
                .read("envs.corecount", "names of variables with commas between them", variables)?
                .unwrap_or_default(),
            matches_uid: features.split_whitespace().any(|word| word == "uid-match"),
            hardening: labels.read("hardening", "on or off", on_off)?.unwrap_or(true),
            nvidia_enabled: labels.read("nvidia.enabled", "yes or no", switch)?.unwrap_or_default(),
            services: labels
                .read("service-ports", "name:protocol:port with commas between them", ServicePort::list)?
                .unwrap_or_default(),
            max_cores: labels
                .read("maxcores", "a whole number of cores", |text| text.parse().ok())?
                .filter(|cores| *cores > 0),
            max_mem: labels
                .read("maxmem", "a size such as 128m or 2g", bytes)?
                .filter(|bytes| *bytes > 0)
                .map(Memory::from_bytes),
        })
    }

    /// What a kernel of this image gets where `limits` are asked for: no more than the image declares that it can use,
    /// also where no limit is asked for.
    #[must_use]
    pub fn capped(&self, limits: Limits) -> Limits {
        let Limits { mem_slot, cpu_slot, gpu_slot } = limits;
        let mem_slot = match self.max_mem {
            Some(most) if mem_slot == Memory::default() || mem_slot > most => most,
            _ => mem_slot,
        };
        let cpu_slot = match self.max_cores.and_then(|most| Cores::from_slot(most.into())) {
            Some(most) if cpu_slot > most => most,
            _ => cpu_slot,
        };
        Limits { mem_slot, cpu_slot, gpu_slot }
    }
}

/// What labels' names begin with, the newer first.
const FRONTS: [&str; 2] = ["ai.backend.", "io.sorna."];

/// Labels by name.
struct Raw<'l>(&'l BTreeMap<String, String>);

impl Raw<'_> {
    /// Without blanks around it.
    fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|(_, value)| value)
    }

    /// With what its name begins with.
    fn find(&self, name: &str) -> Option<(&'static str, &str)> {
        FRONTS.iter().find_map(|front| Some((*front, self.0.get(&format!("{front}{name}"))?.trim())))
    }

    /// `None` for a label that is absent.
    fn read<T>(
        &self,
        name: &'static str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, BadLabel> {
        let Some((front, text)) = self.find(name) else { return Ok(None) };
        let value = || text.chars().take(64).collect();
        let bad = || BadLabel { name: format!("{front}{name}"), value: value(), wanted };
        parse(text).map(Some).ok_or_else(bad)
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" | "" => Some(false),
        _ => None,
    }
}

fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn variables(text: &str) -> Option<Vec<String>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| is_variable(name).then(|| name.to_owned())).collect()
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
    whole.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Gpus;

    fn read(labels: &[(&str, &str)]) -> Result<ImageLabels, BadLabel> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ImageLabels::read(&labels)
    }

    #[test]
    fn all_labels_are_read() {
        let image = read(&[
            ("io.sorna.version", "1"),
            ("io.sorna.timeout", "30"),
            ("io.sorna.envs.corecount", "OPENBLAS_NUM_THREADS, NPROC,,"),
            ("io.sorna.features", "batch query  uid-match user-input tty novel"),
            ("io.sorna.nvidia.enabled", "yes"),
            ("io.sorna.maxcores", "1"),
            ("io.sorna.maxmem", "128m"),
        ])
        .unwrap();
        assert_eq!(image.exec_timeout, Some(Duration::from_secs(30)));
        assert_eq!(image.corecount_vars, ["OPENBLAS_NUM_THREADS", "NPROC"]);
        assert!(image.matches_uid && image.nvidia_enabled);
        assert_eq!((image.max_cores, image.max_mem), (Some(1), Some(Memory::from_mib(128))));
    }

    #[test]
    fn an_image_without_labels_has_the_defaults() {
        let image = read(&[]).unwrap();
        assert_eq!(image.exec_timeout, Some(DEFAULT_TIMEOUT));
        assert!(image.corecount_vars.is_empty() && !image.matches_uid && !image.nvidia_enabled);
        assert_eq!((image.max_cores, image.max_mem), (None, None));
        assert!(image.hardening);
        assert!(!read(&[("ai.backend.hardening", "off")]).unwrap().hardening);
    }

    #[test]
    fn of_two_labels_the_newer_name_goes_first() {
        let both = [
            ("ai.backend.timeout", "30"),
            ("io.sorna.timeout", "nonsense that nobody reads"),
            ("io.sorna.features", "uid-match"),
            ("ai.backend.envs.corecount", "NPROC"),
            ("ai.backend.service-ports", "jupyter:http:8080"),
        ];
        let image = read(&both).unwrap();
        assert_eq!(image.exec_timeout, Some(Duration::from_secs(30)));
        assert!(image.matches_uid);
        assert_eq!((image.corecount_vars.len(), image.services.len()), (1, 1));
        assert_eq!(image.services[0].port, 8080);
    }

    #[test]
    fn zero_is_no_limit() {
        let image =
            read(&[("io.sorna.maxcores", "0"), ("io.sorna.maxmem", "0"), ("io.sorna.timeout", "0.0")]);
        let image = image.unwrap();
        assert_eq!((image.max_cores, image.max_mem, image.exec_timeout), (None, None, None));
        let image = read(&[("io.sorna.timeout", " 2.5")]).unwrap();
        assert_eq!(image.exec_timeout, Some(Duration::from_millis(2500)));
    }

    #[test]
    fn a_broken_label_is_named() {
        for (name, bad) in [
            ("io.sorna.version", ""),
            ("io.sorna.version", "one"),
            ("io.sorna.timeout", ""),
            ("io.sorna.timeout", "-1"),
            ("io.sorna.timeout", "nan"),
            ("io.sorna.timeout", "inf"),
            ("io.sorna.timeout", "soon"),
            ("io.sorna.envs.corecount", "NPROC,BAD=1"),
            ("io.sorna.envs.corecount", "2X"),
            ("io.sorna.nvidia.enabled", "perhaps"),
            ("io.sorna.maxcores", "1.5"),
            ("io.sorna.maxmem", "lots"),
            ("ai.backend.timeout", "soon"),
            ("ai.backend.service-ports", "jupyter:8080"),
            ("ai.backend.hardening", "no"),
        ] {
            let text = read(&[(name, bad)]).unwrap_err().to_string();
            assert!(text.starts_with(&format!("its label {name} is {bad:?}, which is not ")), "{text}");
        }
    }

    #[test]
    fn what_the_image_declares_is_an_upper_limit() {
        let limits = |mib, cores| Limits {
            mem_slot: Memory::from_mib(mib),
            cpu_slot: Cores::from_slot(cores).unwrap(),
            gpu_slot: Gpus::from_slot(1.0).unwrap(),
        };
        let image = read(&[("io.sorna.maxcores", "2"), ("io.sorna.maxmem", "1g")]).unwrap();
        assert_eq!(image.capped(limits(4096, 8.0)), limits(1024, 2.0));
        assert_eq!(image.capped(limits(0, 0.0)), limits(1024, 0.0));
        assert_eq!(image.capped(limits(512, 1.5)), limits(512, 1.5));
        assert_eq!(read(&[]).unwrap().capped(limits(0, 64.0)), limits(0, 64.0));
    }

    #[test]
    fn memory_sizes() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("1.5g", Some(3 << 29)),
            ("512 MiB", Some(512 << 20)),
            ("2Tb", Some(2 << 40)),
            ("0", Some(0)),
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
            for name in ["version", "timeout", "envs.corecount", "features", "nvidia.enabled", "maxcores", "maxmem", "service-ports"] {
                let _ = read(&[(&format!("io.sorna.{name}"), &value)]);
                let _ = read(&[(&format!("ai.backend.{name}"), &value)]);
            }
        }
    }
}
