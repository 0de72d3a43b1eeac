//! Which cores there are and which NUMA node each belongs to: pure, from facts that `sysfs` gathers.

use std::collections::{BTreeMap, BTreeSet};

use super::cpuset::{CoreList, ranges_text};

/// A NUMA node that has usable cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// The kernel's number of the node, which Docker takes as `CpusetMems`; numbers may have gaps.
    pub id: u32,
    /// The node's usable cores, ascending, at least one.
    pub cpus: Vec<u32>,
}

/// The usable cores by NUMA node, in ascending order of the node numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Kept apart from the others, because there is always at least one: an allocation can't find nothing.
    first: NumaNode,
    /// The nodes after the first.
    rest: Vec<NumaNode>,
    /// By core: the lowest core of its group of siblings. Cores that stand alone are missing.
    physical: BTreeMap<u32, u32>,
}

/// What was found out about the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreFacts {
    /// NUMA nodes with their cores, in any order, empty nodes included; none on a kernel without NUMA.
    pub nodes: Vec<(u32, Vec<u32>)>,
    /// The cores that are online; `None` if that is not known.
    pub online: Option<Vec<u32>>,
    /// The cores that this process may run on, by its own affinity and its cgroup; `None` if that is not known.
    pub allowed: Option<Vec<u32>>,
    /// How many cores Docker sees (NCPU): it tells a number and not which, so the first so many are taken.
    pub docker_cores: Option<u32>,
    /// The logical cores (hardware threads) that share a physical one, a group each; cores in no group stand alone.
    pub siblings: Vec<Vec<u32>>,
}

/// The cores that the operator lets kernels have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreChoice {
    /// Never given to kernels.
    pub reserved: Option<CoreList>,
    /// Where set, no others are given.
    pub only: Option<CoreList>,
}

/// The operator's choice leaves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--reserved-cpus and --limit-cpus leave none of the cores {present} to kernels; correct the one or the other"
)]
pub struct NoCoresLeft {
    /// The cores that there are, `0-3,5`.
    present: String,
}

impl Topology {
    /// Puts the facts together. There is always a result: contradictory facts leave the cores that are
    /// likely to exist, down to core 0, since an agent without cores would be of no use to anybody.
    ///
    /// Nodes without usable cores vanish. A core that no node lists joins the lowest node, and without any
    /// node all cores form node 0, which every kernel accepts as a memory node.
    #[must_use]
    pub fn assemble(facts: &CoreFacts) -> Self {
        let mut physical = BTreeMap::new();
        for group in &facts.siblings {
            let Some(lowest) = group.iter().min() else { continue };
            physical.extend(group.iter().map(|cpu| (*cpu, *lowest)));
        }
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
        Self { first, rest: nodes.collect(), physical }
    }

    /// The same without the cores that the operator keeps from kernels.
    pub fn restricted(self, choice: &CoreChoice) -> Result<Self, NoCoresLeft> {
        let has = |list: &Option<CoreList>, cpu: &u32| list.as_ref().map(|list| list.contains(*cpu));
        let stays =
            |cpu: &u32| has(&choice.reserved, cpu) != Some(true) && has(&choice.only, cpu) != Some(false);
        let mut left = self.nodes().cloned().filter_map(|mut node| {
            node.cpus.retain(stays);
            (!node.cpus.is_empty()).then_some(node)
        });
        let Some(first) = left.next() else {
            let mut present: Vec<u32> = self.nodes().flat_map(|node| node.cpus.iter().copied()).collect();
            present.sort_unstable();
            return Err(NoCoresLeft { present: ranges_text(&present) });
        };
        let rest = left.collect();
        Ok(Self { first, rest, physical: self.physical })
    }

    /// A machine without NUMA that has cores 0 to `cores` − 1 (at least core 0).
    #[cfg(test)]
    pub(super) fn flat(cores: u32) -> Self {
        Self::assemble(&CoreFacts { docker_cores: Some(cores), ..CoreFacts::default() })
    }

    /// The nodes in ascending order; at least one.
    pub fn nodes(&self) -> impl Iterator<Item = &NumaNode> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The nodes that have at least `n` cores; where none has, those with the most. Never empty.
    pub(super) fn nodes_of_at_least(&self, n: usize) -> impl Iterator<Item = &NumaNode> {
        let most = self.nodes().map(|node| node.cpus.len()).max().unwrap_or_default();
        self.nodes().filter(move |node| node.cpus.len() >= n.min(most))
    }

