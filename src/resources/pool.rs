//! The owner of the maps, and the allocations that come out of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::cpu_map::{CpuMap, CpuShare};
use super::gpu_map::{Gpu, GpuChanges, GpuMap, GpuShare};
use super::limits::{self, MemoryGrant, ResourceError, ShmSize};
use super::node_limits::{NodeLimits, NothingLeft};
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
    /// Told in every heartbeat, so it must not need the lock. Changes as GPUs come and go.
    totals: watch::Sender<Totals>,
    /// The machine's memory, what is kept from kernels included: the most that one kernel can have.
    machine: Memory,
    /// How large a kernel's shared memory is.
    shm: ShmSize,
}

#[derive(Debug)]
struct Maps {
    cpus: CpuMap,
    gpus: GpuMap,
}

/// What kernels can have of the machine, as the heartbeat reports it (PROTOCOL section 4).
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

/// What a kernel that was found running has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held<'k> {
    /// The kernel's cores.
    pub cpus: &'k [u32],
    /// The kernel's devices by number, in the order in which they were answered.
    pub gpus: &'k [u32],
    /// The same devices' names as Docker was asked for them; may be shorter or empty.
    pub gpu_uuids: &'k [String],
    /// How much of those devices.
    pub gpu_slot: Gpus,
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
    /// All of it free, without what the operator keeps. `machine` is the memory of the machine. There are no GPUs
    /// until somebody tells of some, see [`GpuWatch`](super::GpuWatch).
    pub fn new(topology: Topology, machine: Memory, limits: NodeLimits) -> Result<Self, NothingLeft> {
        let NodeLimits { cores, reserved_memory: reserved, gpus, shm } = limits;
        let memory = Memory::from_bytes(machine.bytes().saturating_sub(reserved.bytes()));
        if memory == Memory::default() && reserved > memory {
            return Err(NothingLeft::Memory { reserved, machine });
        }
        let topology = topology.restricted(&cores)?;
        let totals = Totals { memory, cpus: topology.core_count(), gpus: 0 };
        let maps = Mutex::new(Maps { cpus: CpuMap::new(topology), gpus: GpuMap::new(gpus) });
        Ok(Self { shared: Arc::new(Shared { maps, totals: watch::Sender::new(totals), machine, shm }) })
    }

    /// Takes the GPUs that answer now for all that there are.
    pub(super) fn update_gpus(&self, present: Vec<Gpu>) -> GpuChanges {
        let (changes, gpus) = {
            let mut maps = self.shared.lock();
            (maps.gpus.update(present), maps.gpus.device_count())
        };
        self.shared.totals.send_if_modified(|totals| std::mem::replace(&mut totals.gpus, gpus) != gpus);
        changes
    }

    /// The memory of a kernel that asks for `mem_slot`; 0 means no limit.
    pub fn memory(&self, mem_slot: Memory) -> Result<MemoryGrant, ResourceError> {
        limits::memory(mem_slot, self.shared.shm, self.shared.machine)
    }

    /// Hands out cores and devices, all that was asked for or an error. Cores are shared when they are short
    /// and never run out; devices can't be more than there are.
    pub fn allocate(&self, request: Request) -> Result<Allocation, ResourceError> {
        let Request { cpu_slot, gpu_slot, prefer_cpus, prefer_gpus } = request;
        let mut maps = self.shared.lock();
        // Devices can be refused, cores can't; but which devices are near is known by the cores.
        maps.gpus.check(gpu_slot)?;
        let preferred = prefer_cpus.and_then(|wanted| maps.cpus.allocate_exactly(&wanted));
        let cpu = preferred.unwrap_or_else(|| maps.cpus.allocate(cpu_slot.count()));
        let preferred = prefer_gpus.and_then(|wanted| maps.gpus.allocate_exactly(gpu_slot, &wanted));
        let gpu = match preferred {
            Some(share) => Ok(share),
            None => maps.gpus.allocate(gpu_slot, cpu.node()),
        };
        match gpu {
            Ok(gpu) => Ok(self.allocation(&maps, cpu, gpu)),
            Err(error) => {
                maps.cpus.free(cpu);
                Err(error)
            }
        }
    }

    /// Counts cores and devices of a kernel that was found running. Those that don't exist here are remembered
    /// and freed like the others, and hinder nobody.
    pub fn claim(&self, held: &Held<'_>) -> Allocation {
        let mut maps = self.shared.lock();
        let cpu = maps.cpus.claim(held.cpus);
        let gpu = maps.gpus.claim(held.gpu_slot, held.gpus, held.gpu_uuids);
        self.allocation(&maps, cpu, gpu)
    }

    /// What kernels can have now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        *self.shared.totals.borrow()
    }

    /// Follows what kernels can have; reading it takes no lock of the maps.
    #[must_use]
    pub fn watch_totals(&self) -> watch::Receiver<Totals> {
        self.shared.totals.subscribe()
    }

    /// How many kernels have each core that can be handed out, ascending.
    #[must_use]
    pub fn cores(&self) -> Vec<(u32, u32)> {
        let maps = self.shared.lock();
        maps.cpus.cores().map(|core| (core, maps.cpus.shares().get(&core).copied().unwrap_or(0))).collect()
    }

    /// A snapshot of what is handed out.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        let maps = self.shared.lock();
        InUse { cpus: maps.cpus.shares().clone(), gpus: maps.gpus.shares() }
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

    /// The NUMA node of the cores: `CpusetMems` in Docker. `None` for claimed cores that are unknown here or on several nodes.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.cpu.node()
    }

    /// The devices, whole ones ascending and then the one of which it is a fraction: `gpu_set` on the wire.
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
    use super::super::topology::{CoreChoice, CoreFacts};
    use super::*;

    /// Two cores on one node, and GPUs near them.
    fn resources(gpus: u32) -> Resources {
        let machine = Memory::from_bytes(3_000_000_000);
        let resources = Resources::new(Topology::flat(2), machine, NodeLimits::default()).unwrap();
        resources.update_gpus((0..gpus).map(gpu).collect());
        resources
    }

    fn gpu(index: u32) -> Gpu {
        let uuid = format!("GPU-{index}");
        Gpu { index, uuid, name: "test".into(), node: Some(0), memory: Memory::from_mib(1) }
    }

    fn ask(cpu_slot: f64, gpu_slot: f64) -> Request {
        let (cpu_slot, gpu_slot) = (Cores::from_slot(cpu_slot).unwrap(), Gpus::from_slot(gpu_slot).unwrap());
        Request { cpu_slot, gpu_slot, ..Request::default() }
    }

    #[test]
    fn totals_are_what_the_heartbeat_says() {
        let resources = resources(3);
        let mut totals = resources.watch_totals();
        let memory = Memory::from_bytes(3_000_000_000);
        assert_eq!(*totals.borrow_and_update(), Totals { memory, cpus: 2, gpus: 3 });
        resources.update_gpus(vec![gpu(0), gpu(1), gpu(2)]);
        assert!(!totals.has_changed().unwrap());
        resources.update_gpus(vec![gpu(2)]);
        assert_eq!(*totals.borrow_and_update(), Totals { memory, cpus: 2, gpus: 1 });
    }

    #[test]
    fn what_the_operator_keeps_is_not_told_and_not_given() {
        let kept = |reserved: u64, cores: &str, gpus: &str| {
            let limits = NodeLimits {
                cores: CoreChoice { reserved: Some(cores.parse().unwrap()), only: None },
                reserved_memory: Memory::from_mib(reserved),
                gpus: Some(gpus.parse().unwrap()),
                shm: ShmSize::Percent(25),
            };
            Resources::new(Topology::flat(4), Memory::from_mib(8192), limits)
        };
        let resources = kept(1024, "0-1", "1").unwrap();
        resources.update_gpus(vec![gpu(0), gpu(1)]);
        let totals = Totals { memory: Memory::from_mib(7168), cpus: 2, gpus: 1 };
        assert_eq!(resources.totals(), totals);
        let given = resources.allocate(ask(9.0, 1.0)).unwrap();
        assert_eq!((given.cpu_set(), given.gpu_uuids()), (&[2, 3][..], &["GPU-1".to_owned()][..]));
        let memory = resources.memory(Memory::from_mib(8192)).unwrap();
        assert_eq!((memory.limit, memory.shm), (Some(Memory::from_mib(8192)), Memory::from_mib(2048)));
        assert!(resources.memory(Memory::from_mib(8193)).is_err());
        assert!(matches!(kept(0, "0-3", "1"), Err(NothingLeft::Cores(_))));
        let text = kept(8192, "0", "1").unwrap_err().to_string();
        assert!(text.starts_with("--reserved-memory keeps 8192 MiB of 8192 MiB"), "{text}");
    }

    #[test]
    fn devices_are_near_the_cores() {
        let nodes = vec![(0, vec![0, 1]), (1, vec![2, 3])];
        let topology = Topology::assemble(&CoreFacts { nodes, ..CoreFacts::default() });
        let resources = Resources::new(topology, Memory::from_mib(1), NodeLimits::default()).unwrap();
        resources.update_gpus((0..8).map(|n| Gpu { node: Some(n / 4), ..gpu(n) }).collect());
        let sets: Vec<_> =
            std::iter::repeat_with(|| resources.allocate(ask(1.0, 2.0)).unwrap()).take(4).collect();
        let nodes: Vec<_> = sets.iter().map(|set| (set.cpu_set()[0], set.gpu_set().to_vec())).collect();
        assert_eq!(nodes, [(0, vec![0, 1]), (2, vec![4, 5]), (1, vec![2, 3]), (3, vec![6, 7])]);
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
        let held =
            Held { cpus: &[40, 0], gpus: &[5, 0], gpu_slot: Gpus::from_slot(2.0).unwrap(), gpu_uuids: &[] };
        let found = resources.claim(&held);
        assert_eq!((found.cpu_set(), found.numa_node()), (&[0, 40][..], None));
        assert_eq!((found.gpu_set(), found.gpu_uuids()), (&[5, 0][..], &["GPU-0".to_owned()][..]));
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
