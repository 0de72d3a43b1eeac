//! The `config` of `create_kernel` and the `new_config` of `restart_kernel` (PROTOCOL section 3).
//!
//! Keys that are not known are ignored, as the reference does. Mounts and environment may be nil or absent;
//! manager 1.3.12 sends `mounts: []` on every restart, so "empty" there means "keep" (section 12, item 18).

use std::collections::BTreeMap;

use super::params::kind;
use super::value::{self, Value};
use crate::units::{Cores, Gpus, Memory};

/// What a kernel is made of, as the manager asks for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KernelConfig {
    /// The image without the prefix `lablup/kernel-`, e.g. `python:3.6-debian`.
    pub lang: String,
    /// How much of the machine it gets.
    pub limits: Limits,
    /// Virtual folders to bind below `/home/work`.
    pub mounts: Vec<Mount>,
    /// Variables for the runner's `environ.txt`.
    pub environ: BTreeMap<String, String>,
    /// Cores to take again; only a restart names them.
    pub cpu_set: Option<Vec<u32>>,
    /// GPUs to take again; only a restart names them.
    pub gpu_set: Option<Vec<u32>>,
}

/// The three slots that the manager schedules by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Memory; none means that there is no limit.
    pub mem_slot: Memory,
    /// Cores.
    pub cpu_slot: Cores,
    /// GPUs.
    pub gpu_slot: Gpus,
}

/// One virtual folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its name below `/home/work`.
    pub name: String,
    /// The host directory below the volume mount that holds it.
    pub host: String,
    /// Its directory there.
    pub id: String,
}

/// A config that can't be used; the text says which key and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config: {0}")]
pub struct BadConfig(pub String);

/// The `new_config` of a restart: what is `None` or empty stays as it was.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigPatch {
    /// Another image.
    pub lang: Option<String>,
    /// Another `mem_slot`.
    pub mem_slot: Option<Memory>,
    /// Another `cpu_slot`.
    pub cpu_slot: Option<Cores>,
    /// Another `gpu_slot`.
    pub gpu_slot: Option<Gpus>,
    /// Other folders; empty means the same.
    pub mounts: Vec<Mount>,
    /// Another environment; empty means the same.
    pub environ: BTreeMap<String, String>,
    /// Cores to take again.
    pub cpu_set: Option<Vec<u32>>,
    /// GPUs to take again.
    pub gpu_set: Option<Vec<u32>>,
}

impl ConfigPatch {
    /// From the map that the manager sends.
    pub fn from_value(config: &Value) -> Result<Self, BadConfig> {
        let limits = value::get(config, "limits").unwrap_or(&Value::Nil);
        Ok(Self {
            lang: lang(config)?,
            mem_slot: slot(limits, "mem_slot", Memory::from_slot)?,
            cpu_slot: slot(limits, "cpu_slot", Cores::from_slot)?,
            gpu_slot: slot(limits, "gpu_slot", Gpus::from_slot)?,
            mounts: mounts(value::get(config, "mounts"))?,
            environ: environ(value::get(config, "environ"))?,
            cpu_set: numbers("cpu_set", value::get(config, "cpu_set"))?,
            gpu_set: numbers("gpu_set", value::get(config, "gpu_set"))?,
        })
    }

    /// The config that comes of it.
    #[must_use]
    pub fn apply(self, old: &KernelConfig) -> KernelConfig {
        let limits = Limits {
            mem_slot: self.mem_slot.unwrap_or(old.limits.mem_slot),
            cpu_slot: self.cpu_slot.unwrap_or(old.limits.cpu_slot),
            gpu_slot: self.gpu_slot.unwrap_or(old.limits.gpu_slot),
        };
        KernelConfig {
            lang: self.lang.unwrap_or_else(|| old.lang.clone()),
            limits,
            mounts: if self.mounts.is_empty() { old.mounts.clone() } else { self.mounts },
            environ: if self.environ.is_empty() { old.environ.clone() } else { self.environ },
            cpu_set: self.cpu_set.or_else(|| old.cpu_set.clone()),
            gpu_set: self.gpu_set.or_else(|| old.gpu_set.clone()),
        }
    }
}

