//! Which cores there are and which NUMA node each belongs to: pure, from facts that `sysfs` gathers.

use std::collections::BTreeMap;

/// A NUMA node that has usable cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// The kernel's number of the node, which Docker takes as `CpusetMems`; numbers may have gaps.
    pub id: u32,
    /// Its usable cores, ascending, at least one.
    pub cpus: Vec<u32>,
}

/// The usable cores by NUMA node, in ascending order of the node numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Kept apart from the others, because there is always at least one: an allocation can't find nothing.
    first: NumaNode,
    /// The nodes after the first.
    rest: Vec<NumaNode>,
}

/// Which of the online cores kernels may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreLimit {
    /// The first so many online cores: Docker tells a number of cores (NCPU), not which.
    First(u32),
    /// These cores: the affinity of the agent's own process.
    Only(Vec<u32>),
    /// All of them.
    All,
}

/// What was found out about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreFacts {
    /// NUMA nodes with their cores, in any order, empty nodes included; none on a kernel without NUMA.
    pub nodes: Vec<(u32, Vec<u32>)>,
    /// The cores that are online, ascending; `None` if that is not known.
    pub online: Option<Vec<u32>>,
    /// Which of them are to be used.
    pub limit: CoreLimit,
}

impl Topology {
    /// Puts the facts together. There is always a result: contradictory facts leave the cores that are
    /// likely to exist, down to core 0, since an agent without cores would be of no use to anybody.
    ///
    /// Nodes without usable cores vanish. A core that no node lists joins the lowest node, and without any
    /// node all cores form node 0, which every kernel accepts as a memory node.
    #[must_use]
    pub fn assemble(facts: &CoreFacts) -> Self {
        let usable = usable_cores(facts);
        let mut node_of: BTreeMap<u32, u32> = BTreeMap::new();
        for (node, cpus) in &facts.nodes {
            for cpu in cpus {
                let owner = node_of.entry(*cpu).or_insert(*node);
                *owner = (*owner).min(*node);
            }
        }
        let lowest = usable.iter().filter_map(|cpu| node_of.get(cpu)).min().copied().unwrap_or(0);
        let mut nodes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for cpu in usable {
            nodes.entry(node_of.get(&cpu).copied().unwrap_or(lowest)).or_default().push(cpu);
        }
        let mut nodes = nodes.into_iter().map(|(id, cpus)| NumaNode { id, cpus });
        let first = nodes.next().unwrap_or(NumaNode { id: 0, cpus: vec![0] });
        Self { first, rest: nodes.collect() }
    }

    /// A machine without NUMA that has cores 0 to `cores` − 1 (at least core 0).
    #[cfg(test)]
    pub(super) fn flat(cores: u32) -> Self {
        Self::assemble(&CoreFacts { nodes: Vec::new(), online: None, limit: CoreLimit::First(cores) })
    }

    /// The nodes in ascending order; at least one.
    pub fn nodes(&self) -> impl Iterator<Item = &NumaNode> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The lowest node.
    #[must_use]
    pub fn first_node(&self) -> &NumaNode {
        &self.first
    }

    /// The number of usable cores: what the heartbeat says as `cpu_slots`.
    #[must_use]
    pub fn core_count(&self) -> usize {
        self.nodes().map(|node| node.cpus.len()).sum()
    }

    /// The one node that all of `cpus` belong to; `None` if they lie on several, don't exist, or are none.
    #[must_use]
    pub fn node_of_all(&self, cpus: &[u32]) -> Option<u32> {
        let node = self.nodes().find(|node| cpus.first().is_some_and(|cpu| node.cpus.contains(cpu)))?;
        cpus.iter().all(|cpu| node.cpus.contains(cpu)).then_some(node.id)
    }
}

