//! What becomes of each kernel that an earlier life of the agent left. Pure.

use std::collections::{HashMap, HashSet};

use super::notes::{Found, NotedPhase};
use crate::ids::{ContainerId, KernelId};
use crate::wire::event::EndReason;

/// A container that may be a kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The kernel by its label or name.
    pub(super) kernel: KernelId,
    /// The container.
    pub(super) container: ContainerId,
    /// Whether it runs.
    pub(super) alive: bool,
    /// When it was made, in seconds since 1970.
    pub(super) created: i64,
}

/// What becomes of a kernel that an earlier life left.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// Look at its container: take the kernel back if that runs, else end it with the reason that Docker knows.
    TakeBack(ContainerId),
    /// The kernel's end had begun, or the kernel died meanwhile: end it, and tell.
    End(EndReason),
    /// Nobody knows of it, or its end was told: remove what there is, tell nothing.
    Undo,
}

/// Decides. `strangers`: kernels whose containers run and are not this agent's to touch.
pub(super) fn decide(
    found: &Found,
    candidates: &[Candidate],
    strangers: &HashSet<KernelId>,
) -> HashMap<KernelId, Fate> {
    let mut fates = HashMap::new();
    for candidate in candidates {
        // A restart that was cut off may leave two; the newest that runs is the kernel.
        let same = candidates.iter().filter(|c| c.kernel == candidate.kernel);
        if let Some(best) = same.max_by_key(|c| (c.alive, c.created)) {
            fates.insert(candidate.kernel, Fate::TakeBack(best.container.clone()));
        }
    }
    for (kernel, note) in found.kernels.iter().filter(|(kernel, _)| !strangers.contains(kernel)) {
        fates.entry(*kernel).or_insert(Fate::End(EndReason::SelfTerminated));
        let lives = candidates.iter().any(|c| c.kernel == *kernel && c.alive);
        if note.is_of_another_boot(found.boot.as_deref()) && !lives {
            // It did not end by itself: the machine went down under it.
            fates.insert(*kernel, Fate::End(EndReason::AgentTermination));
        }
        if note.phase == NotedPhase::Creating {
            fates.insert(*kernel, Fate::Undo);
        }
    }
    for kernel in &found.over {
        // One that has a note and runs was made again since. Anything else was left when the agent was killed.
        let runs = candidates.iter().any(|c| c.kernel == *kernel && c.alive);
        if let Some(fate) = fates.get_mut(kernel)
            && !(runs && found.kernels.contains_key(kernel))
        {
            *fate = Fate::Undo;
        }
    }
    for (kernel, ending) in &found.untold {
        let reason = EndReason::from_text(&ending.reason).unwrap_or(EndReason::SelfTerminated);
        fates.insert(*kernel, Fate::End(reason));
    }
    fates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::notes::{Ending, KernelNote};

    fn container(kernel: KernelId, id: &str, alive: bool, created: i64) -> Candidate {
        Candidate { kernel, container: ContainerId::new(id), alive, created }
    }

    fn fate(found: &Found, candidates: &[Candidate], kernel: KernelId, told: bool) -> Option<Fate> {
        let over = told.then_some(kernel).into_iter().collect();
        let found =
            Found { over, kernels: found.kernels.clone(), untold: found.untold.clone(), ..Found::default() };
        decide(&found, candidates, &HashSet::new()).remove(&kernel)
    }

    #[test]
    fn a_noted_kernel_that_runs_under_another_name_is_left_alone() {
        for phase in [NotedPhase::Creating, NotedPhase::Running, NotedPhase::Restarting] {
            let k = KernelId::random();
            let kernels = HashMap::from([(k, KernelNote::new(k, phase))]);
            let found = Found { kernels, ..Found::default() };
            assert_eq!(decide(&found, &[], &HashSet::from([k])), HashMap::new());
        }
    }

    #[test]
    fn what_the_machine_s_end_took_is_told_as_that() {
        let k = KernelId::random();
        let fate_of = |phase, boot: &str, candidates: &[Candidate]| {
            let mut note = KernelNote::new(k, phase);
            note.boot = Some(boot.to_owned());
            let kernels = HashMap::from([(k, note)]);
            let found = Found { kernels, boot: Some("this".to_owned()), ..Found::default() };
            decide(&found, candidates, &HashSet::new()).remove(&k)
        };
        let (alive, dead) = (container(k, "a", true, 1), container(k, "d", false, 2));
        let went_down = Some(Fate::End(EndReason::AgentTermination));
        for phase in [NotedPhase::Running, NotedPhase::Restarting] {
            assert_eq!(fate_of(phase, "before", std::slice::from_ref(&dead)), went_down);
            assert_eq!(fate_of(phase, "before", &[]), went_down);
            // Docker has started it again, as it was told to.
            let back = Some(Fate::TakeBack(ContainerId::new("a")));
            assert_eq!(fate_of(phase, "before", &[dead.clone(), alive.clone()]), back);
        }
        assert_eq!(fate_of(NotedPhase::Creating, "before", std::slice::from_ref(&dead)), Some(Fate::Undo));
        assert_eq!(fate_of(NotedPhase::Running, "this", &[]), Some(Fate::End(EndReason::SelfTerminated)));
    }

    #[test]
    fn what_becomes_of_each() {
        let k = KernelId::random();
        let noted =
            |phase| Found { kernels: HashMap::from([(k, KernelNote::new(k, phase))]), ..Found::default() };
        let nothing = Found::default();
        let (alive, dead) = (container(k, "a", true, 1), container(k, "d", false, 2));
        let back = |id: &str| Some(Fate::TakeBack(ContainerId::new(id)));
        let died = Some(Fate::End(EndReason::SelfTerminated));

        assert_eq!(fate(&noted(NotedPhase::Running), std::slice::from_ref(&alive), k, false), back("a"));
        assert_eq!(fate(&nothing, std::slice::from_ref(&alive), k, false), back("a"), "a note may be lost");
        assert_eq!(fate(&noted(NotedPhase::Running), std::slice::from_ref(&dead), k, false), back("d"));
        assert_eq!(fate(&noted(NotedPhase::Running), &[], k, false), died, "removed behind our back");
        assert_eq!(fate(&noted(NotedPhase::Restarting), &[], k, false), died);
        assert_eq!(fate(&noted(NotedPhase::Restarting), &[dead.clone(), alive.clone()], k, false), back("a"));
        assert_eq!(
            fate(&noted(NotedPhase::Creating), std::slice::from_ref(&alive), k, false),
            Some(Fate::Undo)
        );
        assert_eq!(fate(&noted(NotedPhase::Creating), &[], k, false), Some(Fate::Undo));
        assert_eq!(
            fate(&nothing, std::slice::from_ref(&dead), k, true),
            Some(Fate::Undo),
            "its end was told"
        );
        assert_eq!(
            fate(&noted(NotedPhase::Running), std::slice::from_ref(&alive), k, true),
            back("a"),
            "made again"
        );
        let left = fate(&noted(NotedPhase::Running), &[], k, true);
        assert_eq!(left, Some(Fate::Undo), "killed after its end was told and before its note was gone");
        let newer = container(k, "b", true, 5);
        assert_eq!(fate(&nothing, &[newer, alive.clone()], k, false), back("b"));

        let ending = Ending::new(k, EndReason::IdleTimeout, None);
        let untold = Found { untold: HashMap::from([(k, ending)]), ..noted(NotedPhase::Running) };
        assert_eq!(fate(&untold, &[alive], k, false), Some(Fate::End(EndReason::IdleTimeout)));
        assert_eq!(fate(&nothing, &[], k, true), None);
    }
}
