//! Scratch directories that are nobody's: what crashes of other agents, and of other times, have left below the root.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::labels;
use super::registry::Kernels;
use crate::docker::{ContainerSummary, DockerError, ListFilter};
use crate::ids::KernelId;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(3600);
/// A directory that is younger may be somebody's whose note or container has still to come.
const AGE: Duration = Duration::from_secs(24 * 3600);
/// How many are named in one line of the log.
const NAMED: usize = 50;

impl Kernels {
    /// Looks for them at the start and every hour, for ever: names each once, or removes it where the operator wants that.
    pub async fn sweep(&self) {
        // The sender lives as long as the registry.
        let _ = self.recovered().wait_for(|done| *done).await;
        let (mut ticks, mut named) = (interval(EVERY), BTreeSet::new());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.leftovers().await {
                Ok(found) if self.node.config.sweep_scratch => self.remove_leftovers(found).await,
                Ok(found) => {
                    named.retain(|kernel| found.contains(kernel));
                    let new: Vec<_> = found.into_iter().filter(|kernel| named.insert(*kernel)).collect();
                    if !new.is_empty() {
                        tracing::warn!(
                            directories = new.len(),
                            kernels = names(&new),
                            "directories below the scratch root have no note and no container: start with --sweep-scratch to have such directories removed"
                        );
                    }
                }
                Err(error) => tracing::debug!(%error, "can't tell which scratch directories are nobody's"),
            }
        }
    }

    async fn leftovers(&self) -> Result<BTreeSet<KernelId>, DockerError> {
        let node = self.node.clone();
        // The disk may hang, and only this look with it.
        let looked = tokio::task::spawn_blocking(move || {
            let old = node.scratch.older_than(AGE)?;
            Ok::<_, std::io::Error>(old.into_iter().filter(|kernel| !node.notes.knows(*kernel)).collect())
        });
        let old: BTreeSet<KernelId> = match looked.await {
            Ok(Ok(old)) => old,
            Ok(Err(error)) => {
                tracing::debug!(%error, "can't list the scratch root");
                return Ok(BTreeSet::new());
            }
            Err(_) => return Ok(BTreeSet::new()),
        };
        if old.is_empty() {
            return Ok(old);
        }
        // Anybody's, dead or alive.
        let everything = ListFilter { all: true, labels: Vec::new(), name: None };
        let containers = self.node.docker.list(everything).await?;
        // Last: a kernel that was made meanwhile is here.
        Ok(nobodys(old, &containers, &self.ids().into_iter().collect()))
    }

    async fn remove_leftovers(&self, found: BTreeSet<KernelId>) {
        let mut removed = Vec::new();
        for kernel in found.into_iter().filter(|kernel| self.handle(*kernel).is_none()) {
            match self.node.scratch.discard(kernel).await {
                Ok(()) => removed.push(kernel),
                Err(error) => {
                    tracing::warn!(%kernel, %error, "can't remove a scratch directory that is nobody's");
                }
            }
        }
        if !removed.is_empty() {
            tracing::info!(
                directories = removed.len(),
                kernels = names(&removed),
                "removed scratch directories that had no note and no container"
            );
        }
    }
}

/// The directories of which there is neither a kernel nor a container.
fn nobodys(
    old: BTreeSet<KernelId>,
    containers: &[ContainerSummary],
    kernels: &HashSet<KernelId>,
) -> BTreeSet<KernelId> {
    let is_of = |container: &ContainerSummary, kernel: KernelId| {
        container.name.contains(&kernel.to_string()) || labels::kernel(&container.labels) == Some(kernel)
    };
    let is_nobodys = |kernel: &KernelId| {
        !kernels.contains(kernel) && !containers.iter().any(|container| is_of(container, *kernel))
    };
    old.into_iter().filter(is_nobodys).collect()
}

fn names(kernels: &[KernelId]) -> String {
    let mut text: Vec<_> = kernels.iter().take(NAMED).map(ToString::to_string).collect();
    if kernels.len() > NAMED {
        text.push(format!("and {} more", kernels.len() - NAMED));
    }
    text.join(", ")
}
