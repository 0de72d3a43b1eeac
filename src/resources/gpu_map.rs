//! Which GPUs are handed out, how often; pure (PROTOCOL section 12.36).

use std::collections::BTreeMap;

use super::limits::ResourceError;
use super::tally::Tally;

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's number of the device: what the manager gets to see in `gpu_set`. May change at a reboot.
    pub index: u32,
    /// The device's own lasting name, `GPU-…`: what Docker is asked for.
    pub uuid: String,
    /// The model, for log lines.
    pub name: String,
}

/// The GPUs of the machine and how many kernels each was given to. Devices are shared: a fraction of one is a
/// share of a whole device, and the least shared devices are handed out first.
#[derive(Debug)]
pub struct GpuMap {
    /// By number.
    devices: BTreeMap<u32, Gpu>,
    /// Shares by number; claimed devices that are gone are counted like the others.
    shares: Tally,
}

/// Devices that were handed out; see `CpuShare` for why it is not `Clone`.
#[must_use = "the devices stay handed out until this is freed"]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GpuShare {
    /// Device numbers, ascending, each once.
    devices: Vec<u32>,
}

impl GpuShare {
    /// The device numbers, ascending.
    #[must_use]
    pub fn devices(&self) -> &[u32] {
        &self.devices
    }
}

impl GpuMap {
    /// Nothing is handed out yet.
    #[must_use]
    pub fn new(gpus: Vec<Gpu>) -> Self {
        let devices = gpus.into_iter().map(|gpu| (gpu.index, gpu)).collect();
        Self { devices, shares: Tally::default() }
    }

    /// Hands out `n` different devices, the least shared ones (ties: the lowest number). More than there are is
    /// an error: unlike with cores, a program that was promised two devices fails with one.
    pub fn allocate(&mut self, n: u32) -> Result<GpuShare, ResourceError> {
        let asked = n as usize;
        match self.devices.len() {
            0 if asked > 0 => return Err(ResourceError::NoGpus),
            present if asked > present => return Err(ResourceError::TooFewGpus { asked, present }),
            _ => {}
        }
        let devices = self.shares.least(self.devices.keys().copied().collect(), asked);
        self.shares.add(&devices);
        Ok(GpuShare { devices })
    }

    /// Hands out exactly these devices; `None`, and nothing is handed out, unless they are `n` that all exist.
    pub fn allocate_exactly(&mut self, n: u32, devices: &[u32]) -> Option<GpuShare> {
        let exist = devices.iter().all(|device| self.devices.contains_key(device));
        let mut different = devices.to_vec();
        different.sort_unstable();
        different.dedup();
        (exist && different.len() == n as usize).then(|| self.claim(devices))
    }

    /// Counts `devices` as handed out, whatever they are: a kernel that was found running has them already.
    pub fn claim(&mut self, devices: &[u32]) -> GpuShare {
        let mut devices = devices.to_vec();
        devices.sort_unstable();
        devices.dedup();
        self.shares.add(&devices);
        GpuShare { devices }
    }

    /// Takes back what was handed out.
    pub fn free(&mut self, share: GpuShare) {
        let GpuShare { devices } = share;
        self.shares.remove(&devices);
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

    /// How often each device is handed out; devices that are free are left out.
    #[must_use]
    pub fn shares(&self) -> &BTreeMap<u32, u32> {
        self.shares.counts()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(indices: &[u32]) -> GpuMap {
        let gpu = |index: &u32| Gpu { index: *index, uuid: format!("GPU-{index}"), name: "test".into() };
        GpuMap::new(indices.iter().map(gpu).collect())
    }

    #[test]
    fn the_least_shared_devices_are_handed_out() {
        let mut map = map(&[0, 1, 3]);
        assert_eq!(map.allocate(1).unwrap().devices(), [0]);
        let two = map.allocate(2).unwrap();
        assert_eq!(two.devices(), [1, 3]);
        assert_eq!(map.uuids(&two), ["GPU-1", "GPU-3"]);
        map.free(two);
        assert_eq!(map.allocate(3).unwrap().devices(), [0, 1, 3]);
        assert_eq!(map.allocate(0).unwrap().devices(), [0u32; 0]);
    }

    #[test]
    fn more_than_there_are_is_refused_and_nothing_is_handed_out() {
        let mut map = map(&[0, 1]);
        assert!(matches!(map.allocate(3), Err(ResourceError::TooFewGpus { asked: 3, present: 2 })));
        assert!(map.shares().is_empty());
        assert!(matches!(GpuMap::new(Vec::new()).allocate(1), Err(ResourceError::NoGpus)));
        assert_eq!(GpuMap::new(Vec::new()).allocate(0).unwrap(), GpuShare::default());
    }

    #[test]
    fn preferred_devices_must_exist_and_be_as_many_as_asked() {
        let mut map = map(&[0, 1]);
        assert_eq!(map.allocate_exactly(1, &[1]).unwrap().devices(), [1]);
        for (n, odd) in [(2, &[1][..]), (1, &[0, 1]), (1, &[7]), (2, &[1, 1])] {
            assert_eq!(map.allocate_exactly(n, odd), None);
        }
        let gone = map.claim(&[7]);
        assert!(map.uuids(&gone).is_empty());
        map.free(gone);
        assert_eq!(map.shares(), &BTreeMap::from([(1, 1)]));
    }

    proptest! {
        #[test]
        fn shares_stay_even_and_all_come_back(present in 1u32..6, asked in proptest::collection::vec(0u32..6, 0..20)) {
            let mut map = map(&(0..present).collect::<Vec<_>>());
            let mut out = Vec::new();
            for n in asked {
                match map.allocate(n) {
                    Ok(share) => {
                        prop_assert_eq!(share.devices().len(), n as usize);
                        out.push(share);
                    }
                    Err(_) => prop_assert!(n > present),
                }
                let counts: Vec<u32> = (0..present).map(|d| map.shares().get(&d).copied().unwrap_or(0)).collect();
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
            for share in out {
                map.free(share);
            }
            prop_assert!(map.shares().is_empty());
        }
    }
}