    /// The lowest node.
    pub(super) fn first_node(&self) -> &NumaNode {
        &self.first
    }

    /// The physical core of a logical one: cores with the same answer are siblings.
    pub(super) fn physical(&self, cpu: u32) -> u32 {
        self.physical.get(&cpu).copied().unwrap_or(cpu)
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

/// The cores to use, ascending, each once. A fact that would leave nothing contradicts the machine, and the machine
/// is believed.
fn usable_cores(facts: &CoreFacts) -> BTreeSet<u32> {
    let docker_cores = facts.docker_cores.filter(|count| *count > 0);
    let on_nodes: BTreeSet<u32> = facts.nodes.iter().flat_map(|(_, cpus)| cpus).copied().collect();
    let known: BTreeSet<u32> = match (&facts.online, &facts.allowed) {
        (Some(online), _) => online.iter().copied().collect(),
        (None, _) if !on_nodes.is_empty() => on_nodes,
        (None, Some(allowed)) => allowed.iter().copied().collect(),
        (None, None) => (0..docker_cores.unwrap_or_default()).collect(),
    };
    let mut usable = known.clone();
    if let Some(allowed) = &facts.allowed {
        usable.retain(|cpu| allowed.contains(cpu));
    }
    if usable.is_empty() {
        usable = known;
    }
    match docker_cores {
        Some(count) => usable.into_iter().take(count as usize).collect(),
        None => usable,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Nodes<'n> = &'n [(u32, &'n [u32])];

    fn own(nodes: Nodes<'_>) -> Vec<(u32, Vec<u32>)> {
        nodes.iter().map(|(id, cpus)| (*id, cpus.to_vec())).collect()
    }

    fn found(topology: &Topology) -> Vec<(u32, Vec<u32>)> {
        topology.nodes().map(|node| (node.id, node.cpus.clone())).collect()
    }

    fn check(nodes: Nodes<'_>, online: Option<&[u32]>, facts: CoreFacts, expected: Nodes<'_>) {
        let facts = CoreFacts { nodes: own(nodes), online: online.map(<[u32]>::to_vec), ..facts };
        assert_eq!(found(&Topology::assemble(&facts)), own(expected));
    }

    fn first(count: u32) -> CoreFacts {
        CoreFacts { docker_cores: Some(count), ..CoreFacts::default() }
    }

    fn allowed(cpus: &[u32]) -> CoreFacts {
        CoreFacts { allowed: Some(cpus.to_vec()), ..CoreFacts::default() }
    }

    #[test]
    fn two_plain_nodes() {
        let nodes: &[(u32, &[u32])] = &[(1, &[2, 3]), (0, &[0, 1])];
        check(nodes, Some(&[0, 1, 2, 3]), CoreFacts::default(), &[(0, &[0, 1]), (1, &[2, 3])]);
    }

    #[test]
    fn memory_only_nodes_and_gaps_in_the_numbers() {
        let nodes: &[(u32, &[u32])] = &[(0, &[]), (2, &[0, 1]), (8, &[2, 3]), (9, &[])];
        check(nodes, Some(&[0, 1, 2, 3]), CoreFacts::default(), &[(2, &[0, 1]), (8, &[2, 3])]);
    }

    #[test]
    fn offline_cores_are_not_counted_as_docker_s() {
        let nodes: &[(u32, &[u32])] = &[(0, &[0, 1, 2, 3]), (1, &[4, 5, 6, 7])];
        check(nodes, Some(&[0, 2, 4, 6]), first(4), &[(0, &[0, 2]), (1, &[4, 6])]);
        check(nodes, Some(&[0, 2, 4, 6]), first(2), &[(0, &[0, 2])]);
    }

    #[test]
    fn the_agent_s_affinity_and_cgroup_limit_and_docker_s_number_counts_within_them() {
        let nodes: &[(u32, &[u32])] = &[(0, &[0, 1]), (1, &[2, 3])];
        check(nodes, Some(&[0, 1, 2, 3]), allowed(&[3, 9]), &[(1, &[3])]);
        let both = CoreFacts { docker_cores: Some(2), ..allowed(&[1, 2, 3]) };
        check(nodes, Some(&[0, 1, 2, 3]), both, &[(0, &[1]), (1, &[2])]);
    }

    #[test]
    fn the_operator_keeps_cores_from_kernels() {
        let facts = CoreFacts { nodes: own(&[(0, &[0, 1]), (1, &[2, 3])]), ..CoreFacts::default() };
        let restricted = |reserved: Option<&str>, only: Option<&str>| {
            let list = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            let choice = CoreChoice { reserved: list(reserved), only: list(only) };
            Topology::assemble(&facts).restricted(&choice).map(|topology| found(&topology))
        };
        assert_eq!(restricted(None, None).unwrap(), own(&[(0, &[0, 1]), (1, &[2, 3])]));
        assert_eq!(restricted(Some("0,70"), None).unwrap(), own(&[(0, &[1]), (1, &[2, 3])]));
        assert_eq!(restricted(None, Some("0xc")).unwrap(), own(&[(1, &[2, 3])]));
        assert_eq!(restricted(Some("2"), Some("1-2")).unwrap(), own(&[(0, &[1])]));
        assert_eq!(
            restricted(Some("0"), Some("0,9")).unwrap_err().to_string(),
            "--reserved-cpus and --limit-cpus leave none of the cores 0-3 to kernels; correct the one or the other"
        );
    }

    #[test]
    fn without_numa_all_cores_are_node_0() {
        check(&[], Some(&[0, 1, 5]), CoreFacts::default(), &[(0, &[0, 1, 5])]);
        check(&[], None, first(2), &[(0, &[0, 1])]);
        check(&[], None, allowed(&[4, 6]), &[(0, &[4, 6])]);
    }

    #[test]
    fn contradictions_still_leave_cores() {
        check(&[], None, CoreFacts::default(), &[(0, &[0])]);
        check(&[], Some(&[]), first(0), &[(0, &[0])]);
        check(&[(3, &[6, 7])], None, allowed(&[1]), &[(3, &[6, 7])]);
        // Core 9 is on no node, core 1 on two.
        let nodes: &[(u32, &[u32])] = &[(4, &[1, 2]), (2, &[0, 1])];
        check(nodes, Some(&[0, 1, 2, 9]), CoreFacts::default(), &[(2, &[0, 1, 9]), (4, &[2])]);
    }

    #[test]
    fn cores_of_one_node_are_recognised() {
        let nodes = vec![(0, vec![0, 1]), (1, vec![2, 3])];
        let topology = Topology::assemble(&CoreFacts { nodes, ..CoreFacts::default() });
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
            allowed in proptest::option::of(proptest::collection::btree_set(0u32..12, 0..12)),
            docker_cores in proptest::option::of(0u32..14),
            reserved in proptest::collection::btree_set(0u32..12, 1..4),
        ) {
            let list = |cores: &Option<BTreeSet<u32>>| cores.as_ref().map(|cores| cores.iter().copied().collect());
            let facts = CoreFacts { nodes, online: list(&online), allowed: list(&allowed), docker_cores, siblings: Vec::new() };
            let topology = Topology::assemble(&facts);
            let cores: BTreeSet<u32> = topology.nodes().flat_map(|node| node.cpus.clone()).collect();
            prop_assert!(topology.nodes().all(|node| !node.cpus.is_empty() && node.cpus.is_sorted()));
            prop_assert!(topology.nodes().map(|node| node.id).is_sorted_by(|a, b| a < b));
            prop_assert_eq!(topology.core_count(), cores.len(), "a core is on two nodes");
            if let Some(online) = online.filter(|online| !online.is_empty()) {
                prop_assert!(cores.is_subset(&online));
                let both: BTreeSet<u32> = allowed.iter().flatten().copied().filter(|c| online.contains(c)).collect();
                let within = if both.is_empty() { online.len() } else { both.len() };
                prop_assert!(both.is_empty() || cores.is_subset(&both));
                let most = docker_cores.filter(|n| *n > 0).map_or(usize::MAX, |n| n as usize);
                prop_assert_eq!(cores.len(), within.min(most));
            }
            let text = reserved.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let choice = CoreChoice { reserved: Some(text.parse().unwrap()), only: None };
            let left: Vec<u32> = cores.difference(&reserved).copied().collect();
            if let Ok(rest) = topology.restricted(&choice) {
                let mut rest: Vec<u32> = rest.nodes().flat_map(|node| node.cpus.clone()).collect();
                rest.sort_unstable();
                prop_assert_eq!(rest, left);
            } else {
                prop_assert_eq!(left, Vec::<u32>::new());
            }
        }
    }
}
