//! The `config` of `create_kernel` and the `new_config` of `restart_kernel` (PROTOCOL section 3).
//!
//! Keys that are not known are ignored, as the reference does. Mounts and environment may be nil or absent;
//! every manager sends `mounts: []` on every restart, so "empty" there means "keep" (section 12, item 18).

use std::collections::BTreeMap;

use super::lang;
use super::limits::Limits;
use super::params::kind;
use super::value::{self, Value};

/// What a kernel is made of, as the manager asks for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KernelConfig {
    /// The image in the form of [`lang::normal`], e.g. `python:3.6-debian`.
    pub lang: String,
    /// How much of the machine it gets.
    pub limits: Limits,
    /// Virtual folders to bind below `/home/work`.
    pub mounts: Vec<Mount>,
    /// Variables for the runner's `environ.txt`.
    pub environ: BTreeMap<String, String>,
    /// The cores that it has; `None` for one that has none yet.
    pub cpu_set: Option<Vec<u32>>,
    /// The GPUs that it has, likewise.
    pub gpu_set: Option<Vec<u32>>,
}

/// One virtual folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The folder's name below `/home/work`.
    pub name: String,
    /// The host directory below the volume mount that holds it.
    pub host: String,
    /// The folder's directory there.
    pub id: String,
}

/// A config that can't be used; the text says which key and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config: {0}")]
pub struct BadConfig(pub String);

/// The `new_config` of a restart, as far as it can be trusted: what is empty stays as it was.
///
/// Image, limits, cores and GPUs are the kernel's own, whatever is sent. No manager can change them, and what the
/// managers from 1.4 on send is rounded, in another unit, or empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigPatch {
    /// Other folders; empty means the same.
    pub mounts: Vec<Mount>,
    /// Another environment; empty means the same.
    pub environ: BTreeMap<String, String>,
}

impl ConfigPatch {
    /// From the map that the manager sends.
    pub fn from_value(config: &Value) -> Result<Self, BadConfig> {
        Ok(Self {
            mounts: mounts(value::get(config, "mounts"))?,
            environ: environ(value::get(config, "environ"))?,
        })
    }

    /// The config that comes of it.
    #[must_use]
    pub fn apply(self, old: &KernelConfig) -> KernelConfig {
        KernelConfig {
            mounts: if self.mounts.is_empty() { old.mounts.clone() } else { self.mounts },
            environ: if self.environ.is_empty() { old.environ.clone() } else { self.environ },
            ..old.clone()
        }
    }
}

impl KernelConfig {
    /// From the map that the manager sends.
    pub fn from_value(config: &Value) -> Result<Self, BadConfig> {
        let missing = |what: &str| BadConfig(format!("{what} is missing"));
        Ok(Self {
            lang: lang(config)?.ok_or_else(|| missing("lang"))?,
            limits: Limits::from_value(value::get(config, "limits").ok_or_else(|| missing("limits"))?)
                .map_err(|bad| BadConfig(bad.0))?,
            mounts: mounts(value::get(config, "mounts"))?,
            environ: environ(value::get(config, "environ"))?,
            cpu_set: None,
            gpu_set: None,
        })
    }

    /// As the manager sends it; what the client commands use.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mounts = self.mounts.iter().map(|m| {
            Value::Array(vec![m.name.as_str().into(), m.host.as_str().into(), m.id.as_str().into()])
        });
        value::map([
            ("lang", Value::from(self.lang.as_str())),
            ("limits", self.limits.to_value()),
            ("mounts", Value::Array(mounts.collect())),
            ("environ", value::map(self.environ.iter().map(|(k, v)| (k.as_str(), Value::from(v.as_str()))))),
        ])
    }
}

fn lang(config: &Value) -> Result<Option<String>, BadConfig> {
    match value::get(config, "lang") {
        None | Some(Value::Nil) => Ok(None),
        Some(v) => match v.as_str().and_then(lang::normal) {
            Some(lang) => Ok(Some(lang)),
            None => Err(bad("lang", "must be an image name such as python:3.6", v)),
        },
    }
}