/// The cores to use, ascending, each once.
fn usable_cores(facts: &CoreFacts) -> Vec<u32> {
    let mut known: Vec<u32> = match (&facts.online, &facts.limit) {
        (Some(online), _) => online.clone(),
        (None, _) if facts.nodes.iter().any(|(_, cpus)| !cpus.is_empty()) => {
            facts.nodes.iter().flat_map(|(_, cpus)| cpus).copied().collect()
        }
        (None, CoreLimit::First(count)) => (0..*count).collect(),
        (None, CoreLimit::Only(cores)) => cores.clone(),
        (None, CoreLimit::All) => Vec::new(),
    };
    known.sort_unstable();
    known.dedup();
    let limited: Vec<u32> = match &facts.limit {
        CoreLimit::First(count) => known.iter().copied().take(*count as usize).collect(),
        CoreLimit::Only(cores) => known.iter().copied().filter(|core| cores.contains(core)).collect(),
        CoreLimit::All => known.clone(),
    };
    // A limit that leaves nothing contradicts the machine; the machine is believed.
    if limited.is_empty() { known } else { limited }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(nodes: &[(u32, &[u32])], online: Option<&[u32]>, limit: CoreLimit, expected: &[(u32, &[u32])]) {
        let own = |nodes: &[(u32, &[u32])]| nodes.iter().map(|(id, cpus)| (*id, cpus.to_vec())).collect();
        let facts = CoreFacts { nodes: own(nodes), online: online.map(<[u32]>::to_vec), limit };
        let found: Vec<(u32, Vec<u32>)> =
            Topology::assemble(&facts).nodes().map(|node| (node.id, node.cpus.clone())).collect();
        let expected: Vec<(u32, Vec<u32>)> = own(expected);
        assert_eq!(found, expected);
    }

    #[test]
    fn two_plain_nodes() {
        let nodes: &[(u32, &[u32])] = &[(1, &[2, 3]), (0, &[0, 1])];
        check(nodes, Some(&[0, 1, 2, 3]), CoreLimit::All, &[(0, &[0, 1]), (1, &[2, 3])]);
    }

    #[test]
    fn memory_only_nodes_and_gaps_in_the_numbers() {
        let nodes: &[(u32, &[u32])] = &[(0, &[]), (2, &[0, 1]), (8, &[2, 3]), (9, &[])];
        check(nodes, Some(&[0, 1, 2, 3]), CoreLimit::All, &[(2, &[0, 1]), (8, &[2, 3])]);
    }

    #[test]
    fn offline_cores_are_not_counted_as_docker_s() {
        let nodes: &[(u32, &[u32])] = &[(0, &[0, 1, 2, 3]), (1, &[4, 5, 6, 7])];
        check(nodes, Some(&[0, 2, 4, 6]), CoreLimit::First(4), &[(0, &[0, 2]), (1, &[4, 6])]);
        check(nodes, Some(&[0, 2, 4, 6]), CoreLimit::First(2), &[(0, &[0, 2])]);
    }

    #[test]
    fn the_affinity_limits() {
        let nodes: &[(u32, &[u32])] = &[(0, &[0, 1]), (1, &[2, 3])];
        check(nodes, Some(&[0, 1, 2, 3]), CoreLimit::Only(vec![3, 9]), &[(1, &[3])]);
    }

    #[test]
    fn without_numa_all_cores_are_node_0() {
        check(&[], Some(&[0, 1, 5]), CoreLimit::All, &[(0, &[0, 1, 5])]);
        check(&[], None, CoreLimit::First(2), &[(0, &[0, 1])]);
        check(&[], None, CoreLimit::Only(vec![4, 6]), &[(0, &[4, 6])]);
    }

    #[test]
    fn contradictions_still_leave_cores() {
        check(&[], None, CoreLimit::All, &[(0, &[0])]);
        check(&[], Some(&[]), CoreLimit::First(0), &[(0, &[0])]);
        check(&[(3, &[6, 7])], None, CoreLimit::Only(vec![1]), &[(3, &[6, 7])]);
        // Core 9 is on no node, core 1 on two.
        let nodes: &[(u32, &[u32])] = &[(4, &[1, 2]), (2, &[0, 1])];
        check(nodes, Some(&[0, 1, 2, 9]), CoreLimit::All, &[(2, &[0, 1, 9]), (4, &[2])]);
    }

    #[test]
    fn cores_of_one_node_are_recognised() {
        let nodes = vec![(0, vec![0, 1]), (1, vec![2, 3])];
        let topology = Topology::assemble(&CoreFacts { nodes, online: None, limit: CoreLimit::All });
        assert_eq!(topology.core_count(), 4);
        assert_eq!(topology.node_of_all(&[3, 2]), Some(1));
        for odd in [&[1, 2][..], &[0, 7], &[7], &[]] {
            assert_eq!(topology.node_of_all(odd), None, "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn every_core_is_on_exactly_one_node(
            nodes in proptest::collection::vec((0u32..6, proptest::collection::vec(0u32..12, 0..6)), 0..5),
            online in proptest::option::of(proptest::collection::btree_set(0u32..12, 0..12)),
            first in proptest::option::of(0u32..14),
        ) {
            let online: Option<Vec<u32>> = online.map(|cores| cores.into_iter().collect());
            let limit = first.map_or(CoreLimit::All, CoreLimit::First);
            let topology = Topology::assemble(&CoreFacts { nodes, online: online.clone(), limit });
            let mut cores: Vec<u32> = topology.nodes().flat_map(|node| node.cpus.clone()).collect();
            prop_assert!(topology.nodes().all(|node| !node.cpus.is_empty() && node.cpus.is_sorted()));
            let ids: Vec<u32> = topology.nodes().map(|node| node.id).collect();
            prop_assert!(ids.is_sorted_by(|a, b| a < b));
            cores.sort_unstable();
            let count = cores.len();
            cores.dedup();
            prop_assert_eq!(cores.len(), count);
            prop_assert_eq!(topology.core_count(), count);
            if let Some(online) = online.filter(|online| !online.is_empty()) {
                prop_assert!(cores.iter().all(|core| online.contains(core)));
                if let Some(first) = first.filter(|first| *first > 0) {
                    prop_assert_eq!(count, online.len().min(first as usize));
                }
            }
        }
    }
}
