//! The owner of the maps, and the allocations that come out of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cpu_map::{CpuMap, CpuShare};
use super::gpu_map::{Gpu, GpuMap, GpuShare};
use super::limits::ResourceError;
use super::topology::Topology;
use crate::units::{Cores, Gpus, Memory};

/// A handle to this machine's resources; clones share the same maps.
///
/// Inside is a plain mutex rather than a task: an [`Allocation`] must be able to give its cores back from `drop`,
/// which can't wait for a task, and every critical section is a few map operations without an await.
#[derive(Debug, Clone)]
pub struct Resources {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What is handed out. Both maps under one lock: a request gets all it asked for or nothing.
    maps: Mutex<Maps>,
    /// Told in every heartbeat, so it must not need the lock.
    totals: Totals,
}

#[derive(Debug)]
struct Maps {
    cpus: CpuMap,
    gpus: GpuMap,
}

/// What the machine has, as the heartbeat reports it (PROTOCOL section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// `mem_slots`: memory.
    pub memory: Memory,
    /// `cpu_slots`: cores.
    pub cpus: usize,
    /// `gpu_slots`: devices.
    pub gpus: usize,
}

/// What a kernel wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Cores; 0 stands for one.
    pub cpu_slot: Cores,
    /// GPUs.
    pub gpu_slot: Gpus,
    /// Cores that a restarted kernel had. Given again as they are if they exist on one node.
    pub prefer_cpus: Option<Vec<u32>>,
    /// Devices that a restarted kernel had. Given again if they exist and are as many as `gpu_slot` asks for.
    pub prefer_gpus: Option<Vec<u32>>,
}

/// What is handed out at this moment: shares by core and by device, without those that are free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// Shares by core.
    pub cpus: BTreeMap<u32, u32>,
    /// Shares by device number.
    pub gpus: BTreeMap<u32, u32>,
}

/// Cores and devices of one kernel. Dropping it gives them back, once; there is no other way to.
#[must_use = "dropping an allocation gives its cores and devices back"]
#[derive(Debug)]
pub struct Allocation {
    /// Where to give them back.
    shared: Arc<Shared>,
    /// The cores; taken out by `drop`.
    cpu: CpuShare,
    /// The devices; taken out by `drop`.
    gpu: GpuShare,
    /// The devices' lasting names, looked up once when they were handed out.
    gpu_uuids: Vec<String>,
}

impl Resources {
    /// All of it free. `memory` is the memory of the machine.
    #[must_use]
    pub fn new(topology: Topology, gpus: Vec<Gpu>, memory: Memory) -> Self {
        let cores = topology.core_count();
        let maps = Maps { cpus: CpuMap::new(topology), gpus: GpuMap::new(gpus) };
        let totals = Totals { memory, cpus: cores, gpus: maps.gpus.device_count() };
        Self { shared: Arc::new(Shared { maps: Mutex::new(maps), totals }) }
    }

    /// Hands out cores and devices, all that was asked for or an error. Cores are shared when they are short
    /// and never run out; devices can't be more than there are.
    pub fn allocate(&self, request: Request) -> Result<Allocation, ResourceError> {
        let (cores, devices) = (request.cpu_slot.count(), request.gpu_slot.count());
        let mut maps = self.shared.lock();
        // Devices first: they can be refused, cores can't.
        let preferred = request.prefer_gpus.and_then(|wanted| maps.gpus.allocate_exactly(devices, &wanted));
        let gpu = match preferred {
            Some(share) => share,
            None => maps.gpus.allocate(devices)?,
        };
        let preferred = request.prefer_cpus.and_then(|wanted| maps.cpus.allocate_exactly(&wanted));
        let cpu = preferred.unwrap_or_else(|| maps.cpus.allocate(cores));
        Ok(self.allocation(&maps, cpu, gpu))
    }

    /// Counts cores and devices of a kernel that was found running. Those that don't exist here are remembered
    /// and freed like the others, and hinder nobody.
    pub fn claim(&self, cpus: &[u32], gpus: &[u32]) -> Allocation {
        let mut maps = self.shared.lock();
        let cpu = maps.cpus.claim(cpus);
        let gpu = maps.gpus.claim(gpus);
        self.allocation(&maps, cpu, gpu)
    }

    /// What the machine has; takes no lock.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals
    }

    /// A snapshot of what is handed out.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        let maps = self.shared.lock();
        InUse { cpus: maps.cpus.shares().clone(), gpus: maps.gpus.shares().clone() }
    }

    fn allocation(&self, maps: &Maps, cpu: CpuShare, gpu: GpuShare) -> Allocation {
        let gpu_uuids = maps.gpus.uuids(&gpu);
        Allocation { shared: Arc::clone(&self.shared), cpu, gpu, gpu_uuids }
    }
}

