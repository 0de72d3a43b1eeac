//! Taking back what an earlier life of the agent left (section 12, items 20 and 21; idea 1 of ARCHITECTURE.md).
//!
//! What there is comes from three places: Docker's list by labels, the notes, and the untold endings. What to do
//! about each kernel is decided by [`fate::decide`], which is pure; each kernel's own task then does it, so that a hundred
//! kernels are taken back side by side while the agent serves already.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::error::KernelError;
use super::fate::{Candidate, Fate, decide};
use super::inbox::Birth;
use super::node::RETRIES;
use super::notes::{Found, KernelNote};
use super::registry::Kernels;
use super::{labels, plan, takeover};
use crate::docker::{ContainerSummary, ListFilter};
use crate::ids::{ContainerId, KernelId};

/// How long the file system of the scratch root may be mounted after the agent's start. Afterwards its kernels can be ended at least.
const MOUNT: Duration = Duration::from_secs(120);

impl Kernels {
    /// Finds out what there is and starts a task for each kernel; tries until Docker answers and the scratch root is there.
    pub async fn recover(&self) {
        let (mut attempt, mut was_away) = (0, false);
        let mount_until = Instant::now() + MOUNT;
        loop {
            let tried = self.try_recover(Instant::now() < mount_until).await;
            was_away |= matches!(tried, Err(KernelError::FilesAway { .. }));
            if was_away {
                self.node.scratch.begin_anew();
            }
            match tried {
                Ok(()) => break,
                Err(error) if attempt == 0 => {
                    tracing::error!(%error, "can't find out which kernels run; trying until that is mended");
                }
                Err(error) => tracing::debug!(%error, attempt, "still can't find out which kernels run"),
            }
            attempt += 1;
            tokio::time::sleep(RETRIES.pause(attempt)).await;
        }
        self.now_recovered();
    }

    async fn try_recover(&self, awaits_files: bool) -> Result<(), KernelError> {
        let begun = Instant::now();
        let node = self.node.clone();
        let found = tokio::task::spawn_blocking(move || node.notes.load())
            .await
            .map_err(|_| KernelError::Thread("read the notes"))?
            .map_err(|source| self.node.not_noted(source))?;
        let (candidates, strangers) = self.candidates(&found).await?;
        if awaits_files && found.is_empty() {
            self.look_for_files(&candidates).await?;
        }
        for kernel in strangers.iter().filter(|kernel| found.kernels.contains_key(kernel)) {
            tracing::error!(
                %kernel,
                "left alone: noted as this agent's kernel, but its container is labelled otherwise; was this agent's name or version changed?"
            );
        }
        let fates = decide(&found, &candidates, &strangers);
        let (mut taken, mut ended, mut undone) = (0, 0, 0);
        for (kernel, fate) in fates {
            let noted = found.untold.get(&kernel).and_then(|ending| ending.sample);
            let sample = noted.or_else(|| found.samples.get(&kernel).copied());
            let restarting = found.kernels.get(&kernel).is_some_and(KernelNote::is_restarting);
            let birth = match fate {
                Fate::TakeBack(container) => {
                    taken += 1;
                    Birth::Found { container, sample, restarting }
                }
                Fate::End(reason) => {
                    ended += 1;
                    Birth::Ended { reason, sample, restarting }
                }
                Fate::Undo => {
                    undone += 1;
                    Birth::Leftover
                }
            };
            self.spawn_found(kernel, birth);
        }
        tracing::info!(
            taken,
            ended,
            undone,
            millis = begun.elapsed().as_millis(),
            "took stock of earlier kernels"
        );
        Ok(())
    }

    /// Without its notes an agent would tell ends twice and could use no kernel, so a scratch root that is mounted late is waited for.
    async fn look_for_files(&self, candidates: &[Candidate]) -> Result<(), KernelError> {
        let running: Vec<_> = candidates.iter().filter(|c| c.alive).map(|c| c.kernel).collect();
        let (count, scratch) = (running.len(), self.node.scratch.clone());
        let looked = tokio::task::spawn_blocking(move || running.is_empty() || scratch.has_any(&running));
        if looked.await.map_err(|_| KernelError::Thread("look for the kernels' files"))? {
            return Ok(());
        }
        Err(KernelError::FilesAway { running: count, root: self.node.scratch.path().to_owned() })
    }

    /// The containers that may be this agent's kernels, and the kernels that run in containers which are not.
    async fn candidates(&self, found: &Found) -> Result<(Vec<Candidate>, HashSet<KernelId>), KernelError> {
        let filter = ListFilter { all: true, labels: self.node.owner.filter(), name: None };
        let (mut candidates, mut strangers) = (Vec::new(), HashSet::new());
        for container in self.node.docker.list(filter).await? {
            if let Some((kernel, _)) = labels::read(&container.labels) {
                candidates.push(candidate(kernel, &container));
            } else {
                tracing::warn!(
                    container = container.id.short(),
                    name = container.name,
                    "left alone: it carries this agent's labels, but not as this version writes them"
                );
            }
        }
        let named = ListFilter { all: true, labels: Vec::new(), name: Some("kernel.".to_owned()) };
        let mut unlabelled = 0;
        for container in self.node.docker.list(named).await? {
            let Some((_, kernel)) = labels::from_name(&container.name) else { continue };
            let is_labelled = labels::is_labelled(&container.labels);
            let adopted = found.kernels.get(&kernel).is_some_and(|n| n.adopted.is_some());
            if !is_labelled
                && (adopted || self.node.config.adopt)
                && self.has_our_scratch(kernel, &container.id).await?
            {
                candidates.push(candidate(kernel, &container));
                continue;
            }
            unlabelled += usize::from(!is_labelled);
            if container.state.is_alive() && !candidates.iter().any(|c| c.kernel == kernel) {
                strangers.insert(kernel);
            }
        }
        if unlabelled > 0 {
            tracing::warn!(
                containers = unlabelled,
                "containers look like another agent's kernels; start with --adopt to take over the Python agent's"
            );
        }
        Ok((candidates, strangers))
    }

    /// Whether the container works on a directory below this agent's scratch root: then it is this agent's to adopt.
    async fn has_our_scratch(&self, kernel: KernelId, container: &ContainerId) -> Result<bool, KernelError> {
        let Some(found) = self.node.docker.inspect(container.as_str()).await? else { return Ok(false) };
        let Some(files) = takeover::files(&self.node, kernel, &found).await else { return Ok(false) };
        let Some(source) = found.source_of(plan::HOME).map(Path::to_owned) else { return Ok(false) };
        // The disk may hang; then nothing of this start may.
        let compared = tokio::task::spawn_blocking(move || {
            std::fs::canonicalize(source).is_ok_and(|source| source == files.home())
        });
        compared.await.map_err(|_| KernelError::Thread("compare scratch directories"))
    }
}

fn candidate(kernel: KernelId, container: &ContainerSummary) -> Candidate {
    let (container_id, alive) = (container.id.clone(), container.state.is_alive());
    Candidate { kernel, container: container_id, alive, created: container.created }
}
