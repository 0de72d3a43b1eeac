//! Noticing what happens to kernels without the agent (section 12, items 19 and 24).
//!
//! Four tasks: [`Kernels::follow_events`] hears of deaths from Docker's event stream at once, [`Kernels::reconcile`]
//! compares with Docker's list, dead containers included, [`Kernels::probe`] asks
//! whether Docker answers at all, and [`Kernels::keep_samples`] keeps statistics for kernels that die unseen.
//! Each tells the kernel's own task, which looks for itself before it believes.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use super::labels;
use super::node::RETRIES;
use super::notes::unix_now;
use super::phase::Phase;
use super::pulse::{Change, Pulse};
use super::registry::Kernels;
use crate::docker::{ContainerState, ContainerSummary, DockerError, DockerEventKind, ListFilter};
use crate::ids::{ContainerId, KernelId};
use crate::patience::{Outage, seconds};

/// The time between two probes: the manager must not place kernels where Docker hangs.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// What one may take. Two that hang make a Docker that does not answer, within 8 s.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// How often statistics are written while there are none, as a look at the disk.
const EMPTY_WRITE: Duration = Duration::from_secs(15);
/// How long keeping statistics may take before the disk is looked at.
const SLOW_WRITE: Duration = Duration::from_secs(3);
/// A container that is older and does not run waits for no restart: the manager gives one up after 30 s.
const LEFT_OVER_SECS: i64 = 60;

impl Kernels {
    /// Follows Docker's events for ever, beginning with `since` (nanoseconds since 1970).
    pub async fn follow_events(&self, mut since: i64) {
        let mut outage = Outage::default();
        loop {
            let mut events = self.node.docker.events(Some(since));
            let trouble = loop {
                match events.next().await {
                    Some(Ok(event)) => {
                        if let Some(past) = outage.worked(Instant::now()) {
                            tracing::info!(seconds = past.seconds(), "hearing Docker's events again");
                        }
                        since = since.max(event.time_nano + 1);
                        self.hear(&event.kind);
                    }
                    Some(Err(error)) => break error.to_string(),
                    None => break "Docker ended the stream".to_owned(),
                }
            };
            if outage.failed(Instant::now()) {
                tracing::warn!(error = trouble, "lost Docker's events; trying again until they come");
            }
            tokio::time::sleep(RETRIES.pause(outage.failures())).await;
        }
    }

    fn hear(&self, event: &DockerEventKind) {
        match event {
            DockerEventKind::Image { .. } => self.node.images.rescan_soon(),
            DockerEventKind::Container { id, action, .. } => match action.as_str() {
                "die" | "destroy" => self.tell_death(id),
                "oom" => self.hear_of_want(id),
                // By hand: if its end comes now, it is of that.
                "kill" if self.containers().contains(id) => self.node.wants.note_past(id),
                other => tracing::debug!(container = id.short(), action = other, "container event"),
            },
        }
    }

    /// Code that runs out of memory may do so again and again.
    fn hear_of_want(&self, container: &ContainerId) {
        let Some(kernel) = self.kernel_in(container) else {
            tracing::debug!(container = container.short(), "a container is out of memory");
            return;
        };
        self.node.wants.note(container);
        let told = self.shared.wants.lock().unwrap_or_else(PoisonError::into_inner).more();
        if let Some(times) = told {
            tracing::warn!(%kernel, container = container.short(), times, "the kernel's container is out of memory");
        }
    }

