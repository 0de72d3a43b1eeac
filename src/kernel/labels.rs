//! What is written on a kernel's container, so that it can be taken back after any end of the agent. Pure.
//!
//! Idea 1 of ARCHITECTURE.md: Docker knows the living. The environment is not among the labels (anybody who may list
//! containers would read it); it is in the agent's own note of the kernel.

use std::collections::BTreeMap;

use serde_json::json;

use crate::ids::{InstanceId, KernelId};
use crate::units::Memory;
use crate::wire::config::{KernelConfig, Mount};
use crate::wire::lang;
use crate::wire::limits::Limits;

const SCHEMA: &str = "ai.backend.schema";
const KERNEL: &str = "ai.backend.kernel-id";
const NAMESPACE: &str = "ai.backend.namespace";
const INSTANCE: &str = "ai.backend.instance-id";
const LANG: &str = "ai.backend.lang";
const LIMITS: &str = "ai.backend.limits";
const MOUNTS: &str = "ai.backend.mounts";
const CPU_SET: &str = "ai.backend.cpu-set";
const GPU_SET: &str = "ai.backend.gpu-set";

/// The version of these labels; a container with a later one is reported and left alone.
const VERSION: &str = "2";
/// The version before, in which the memory limit stood in MiB; its containers may still run.
const EARLIER: &str = "1";

/// Whose kernels these are. Shown as it stands in notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's namespace in etcd.
    pub namespace: String,
    /// This agent.
    pub instance: InstanceId,
}

impl Owner {
    /// The labels by which Docker finds this agent's containers (PROTOCOL section 12, item 38).
    #[must_use]
    pub fn filter(&self) -> Vec<(String, String)> {
        vec![(NAMESPACE.to_owned(), self.namespace.clone()), (INSTANCE.to_owned(), self.instance.to_string())]
    }

    /// Whether a container carries them.
    #[must_use]
    pub fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        self.filter().iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.instance)
    }
}

/// All labels of a new container.
#[must_use]
pub fn write(
    owner: &Owner,
    kernel: KernelId,
    config: &KernelConfig,
    cpus: &[u32],
    gpus: &[u32],
) -> BTreeMap<String, String> {
    // In bytes, cores and devices, which no manager counts differently. As text, which comes back to the same number; JSON
    // parsers may round.
    let Limits { mem_slot, cpu_slot, gpu_slot } = config.limits;
    let mounts: Vec<_> = config.mounts.iter().map(|m| [&m.name, &m.host, &m.id]).collect();
    let mut labels: BTreeMap<String, String> = owner.filter().into_iter().collect();
    labels.extend([
        (SCHEMA.to_owned(), VERSION.to_owned()),
        (KERNEL.to_owned(), kernel.to_string()),
        (LANG.to_owned(), config.lang.clone()),
        (LIMITS.to_owned(), format!("{},{},{}", mem_slot.bytes(), cpu_slot.slot(), gpu_slot.slot())),
        (MOUNTS.to_owned(), json!(mounts).to_string()),
        (CPU_SET.to_owned(), json!(cpus).to_string()),
        (GPU_SET.to_owned(), json!(gpus).to_string()),
    ]);
    labels
}

/// The kernel that a container is labelled with.
#[must_use]
pub fn kernel(labels: &BTreeMap<String, String>) -> Option<KernelId> {
    labels.get(KERNEL)?.parse().ok()
}

/// Whether any agent of this kind made the container.
#[must_use]
pub fn is_labelled(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(KERNEL)
}

/// What the labels say, the environment missing. `None`: another version, or not ours to understand.
#[must_use]
pub fn read(labels: &BTreeMap<String, String>) -> Option<(KernelId, KernelConfig)> {
    let memory = match labels.get(SCHEMA)?.as_str() {
        VERSION => |text: &str| text.parse().ok().map(Memory::from_bytes),
        EARLIER => |text: &str| text.parse().ok().and_then(Memory::from_slot),
        _ => return None,
    };
    let kernel = kernel(labels)?;
    let [mem, cpu, gpu] = labels.get(LIMITS)?.split(',').collect::<Vec<_>>().try_into().ok()?;
    let limits = Limits { mem_slot: memory(mem)?, cpu_slot: cpu.parse().ok()?, gpu_slot: gpu.parse().ok()? };
    let mounts: Vec<[String; 3]> = serde_json::from_str(labels.get(MOUNTS)?).ok()?;
    let set = |key| serde_json::from_str::<Vec<u32>>(labels.get(key)?).ok();
    let config = KernelConfig {
        lang: lang::normal(labels.get(LANG)?)?,
        limits,
        mounts: mounts.into_iter().map(|[name, host, id]| Mount { name, host, id }).collect(),
        environ: BTreeMap::new(),
        cpu_set: Some(set(CPU_SET)?),
        gpu_set: Some(set(GPU_SET)?),
    };
    Some((kernel, config))
}