impl KernelConfig {
    /// From the map that the manager sends.
    pub fn from_value(config: &Value) -> Result<Self, BadConfig> {
        let missing = |what: &str| BadConfig(format!("{what} is missing"));
        let lang = lang(config)?.ok_or_else(|| missing("lang"))?;
        let given = value::get(config, "limits").ok_or_else(|| missing("limits"))?;
        let limits = Limits {
            mem_slot: slot(given, "mem_slot", Memory::from_slot)?
                .ok_or_else(|| missing("limits.mem_slot"))?,
            cpu_slot: slot(given, "cpu_slot", Cores::from_slot)?.ok_or_else(|| missing("limits.cpu_slot"))?,
            gpu_slot: slot(given, "gpu_slot", Gpus::from_slot)?.unwrap_or_default(),
        };
        Ok(Self {
            lang,
            limits,
            mounts: mounts(value::get(config, "mounts"))?,
            environ: environ(value::get(config, "environ"))?,
            cpu_set: numbers("cpu_set", value::get(config, "cpu_set"))?,
            gpu_set: numbers("gpu_set", value::get(config, "gpu_set"))?,
        })
    }

    /// As the manager sends it; what the client commands use.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mounts = self.mounts.iter().map(|m| {
            Value::Array(vec![m.name.as_str().into(), m.host.as_str().into(), m.id.as_str().into()])
        });
        let mut pairs = vec![
            ("lang", Value::from(self.lang.as_str())),
            (
                "limits",
                value::map([
                    ("mem_slot", Value::from(self.limits.mem_slot.slot())),
                    ("cpu_slot", Value::from(self.limits.cpu_slot.slot())),
                    ("gpu_slot", Value::from(self.limits.gpu_slot.slot())),
                ]),
            ),
            ("mounts", Value::Array(mounts.collect())),
            ("environ", value::map(self.environ.iter().map(|(k, v)| (k.as_str(), Value::from(v.as_str()))))),
        ];
        for (name, set) in [("cpu_set", &self.cpu_set), ("gpu_set", &self.gpu_set)] {
            if let Some(set) = set {
                pairs.push((name, value::uints(set)));
            }
        }
        value::map(pairs)
    }
}

fn lang(config: &Value) -> Result<Option<String>, BadConfig> {
    match value::get(config, "lang") {
        None | Some(Value::Nil) => Ok(None),
        Some(v) => match v.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(bad("lang", "must be an image name such as python:3.6", v)),
        },
    }
}

fn slot<T>(limits: &Value, name: &str, read: fn(f64) -> Option<T>) -> Result<Option<T>, BadConfig> {
    match value::get(limits, name) {
        None | Some(Value::Nil) => Ok(None),
        Some(v) => match v.as_f64().and_then(read) {
            Some(slot) => Ok(Some(slot)),
            None => Err(bad(&format!("limits.{name}"), "must be a number, 0 or more", v)),
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

fn numbers(key: &str, value: Option<&Value>) -> Result<Option<Vec<u32>>, BadConfig> {
    let Some(value) = value.filter(|v| !v.is_nil()) else { return Ok(None) };
    let wanted = "must be a list of device numbers";
    let items = value.as_array().ok_or_else(|| bad(key, wanted, value))?;
    let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    items.iter().map(|v| one(v).ok_or_else(|| bad(key, wanted, v))).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("cpu_set", Value::Array(vec![0.into(), 1.into()])),
            ("later", true.into()),
        ]);
        let config = KernelConfig::from_value(&sent).unwrap();
        let half = Cores::from_slot(0.5).unwrap();
        let limits = Limits { mem_slot: Memory::from_mib(256), cpu_slot: half, gpu_slot: Gpus::default() };
        assert_eq!(config.limits, limits);
        assert_eq!(config.mounts[0].host, "nfs");
        assert_eq!(config.environ["N"], "7");
        assert_eq!(config.cpu_set, Some(vec![0, 1]));
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
        let set = Value::Array(vec![(-1).into()]);
        check("cpu_set", set, "config: cpu_set must be a list of device numbers, not an integer (-1)");
    }
}