    /// Compares with Docker's list for ever.
    pub async fn reconcile(&self) {
        let mut ticks = interval(self.node.config.reconcile_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recovered = self.recovered();
        // The sender lives as long as the registry.
        let _ = recovered.wait_for(|done| *done).await;
        let (mut paused, mut stuck) = (HashSet::new(), HashSet::new());
        loop {
            ticks.tick().await;
            let node = self.node.clone();
            let has_room = node.refusal().is_none();
            let tended = tokio::task::spawn_blocking(move || {
                node.notes.journal.purge();
                node.notes.catch_up(has_room);
            });
            if tended.await.is_err() {
                tracing::debug!("the thread that tends the notes ended early");
            }
            if let Err(error) = self.compare(&mut paused, &mut stuck).await {
                tracing::debug!(%error, "can't compare with Docker's list");
            }
        }
    }

    async fn compare(
        &self,
        paused: &mut HashSet<ContainerId>,
        stuck: &mut HashSet<ContainerId>,
    ) -> Result<(), DockerError> {
        // Taken before the list: a kernel that is made in between is in neither or in the list only.
        let running = self.containers();
        let filter = ListFilter { all: true, labels: self.node.owner.filter(), name: None };
        let mut list = self.node.docker.list(filter).await?;
        let named = ListFilter { all: true, labels: Vec::new(), name: Some("kernel.".to_owned()) };
        list.extend(self.node.docker.list(named).await?);
        let alive: HashSet<_> = list.iter().filter(|c| c.state.is_alive()).map(|c| &c.id).collect();
        for container in running.iter().filter(|c| !alive.contains(c)) {
            self.tell_death(container);
        }
        for container in &list {
            let is_paused = container.state == ContainerState::Paused;
            if is_paused && running.contains(&container.id) && paused.insert(container.id.clone()) {
                let kernel = self.kernel_in(&container.id).map(tracing::field::display);
                tracing::warn!(
                    kernel,
                    container = container.id.short(),
                    "the kernel's container is paused; its runs stand still"
                );
            } else if !is_paused {
                paused.remove(&container.id);
            }
        }
        self.remove_orphans(&list, stuck).await
    }

    /// A container with this agent's labels and no kernel: Docker carried out a create after its deadline, or a
    /// removal failed. Nobody knows of it, so it goes. `stuck`: those that could not be removed before.
    async fn remove_orphans(
        &self,
        list: &[ContainerSummary],
        stuck: &mut HashSet<ContainerId>,
    ) -> Result<(), DockerError> {
        stuck.retain(|id| list.iter().any(|container| container.id == *id));
        for container in list {
            let Some((kernel, _)) = labels::read(&container.labels) else { continue };
            if self.node.detach.is_cancelled() {
                // What is left now is for the next start to look at.
                return Ok(());
            }
            let is_nobodys = || self.handle(kernel).is_none() || self.is_left_over(kernel, container);
            if !self.node.owner.owns(&container.labels) || !is_nobodys() {
                continue;
            }
            if self.node.docker.inspect(container.id.as_str()).await?.is_none() || !is_nobodys() {
                continue;
            }
            let is_new = stuck.insert(container.id.clone());
            if is_new {
                tracing::warn!(%kernel, container = container.id.short(), "removing a container that belongs to no kernel");
            }
            match self.node.docker.remove(&container.id).await {
                Ok(()) => drop(stuck.remove(&container.id)),
                Err(error) if is_new => {
                    tracing::warn!(%kernel, container = container.id.short(), %error, "can't remove it; trying again");
                }
                Err(error) => tracing::debug!(%kernel, %error, "still can't remove it"),
            }
        }
        Ok(())
    }

    fn is_left_over(&self, kernel: KernelId, container: &ContainerSummary) -> bool {
        let Some(handle) = self.handle(kernel) else { return false };
        match &*handle.phase.borrow() {
            Phase::Running(live) => is_left_over(container, &live.place.container, unix_now()),
            _ => false,
        }
    }

    /// Keeps the kernels' last statistics on disk for ever, one file for all. The one write that comes whether or not
    /// anything happens, so that it also notices a disk that hangs: each time while there are kernels, rarely without.
    pub async fn keep_samples(&self, every: Duration) {
        // The recovery reads what this replaces. The sender lives as long as the registry.
        let _ = self.recovered().wait_for(|done| *done).await;
        let node = self.node.clone();
        // Of kernels that are not measured yet, what an earlier life knew.
        let mut kept = tokio::task::spawn_blocking(move || node.notes.samples()).await.unwrap_or_default();
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_failing, mut empty_since) = (false, None);
        loop {
            ticks.tick().await;
            let known: HashSet<KernelId> = self.ids().into_iter().collect();
            kept.retain(|kernel, _| known.contains(kernel));
            let fresh = |k| Some((k, self.node.collector.last_seen(k)?));
            kept.extend(known.iter().copied().filter_map(fresh));
            let is_empty = known.is_empty();
            if is_empty && empty_since.is_some_and(|since: Instant| since.elapsed() < EMPTY_WRITE) {
                continue;
            }
            empty_since = is_empty.then(Instant::now);
            let (node, samples) = (self.node.clone(), kept.clone().into_iter().collect::<Vec<_>>());
            let mut writing = tokio::task::spawn_blocking(move || node.notes.keep_samples(&samples));
            let written = if let Ok(written) = timeout(SLOW_WRITE, &mut writing).await {
                written
            } else {
                self.node.scratch.doubt();
                // Not one more thread for a disk that hangs.
                writing.await
            };
            let Ok(written) = written else { continue };
            if written.is_err() {
                self.node.scratch.doubt();
            }
            if let Err(error) = &written
                && !is_failing
            {
                tracing::warn!(%error, "can't keep statistics below the scratch root; check the disk");
            }
            is_failing = written.is_err();
            if is_failing {
                // Not true on the disk yet.
                empty_since = None;
            }
        }
    }

    /// Asks Docker for ever whether it answers.
    pub async fn probe(&self) {
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulse = Pulse::default();
        loop {
            let now = ticks.tick().await;
            let answer = timeout(PROBE_LIMIT, self.node.docker.ping()).await;
            match pulse.probed(matches!(answer, Ok(Ok(()))), now.into()) {
                None => {}
                Some(Change::Lost) => {
                    self.shared.docker_answers.send_replace(false);
                }
                Some(Change::Back(gone)) => {
                    tracing::debug!(seconds = seconds(gone), "Docker answers again");
                    self.shared.docker_answers.send_replace(true);
                }
            }
        }
    }
}

/// What a restart left that was cut off or never began: a container that does not run, of a kernel that runs in another.
fn is_left_over(container: &ContainerSummary, runs_in: &ContainerId, now: u64) -> bool {
    let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(container.created);
    !container.state.is_alive() && container.id != *runs_in && age > LEFT_OVER_SECS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restart_left_goes_and_what_waits_for_one_stays() {
        let container = |state, created| ContainerSummary {
            id: ContainerId::new("spare"),
            name: String::new(),
            labels: std::collections::BTreeMap::new(),
            state,
            created,
        };
        let (old, now) = (ContainerId::new("old"), 1000);
        assert!(is_left_over(&container(ContainerState::Created, 900), &old, now));
        assert!(is_left_over(&container(ContainerState::Exited, 900), &old, now));
        assert!(
            !is_left_over(&container(ContainerState::Created, 950), &old, now),
            "a restart may wait for it"
        );
        assert!(!is_left_over(&container(ContainerState::Created, 900), &ContainerId::new("spare"), now));
        assert!(!is_left_over(&container(ContainerState::Running, 900), &old, now));
    }
}