/// The kernel id in a name `kernel.{lang}.{kernel id}`, by which the Python agent's containers are known. The part
/// before the last dot may itself hold dots (PROTOCOL section 7).
#[must_use]
pub fn from_name(name: &str) -> Option<(String, KernelId)> {
    let (lang, id) = name.strip_prefix("kernel.")?.rsplit_once('.')?;
    Some((lang.to_owned(), id.parse().ok()?))
}

/// The container's name.
#[must_use]
pub fn name(lang: &str, kernel: KernelId) -> String {
    let base = lang::base(lang);
    // Docker takes no at-sign in a name; a catalogue may hold one.
    let base: String =
        base.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).collect();
    format!("kernel.{base}.{kernel}")
}

/// The name of a container that waits to replace the kernel's own.
#[must_use]
pub fn spare_name(lang: &str, kernel: KernelId) -> String {
    let base = name(lang, kernel);
    base.replace(&kernel.to_string(), &format!("next.{kernel}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Cores, Gpus};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn labels_round_trip(lang in "[a-z.]{1,9}(:[a-z0-9.-]{1,9})?", mem in 0..1u64 << 40, cpu in 0f64..64.0,
                             mount in ("[^\0]{1,9}", "[^\0]{1,9}", "[^\0]{1,9}"),
                             cpus in proptest::collection::vec(any::<u32>(), 0..4)) {
            let owner = Owner { namespace: "n".into(), instance: InstanceId::new("i") };
            let kernel = KernelId::random();
            let config = KernelConfig {
                lang: lang.clone(),
                limits: Limits {
                    mem_slot: Memory::from_bytes(mem),
                    cpu_slot: Cores::from_slot(cpu).unwrap(),
                    gpu_slot: Gpus::default(),
                },
                mounts: vec![Mount { name: mount.0, host: mount.1, id: mount.2 }],
                environ: BTreeMap::new(), cpu_set: Some(cpus.clone()), gpu_set: Some(vec![]),
            };
            let labels = write(&owner, kernel, &config, &cpus, &[]);
            prop_assert_eq!(read(&labels), Some((kernel, config)));
            let (_, id) = from_name(&name(&lang, kernel)).unwrap();
            prop_assert_eq!(id, kernel);
            let (_, id) = from_name(&spare_name(&lang, kernel)).unwrap();
            prop_assert_eq!(id, kernel);
        }
    }

    /// As the version before wrote them.
    fn earlier(limits: &str) -> BTreeMap<String, String> {
        let labels = [
            (SCHEMA, "1"),
            (KERNEL, "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10"),
            (LANG, "python:3.6"),
            (LIMITS, limits),
            (MOUNTS, r#"[["data","nfs","0a1b"]]"#),
            (CPU_SET, "[1]"),
            (GPU_SET, "[]"),
        ];
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn the_version_before_is_read_in_its_units() {
        let (kernel, config) = read(&earlier("512.5,0.5,0.25")).unwrap();
        assert_eq!(kernel.to_string(), "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10");
        let limits = Limits {
            mem_slot: Memory::from_bytes(537_395_200),
            cpu_slot: Cores::from_slot(0.5).unwrap(),
            gpu_slot: Gpus::from_slot(0.25).unwrap(),
        };
        assert_eq!((config.limits, config.cpu_set), (limits, Some(vec![1])));
        assert_eq!(config.mounts[0].id, "0a1b");
        for bad in ["", "1,1", "1,1,1,1", "x,1,1", "1,-1,0"] {
            assert_eq!(read(&earlier(bad)), None, "{bad}");
        }
    }

    #[test]
    fn another_version_is_not_read() {
        let mut labels = BTreeMap::from([(SCHEMA.to_owned(), "3".to_owned())]);
        labels.insert(KERNEL.to_owned(), KernelId::random().to_string());
        assert_eq!(read(&labels), None);
        assert!(kernel(&labels).is_some());
    }

    #[test]
    fn names_of_the_python_agent_are_understood() {
        let id = KernelId::random();
        assert_eq!(from_name(&format!("kernel.r3.4.{id}")), Some(("r3.4".to_owned(), id)));
        assert_eq!(from_name("kernel.python.not-a-uuid"), None);
        assert_eq!(name("my/python@x:3", id), format!("kernel.python-x.{id}"));
        assert_eq!(name("reg.lan:5000/a/python:3", id), format!("kernel.python.{id}"));
    }
}
