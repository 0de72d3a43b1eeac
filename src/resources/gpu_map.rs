//! Which GPUs are handed out, and how much of each; pure (PROTOCOL section 12.36).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::str::FromStr;

use super::cpuset::{BadCpuset, CoreList};
use super::limits::ResourceError;
use crate::units::{GpuParts, Gpus, Memory};

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's number of the device: what the manager gets to see in `gpu_set`. May change at a reboot.
    pub index: u32,
    /// The device's own lasting name, `GPU-…`: what Docker is asked for.
    pub uuid: String,
    /// The model, for log lines.
    pub name: String,
    /// The NUMA node that it is attached to; `None` if the machine does not tell.
    pub node: Option<u32>,
    /// The device's own memory.
    pub memory: Memory,
}

/// Which GPUs kernels may have: by number (`0,2-3` or a mask, `0xd`), by name (`GPU-…`), or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuList {
    /// By number.
    indices: Option<CoreList>,
    /// By lasting name.
    uuids: Vec<String>,
}

impl GpuList {
    fn allows(&self, gpu: &Gpu) -> bool {
        self.uuids.contains(&gpu.uuid) || self.indices.as_ref().is_some_and(|list| list.contains(gpu.index))
    }
}

impl FromStr for GpuList {
    type Err = BadCpuset;

    fn from_str(text: &str) -> Result<Self, BadCpuset> {
        let (uuids, numbers): (Vec<&str>, Vec<&str>) =
            text.split(',').map(str::trim).partition(|part| part.starts_with("GPU-"));
        let indices = if numbers.is_empty() { None } else { Some(numbers.join(",").parse()?) };
        Ok(Self { indices, uuids: uuids.into_iter().map(str::to_owned).collect() })
    }
}

/// The GPUs of the machine and how much of each is handed out. A fraction is a part of one device, which other
/// fractions share; nothing but the manager's own sums keeps kernels from being given more than there is.
#[derive(Debug)]
pub struct GpuMap {
    /// The devices that answer, by number.
    devices: BTreeMap<u32, Gpu>,
    /// What is handed out, by number; devices that are gone are counted like the others.
    loads: BTreeMap<u32, Load>,
    /// The only ones that may be handed out; `None` for all.
    only: Option<GpuList>,
}

/// What is handed out of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    /// All together, in thousandths of the device.
    thousandths: u64,
    /// How many kernels have a part of it.
    kernels: u32,
}

/// Devices that were handed out; see `CpuShare` for why it is not `Clone`.
#[must_use = "the devices stay handed out until this is freed"]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GpuShare {
    /// Device numbers, each once: whole devices ascending, then the one of which it is a fraction. So the list alone
    /// tells, with the slot's number, how much of each device it is.
    devices: Vec<u32>,
    /// How many thousandths of each of them.
    parts: Vec<u32>,
}

impl GpuShare {
    /// The device numbers, whole devices first.
    #[must_use]
    pub fn devices(&self) -> &[u32] {
        &self.devices
    }

    fn new(devices: Vec<u32>, slot: Gpus) -> Self {
        let GpuParts { whole, thousandths } = slot.parts();
        let part = |at: usize| if at < whole as usize || thousandths == 0 { WHOLE } else { thousandths };
        let parts = (0..devices.len()).map(part).collect();
        Self { devices, parts }
    }
}

/// A device in thousandths.
const WHOLE: u32 = 1000;

/// How the devices that answer changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GpuChanges {
    /// No longer there, each with the number of kernels that have it.
    pub(super) lost: Vec<(Gpu, u32)>,
    /// Not there before.
    pub(super) found: Vec<Gpu>,
}

impl GpuMap {
    /// Nothing is handed out yet, and no device is there: [`GpuMap::update`] tells.
    #[must_use]
    pub fn new(only: Option<GpuList>) -> Self {
        Self { devices: BTreeMap::new(), loads: BTreeMap::new(), only }
    }

    /// Takes the devices that answer now for all that there are. A device that is there already keeps its number:
    /// the driver may number those that are left anew when one falls off the bus.
    pub(super) fn update(&mut self, present: Vec<Gpu>) -> GpuChanges {
        let mut changes = GpuChanges::default();
        let known: Vec<Gpu> = std::mem::take(&mut self.devices).into_values().collect();
        let (mut kept, mut new) = (Vec::new(), Vec::new());
        for gpu in present {
            match known.iter().find(|known| known.uuid == gpu.uuid) {
                Some(known) => kept.push(Gpu { index: known.index, ..gpu }),
                None if self.only.as_ref().is_none_or(|only| only.allows(&gpu)) => new.push(gpu),
                None => {}
            }
        }
        let lost = known.into_iter().filter(|known| kept.iter().all(|gpu| gpu.uuid != known.uuid));
        changes.lost = lost
            .map(|gpu| {
                let kernels = self.load(gpu.index).kernels;
                (gpu, kernels)
            })
            .collect();
        self.devices = kept.into_iter().map(|gpu| (gpu.index, gpu)).collect();
        for gpu in new {
            // A number that another device keeps; the next free one stands in.
            let is_free = |index: &u32| !self.devices.contains_key(index);
            let mut numbers = std::iter::once(gpu.index).chain(0..=u32::MAX);
            let index = numbers.find(is_free).unwrap_or(gpu.index);
            let gpu = Gpu { index, ..gpu };
            changes.found.push(gpu.clone());
            self.devices.insert(index, gpu);
        }
        changes
    }