impl Shared {
    /// The maps are consistent between any two of their operations, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allocation {
    /// The cores, ascending: `cpu_set` on the wire, `CpusetCpus` in Docker.
    #[must_use]
    pub fn cpu_set(&self) -> &[u32] {
        self.cpu.cpus()
    }

    /// Their NUMA node: `CpusetMems` in Docker. `None` for claimed cores that are unknown here or on several nodes.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.cpu.node()
    }

    /// The devices, ascending: `gpu_set` on the wire.
    #[must_use]
    pub fn gpu_set(&self) -> &[u32] {
        self.gpu.devices()
    }

    /// The devices' names for Docker's device requests, in the order of [`gpu_set`](Self::gpu_set); claimed devices
    /// that are gone are missing.
    #[must_use]
    pub fn gpu_uuids(&self) -> &[String] {
        &self.gpu_uuids
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut maps = self.shared.lock();
        maps.cpus.free(std::mem::take(&mut self.cpu));
        maps.gpus.free(std::mem::take(&mut self.gpu));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(gpus: u32) -> Resources {
        let gpu = |index| Gpu { index, uuid: format!("GPU-{index}"), name: "test".into() };
        Resources::new(Topology::flat(2), (0..gpus).map(gpu).collect(), Memory::from_bytes(3_000_000_000))
    }

    fn ask(cpu_slot: f64, gpu_slot: f64) -> Request {
        let (cpu_slot, gpu_slot) = (Cores::from_slot(cpu_slot).unwrap(), Gpus::from_slot(gpu_slot).unwrap());
        Request { cpu_slot, gpu_slot, ..Request::default() }
    }

    #[test]
    fn totals_are_what_the_heartbeat_says() {
        assert_eq!(
            resources(3).totals(),
            Totals { memory: Memory::from_bytes(3_000_000_000), cpus: 2, gpus: 3 }
        );
    }

    #[test]
    fn an_allocation_frees_itself_once() {
        let resources = resources(2);
        let first = resources.allocate(ask(1.0, 0.5)).unwrap();
        let second = resources.clone().allocate(ask(2.0, 2.0)).unwrap();
        assert_eq!((first.cpu_set(), first.numa_node(), first.gpu_set()), (&[0][..], Some(0), &[0][..]));
        assert_eq!(second.gpu_uuids(), ["GPU-0", "GPU-1"]);
        let shares = |counts: &[(u32, u32)]| counts.iter().copied().collect::<BTreeMap<u32, u32>>();
        let both = InUse { cpus: shares(&[(0, 2), (1, 1)]), gpus: shares(&[(0, 2), (1, 1)]) };
        assert_eq!(resources.in_use(), both);
        drop(first);
        let one = InUse { cpus: shares(&[(0, 1), (1, 1)]), gpus: shares(&[(0, 1), (1, 1)]) };
        assert_eq!(resources.in_use(), one);
        drop(second);
        assert_eq!(resources.in_use(), InUse::default());
    }

    #[test]
    fn a_refused_request_takes_nothing() {
        let resources = resources(1);
        let refused = resources.allocate(ask(1.0, 2.0)).unwrap_err();
        assert_eq!(refused.to_string(), "2 GPUs were asked for, but this machine has 1");
        assert_eq!(resources.in_use(), InUse::default());
    }

    #[test]
    fn a_restarted_kernel_keeps_what_it_had() {
        let resources = resources(2);
        let mut request = ask(1.0, 1.0);
        request.prefer_cpus = Some(vec![1]);
        request.prefer_gpus = Some(vec![1]);
        let kept = resources.allocate(request).unwrap();
        assert_eq!((kept.cpu_set(), kept.gpu_set()), (&[1][..], &[1][..]));
        let mut elsewhere = ask(1.0, 1.0);
        elsewhere.prefer_cpus = Some(vec![9]);
        elsewhere.prefer_gpus = Some(vec![9]);
        let moved = resources.allocate(elsewhere).unwrap();
        assert_eq!((moved.cpu_set(), moved.gpu_set()), (&[0][..], &[0][..]));
    }

    #[test]
    fn recovered_kernels_are_counted() {
        let resources = resources(1);
        let found = resources.claim(&[40, 0], &[5, 0]);
        assert_eq!((found.cpu_set(), found.numa_node()), (&[0, 40][..], None));
        assert_eq!((found.gpu_set(), found.gpu_uuids()), (&[0, 5][..], &["GPU-0".to_owned()][..]));
        assert_eq!(resources.allocate(ask(1.0, 0.0)).unwrap().cpu_set(), [1]);
        drop(found);
        assert_eq!(resources.in_use(), InUse::default());
    }

    #[test]
    fn many_threads_leave_nothing_behind() {
        let resources = resources(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let allocation = resources.allocate(ask(2.0, 1.5)).unwrap();
                        assert_eq!(allocation.gpu_set().len(), 2);
                    }
                });
            }
        });
        assert_eq!(resources.in_use(), InUse::default());
    }
}
