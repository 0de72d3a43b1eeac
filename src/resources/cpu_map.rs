//! Which cores are handed out, how often; pure (PROTOCOL sections 9 and 12.35).

use std::collections::BTreeMap;

use super::tally::Tally;
use super::topology::{NumaNode, Topology};

/// The cores of the machine and how many kernels each was given to. Cores are shared when there are more
/// kernels than cores: the manager overbooks.
#[derive(Debug)]
pub struct CpuMap {
    /// What can be handed out.
    topology: Topology,
    /// Shares by core. Also counts claimed cores that don't exist here, so that freeing them needs no exception.
    shares: Tally,
}

/// Cores that were handed out. Not `Clone`, and [`CpuMap::free`] takes it by value: it can't be freed twice.
#[must_use = "the cores stay handed out until this is freed"]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CpuShare {
    /// Ascending, each once.
    cpus: Vec<u32>,
    /// The node of the cores, if they all lie on one.
    node: Option<u32>,
}

impl CpuShare {
    /// The cores, ascending.
    #[must_use]
    pub fn cpus(&self) -> &[u32] {
        &self.cpus
    }

    /// The NUMA node of all of them; `None` for claimed cores that are unknown here or on several nodes.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        self.node
    }
}

impl CpuMap {
    /// Nothing is handed out yet.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self { topology, shares: Tally::default() }
    }

    /// Hands out `n` cores, at least 1 and at most what a node has: of the node with the fewest shares handed out
    /// (ties: the lowest number) the least shared cores. Of equally shared ones those come first whose siblings have
    /// the fewest shares, this kernel's own included, then the lowest numbers.
    ///
    /// Nodes of different sizes, as `--reserved-cpus` makes them, are told apart: a node that is too small for the
    /// request gets it only if all are.
    pub fn allocate(&mut self, n: u32) -> CpuShare {
        let n = n.max(1) as usize;
        let candidates = self.topology.nodes_of_at_least(n);
        // The first of several minima, which has the lowest number.
        let node = candidates.min_by_key(|node| self.node_shares(node)).unwrap_or(self.topology.first_node());
        let (id, cpus) = (node.id, self.least_shared(node, n));
        self.shares.add(&cpus);
        CpuShare { cpus, node: Some(id) }
    }

    /// Up to `n` cores of the node, ascending.
    fn least_shared(&self, node: &NumaNode, n: usize) -> Vec<u32> {
        let physical = |cpu: u32| self.topology.physical(cpu);
        let mut load: BTreeMap<u32, u32> = BTreeMap::new();
        for cpu in &node.cpus {
            *load.entry(physical(*cpu)).or_default() += self.shares.count(*cpu);
        }
        let (mut left, mut picked) = (node.cpus.clone(), Vec::new());
        while picked.len() < n {
            let sibling_load = |cpu: u32| load.get(&physical(cpu)).copied().unwrap_or_default();
            let key = |cpu: u32| (self.shares.count(cpu), sibling_load(cpu), cpu);
            let Some(best) = left.iter().copied().min_by_key(|cpu| key(*cpu)) else { break };
            *load.entry(physical(best)).or_default() += 1;
            left.retain(|cpu| *cpu != best);
            picked.push(best);
        }
        picked.sort_unstable();
        picked
    }

    /// Hands out exactly `cpus`, as a restarted kernel keeps its cores; `None`, and nothing is handed out,
    /// unless they all exist on one node.
    pub fn allocate_exactly(&mut self, cpus: &[u32]) -> Option<CpuShare> {
        self.topology.node_of_all(cpus)?;
        Some(self.claim(cpus))
    }

    /// Counts `cpus` as handed out, whatever they are: a kernel that was found running has them already.
    pub fn claim(&mut self, cpus: &[u32]) -> CpuShare {
        let mut cpus = cpus.to_vec();
        cpus.sort_unstable();
        cpus.dedup();
        self.shares.add(&cpus);
        CpuShare { node: self.topology.node_of_all(&cpus), cpus }
    }

    /// Takes back what was handed out.
    pub fn free(&mut self, share: CpuShare) {
        let CpuShare { cpus, node: _ } = share;
        self.shares.remove(&cpus);
    }

    /// All cores that can be handed out, ascending.
    pub fn cores(&self) -> impl Iterator<Item = u32> {
        let mut cores: Vec<u32> = self.topology.nodes().flat_map(|node| node.cpus.clone()).collect();
        cores.sort_unstable();
        cores.into_iter()
    }

    /// How often each core is handed out; cores that are free are left out.
    #[must_use]
    pub fn shares(&self) -> &BTreeMap<u32, u32> {
        self.shares.counts()
    }

    fn node_shares(&self, node: &NumaNode) -> u64 {
        node.cpus.iter().map(|cpu| u64::from(self.shares.count(*cpu))).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::topology::CoreFacts;
    use super::*;

    fn map(nodes: &[(u32, &[u32])]) -> CpuMap {
        let nodes = nodes.iter().map(|(id, cpus)| (*id, cpus.to_vec())).collect();
        CpuMap::new(Topology::assemble(&CoreFacts { nodes, ..CoreFacts::default() }))
    }

    #[test]
    fn kernels_alternate_between_nodes_and_share_when_full() {
        let mut map = map(&[(0, &[0, 1]), (4, &[2, 3])]);
        let shares: Vec<CpuShare> = (0..5).map(|_| map.allocate(1)).collect();
        let cores: Vec<&[u32]> = shares.iter().map(CpuShare::cpus).collect();
        assert_eq!(cores, [&[0], &[2], &[1], &[3], &[0]]);
        assert_eq!(shares[1].node(), Some(4));
    }

    #[test]
    fn the_count_is_clamped_to_the_node() {
        let mut map = map(&[(0, &[0, 1]), (1, &[2, 3])]);
        assert_eq!(map.allocate(u32::MAX).cpus(), [0, 1]);
        assert_eq!(map.allocate(3).cpus(), [2, 3]);
        assert_eq!(map.allocate(0).cpus(), [0]);
    }

    #[test]
    fn siblings_come_last() {
        let siblings = vec![vec![0, 4], vec![1, 5], vec![2, 6], vec![3, 7]];
        let nodes = vec![(0, (0..8).collect())];
        let mut map = CpuMap::new(Topology::assemble(&CoreFacts { nodes, siblings, ..CoreFacts::default() }));
        assert_eq!(map.allocate(1).cpus(), [0]);
        assert_eq!(map.allocate(2).cpus(), [1, 2]);
        // Core 3 and its sibling are the last physical core that is free; then comes a sibling of a used one.
        assert_eq!(map.allocate(2).cpus(), [3, 4]);
        assert_eq!(map.allocate(3).cpus(), [5, 6, 7]);
        assert_eq!(map.allocate(4).cpus(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_node_that_is_too_small_is_passed_over() {
        let mut map = map(&[(0, &[1]), (1, &[2, 3, 4])]);
        assert_eq!(map.allocate(2).cpus(), [2, 3]);
        assert_eq!(map.allocate(1).cpus(), [1]);
        assert_eq!(map.allocate(9).cpus(), [2, 3, 4]);
    }

    #[test]
    fn claimed_cores_that_do_not_exist_do_no_harm() {
        let mut map = map(&[(0, &[0, 1])]);
        let odd = map.claim(&[70, 1, 70]);
        assert_eq!((odd.cpus(), odd.node()), (&[1, 70][..], None));
        assert_eq!(map.allocate(1).cpus(), [0]);
        map.free(odd);
        assert_eq!(map.shares(), &BTreeMap::from([(0, 1)]));
    }

    #[test]
    fn preferred_cores_must_exist_on_one_node() {
        let mut map = map(&[(0, &[0, 1]), (1, &[2, 3])]);
        assert_eq!(map.allocate_exactly(&[3, 2]).unwrap().cpus(), [2, 3]);
        for odd in [&[1, 2][..], &[9], &[]] {
            assert_eq!(map.allocate_exactly(odd), None);
        }
        assert_eq!(map.shares(), &BTreeMap::from([(2, 1), (3, 1)]));
    }

    /// What may happen to a map; `Free` gives back the n-th share that is out.
    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u32),
        Claim(Vec<u32>),
        Free(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u32..12).prop_map(Step::Allocate),
            1 => proptest::collection::vec(0u32..20, 0..5).prop_map(Step::Claim),
            2 => any::<prop::sample::Index>().prop_map(Step::Free),
        ]
    }

    proptest! {
        /// Against a model that keeps the sets that are out and counts from scratch each time, on any topology:
        /// nodes of any size with gaps in their numbers, and hardware threads that share cores in any way.
        #[test]
        fn behaves_like_the_model(
            sizes in proptest::collection::vec(0u32..7, 1..4),
            physical in proptest::collection::vec(0u32..6, 18),
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut next = 0;
            let nodes: Vec<(u32, Vec<u32>)> = (0u32..).zip(&sizes).map(|(id, size)| {
                next += size;
                (id * 3, (next - size..next).collect())
            }).collect();
            let core = |cpu: u32| physical.get(cpu as usize).copied().unwrap_or(cpu + 100);
            let siblings = (0..6).map(|p| (0..18).filter(|cpu| core(*cpu) == p).collect()).collect();
            let topology = Topology::assemble(&CoreFacts { nodes, siblings, ..CoreFacts::default() });
            let nodes: Vec<NumaNode> = topology.nodes().cloned().collect();
            let most = nodes.iter().map(|node| node.cpus.len()).max().unwrap();
            let mut map = CpuMap::new(topology);
            let mut out: Vec<CpuShare> = Vec::new();
            for step in steps {
                let count = |cpu: u32| out.iter().filter(|share| share.cpus().contains(&cpu)).count();
                match step {
                    Step::Allocate(n) => {
                        let wanted = (n.max(1) as usize).min(most);
                        let load = |node: &&NumaNode| node.cpus.iter().map(|c| count(*c)).sum::<usize>();
                        let node = nodes.iter().filter(|node| node.cpus.len() >= wanted).min_by_key(load).unwrap();
                        let mut expected: Vec<u32> = Vec::new();
                        while expected.len() < wanted {
                            let of_core = |cpu: u32| {
                                let mates = node.cpus.iter().filter(|mate| core(**mate) == core(cpu));
                                mates.map(|mate| count(*mate) + usize::from(expected.contains(mate))).sum::<usize>()
                            };
                            let free = node.cpus.iter().filter(|cpu| !expected.contains(cpu));
                            let best = *free.min_by_key(|cpu| (count(**cpu), of_core(**cpu), **cpu)).unwrap();
                            expected.push(best);
                        }
                        expected.sort_unstable();
                        let share = map.allocate(n);
                        prop_assert_eq!((share.cpus(), share.node()), (&expected[..], Some(node.id)));
                        let fewest_left = node.cpus.iter().filter(|cpu| !expected.contains(cpu)).map(|cpu| count(*cpu)).min();
                        let most_given = expected.iter().map(|cpu| count(*cpu)).max().unwrap();
                        prop_assert!(fewest_left.is_none_or(|left| left >= most_given), "a less shared core was left");
                        out.push(share);
                    }
                    Step::Claim(cores) => out.push(map.claim(&cores)),
                    Step::Free(which) => if !out.is_empty() {
                        let share = out.swap_remove(which.index(out.len()));
                        map.free(share);
                    },
                }
                let mut expected: BTreeMap<u32, u32> = BTreeMap::new();
                for core in out.iter().flat_map(CpuShare::cpus) {
                    *expected.entry(*core).or_default() += 1;
                }
                prop_assert_eq!(map.shares(), &expected);
            }
            for share in out {
                map.free(share);
            }
            prop_assert!(map.shares().is_empty());
        }
    }
}