    /// Whether so many can be handed out. More than there are is an error: unlike with cores, a program that was
    /// promised two devices fails with one.
    pub fn check(&self, slot: Gpus) -> Result<(), ResourceError> {
        let asked = slot.count() as usize;
        match self.devices.len() {
            0 if asked > 0 => Err(ResourceError::NoGpus),
            present if asked > present => Err(ResourceError::TooFewGpus { asked, present }),
            _ => Ok(()),
        }
    }

    /// Hands out different devices: whole ones with the least load, those at the NUMA node `near` first among equals,
    /// then the lowest numbers. A fraction goes where other fractions leave room for it, so that whole devices stay
    /// free for those who ask for them.
    pub fn allocate(&mut self, slot: Gpus, near: Option<u32>) -> Result<GpuShare, ResourceError> {
        self.check(slot)?;
        let GpuParts { whole, thousandths } = slot.parts();
        let is_far = |gpu: &Gpu| gpu.node.is_none() || gpu.node != near;
        let load = |gpu: &Gpu| self.load(gpu.index).thousandths;
        let mut candidates: Vec<&Gpu> = self.devices.values().collect();
        candidates.sort_by_key(|gpu| (load(gpu), is_far(gpu), gpu.index));
        let rest = candidates.split_off((whole as usize).min(candidates.len()));
        let mut devices: Vec<u32> = candidates.iter().map(|gpu| gpu.index).collect();
        devices.sort_unstable();
        if thousandths > 0 {
            let has_room = |gpu: &&&Gpu| load(gpu) + u64::from(thousandths) <= u64::from(WHOLE);
            let tightest = |gpu: &&&Gpu| (load(gpu) == 0, is_far(gpu), Reverse(load(gpu)), gpu.index);
            let shared = rest.iter().filter(has_room).min_by_key(tightest);
            // Where none has room, the first, which has the least load.
            devices.extend(shared.or(rest.first()).map(|gpu| gpu.index));
        }
        Ok(self.hand_out(devices, slot))
    }

    /// Hands out exactly these devices; `None`, and nothing is handed out, unless they are as many as `slot` asks for
    /// and all exist.
    pub fn allocate_exactly(&mut self, slot: Gpus, devices: &[u32]) -> Option<GpuShare> {
        let exist = devices.iter().all(|device| self.devices.contains_key(device));
        let devices = each_once(devices);
        (exist && devices.len() == slot.count() as usize).then(|| self.hand_out(devices, slot))
    }

    /// Counts devices as handed out, whatever they are: a kernel that was found running has them already. Where
    /// `uuids` tells the devices' names, these count more than the numbers, which may be others after a reboot.
    pub fn claim(&mut self, slot: Gpus, devices: &[u32], uuids: &[String]) -> GpuShare {
        let number = |(at, device): (usize, &u32)| {
            let named = self.devices.values().find(|gpu| uuids.get(at) == Some(&gpu.uuid));
            named.map_or(*device, |gpu| gpu.index)
        };
        let devices: Vec<u32> = devices.iter().enumerate().map(number).collect();
        self.hand_out(each_once(&devices), slot)
    }

    /// Takes back what was handed out.
    pub fn free(&mut self, share: GpuShare) {
        for (device, part) in share.devices.into_iter().zip(share.parts) {
            if let Some(load) = self.loads.get_mut(&device) {
                load.thousandths -= u64::from(part);
                load.kernels -= 1;
                if load.kernels == 0 {
                    self.loads.remove(&device);
                }
            }
        }
    }

    /// The lasting names of the devices of a share; one that is gone has none.
    #[must_use]
    pub fn uuids(&self, share: &GpuShare) -> Vec<String> {
        let known = share.devices.iter().filter_map(|device| self.devices.get(device));
        known.map(|gpu| gpu.uuid.clone()).collect()
    }

    /// The number of devices.
    #[must_use]
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// How many kernels have a part of each device; devices that are free are left out.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<u32, u32> {
        self.loads.iter().map(|(device, load)| (*device, load.kernels)).collect()
    }

    fn load(&self, device: u32) -> Load {
        self.loads.get(&device).copied().unwrap_or_default()
    }

    fn hand_out(&mut self, devices: Vec<u32>, slot: Gpus) -> GpuShare {
        let share = GpuShare::new(devices, slot);
        for (device, part) in share.devices.iter().zip(&share.parts) {
            let load = self.loads.entry(*device).or_default();
            load.thousandths += u64::from(*part);
            load.kernels += 1;
        }
        share
    }
}

/// The same order, later repetitions left out.
fn each_once(devices: &[u32]) -> Vec<u32> {
    let is_first = |(at, device): &(usize, &u32)| !devices[..*at].contains(device);
    devices.iter().enumerate().filter(is_first).map(|(_, device)| *device).collect()
}

#[cfg(test)]
mod tests;