fn bad(key: &str, wanted: &str, got: &Value) -> BadConfig {
    BadConfig(format!("{key} {wanted}, not {} ({})", kind(got), shortened(got)))
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

fn mounts(value: Option<&Value>) -> Result<Vec<Mount>, BadConfig> {
    let Some(value) = value.filter(|v| !v.is_nil()) else { return Ok(Vec::new()) };
    let wanted = "must be a list of [folder name, folder host, folder id]";
    let items = value.as_array().ok_or_else(|| bad("mounts", wanted, value))?;
    let one = |item: &Value| match item.as_array().map(Vec::as_slice) {
        Some([name, host, id]) => Some(Mount {
            name: name.as_str()?.to_owned(),
            host: host.as_str()?.to_owned(),
            id: id.as_str()?.to_owned(),
        }),
        _ => None,
    };
    items.iter().map(|item| one(item).ok_or_else(|| bad("mounts", wanted, item))).collect()
}

/// A map of texts. Numbers are taken as their text, because clients of the manager's API send them; the list
/// form `["NAME=value", …]` is how the manager stores an environment.
fn environ(value: Option<&Value>) -> Result<BTreeMap<String, String>, BadConfig> {
    let wanted = "must be a map of names to texts";
    match value {
        None | Some(Value::Nil) => Ok(BTreeMap::new()),
        Some(Value::Map(pairs)) => {
            let one = |(k, v): &(Value, Value)| Some((k.as_str()?.to_owned(), scalar(v)?));
            // The values may be secrets: the error names the variable only.
            pairs
                .iter()
                .map(|pair| {
                    one(pair)
                        .ok_or_else(|| BadConfig(format!("environ {wanted}; {} is not", shortened(&pair.0))))
                })
                .collect()
        }
        Some(Value::Array(items)) => {
            let one = |v: &Value| {
                let (name, value) = v.as_str()?.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            };
            items
                .iter()
                .map(|v| {
                    one(v).ok_or_else(|| BadConfig(format!("environ {wanted}, or a list of NAME=value")))
                })
                .collect()
        }
        Some(other) => Err(BadConfig(format!("environ {wanted}, not {}", kind(other)))),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => s.as_str().map(str::to_owned),
        Value::Integer(_) | Value::F32(_) | Value::F64(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Cores, Gpus, Memory};

    fn limits() -> Value {
        value::map([("mem_slot", 256.into()), ("cpu_slot", 0.5.into()), ("gpu_slot", 0.into())])
    }

    #[test]
    fn a_config_of_the_manager_is_read_and_written() {
        let mount = Value::Array(vec!["data".into(), "nfs".into(), "0a1b".into()]);
        let sent = value::map([
            ("lang", "python:3.6".into()),
            ("limits", limits()),
            ("mounts", Value::Array(vec![mount])),
            ("environ", value::map([("A", "b".into()), ("N", 7.into())])),
            ("later", true.into()),
        ]);
        let config = KernelConfig::from_value(&sent).unwrap();
        let half = Cores::from_slot(0.5).unwrap();
        let limits = Limits { mem_slot: Memory::from_mib(256), cpu_slot: half, gpu_slot: Gpus::default() };
        assert_eq!(config.limits, limits);
        assert_eq!(config.mounts[0].host, "nfs");
        assert_eq!(config.environ["N"], "7");
        assert_eq!(KernelConfig::from_value(&config.to_value()).unwrap(), config);
    }

    #[test]
    fn mounts_and_environment_may_be_nil_or_absent() {
        for extra in [None, Some(Value::Nil)] {
            let mut pairs = vec![("lang", Value::from("r:3")), ("limits", limits())];
            if let Some(nil) = extra {
                pairs.extend([("mounts", nil.clone()), ("environ", nil)]);
            }
            let config = KernelConfig::from_value(&value::map(pairs)).unwrap();
            assert!(config.mounts.is_empty() && config.environ.is_empty());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |key: &str, v: Value, expected: &str| {
            let mut pairs = vec![("lang", Value::from("r:3")), ("limits", limits())];
            pairs.push((key, v));
            assert_eq!(KernelConfig::from_value(&value::map(pairs)).unwrap_err().to_string(), expected);
        };
        check("lang", 5.into(), "config: lang must be an image name such as python:3.6, not an integer (5)");
        let nan = value::map([("mem_slot", f64::NAN.into())]);
        check("limits", nan, "config: limits.mem_slot must be a number, 0 or more, not a float (NaN)");
        check("limits", Value::Nil, "config: limits.mem_slot is missing");
        let secret = value::map([("KEY", Value::Array(vec!["hidden".into()]))]);
        check("environ", secret, "config: environ must be a map of names to texts; \"KEY\" is not");
    }

    #[test]
    fn a_restart_reads_nothing_that_no_manager_sends_rightly() {
        let old = KernelConfig {
            lang: "python:3.6".into(),
            limits: Limits { mem_slot: Memory::from_mib(512), ..Limits::default() },
            environ: BTreeMap::from([("A".into(), "b".into())]),
            cpu_set: Some(vec![1]),
            ..KernelConfig::default()
        };
        let floats = value::map([("mem_slot", 0.5.into()), ("cpu_slot", 1.0.into())]);
        let rounded = value::map([("mem_slot", 1.into()), ("cpu_slot", "x".into())]);
        for limits in [floats, rounded, Value::Nil, "none".into()] {
            let patch = ConfigPatch::from_value(&value::map([
                ("lang", "lablup/python:3.6".into()),
                ("limits", limits),
                ("mounts", Value::Array(vec![])),
                ("cpu_set", Value::Array(vec![])),
                ("gpu_set", "all".into()),
            ]));
            assert_eq!(patch.unwrap().apply(&old), old);
        }
        let environ = value::map([("environ", value::map([("C", "d".into())]))]);
        let new = ConfigPatch::from_value(&environ).unwrap().apply(&old);
        assert_eq!(new, KernelConfig { environ: BTreeMap::from([("C".into(), "d".into())]), ..old });
    }
}
