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

/// From one look for a file system that is mounted late to the next.
const LOOK: Duration = Duration::from_secs(2);

/// Kernels that must have files or notes below the scratch root, where none of them has any: its file system is away.
#[derive(Default)]
struct Away {
    /// Those that have containers.
    contained: Vec<KernelId>,
    /// Those whose ends this life or an earlier one has seen to meanwhile.
    ended: Vec<KernelId>,
}

/// How a stock is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stock {
    /// Not while the file system of the scratch root is away.
    Whole,
    /// Of what there is.
    AsItIs,
    /// Of what was not there before.
    Late,
}

impl Kernels {
    /// Finds out what there is and starts a task for each kernel; tries until Docker answers and the scratch root is there. One that
    /// isn't there in time is waited for afterwards, while its kernels can be ended.
    pub async fn recover(&self) {
        let files_until = Instant::now() + self.node.config.files_wait;
        let away =
            self.recover_with(|| if Instant::now() < files_until { Stock::Whole } else { Stock::AsItIs });
        let away = away.await;
        self.now_recovered();
        if let Some(away) = away {
            self.wait_for_files(away).await;
            tracing::info!("the file system of the scratch root is there now; taking stock of what it has");
            self.recover_with(|| Stock::Late).await;
            self.node.scratch.begin_anew(None);
        }
    }

    async fn recover_with(&self, stock: impl Fn() -> Stock) -> Option<Away> {
        let (mut attempt, mut was_away) = (0, false);
        loop {
            let tried = self.try_recover(stock()).await;
            if let Err(error @ KernelError::FilesAway { .. }) = &tried {
                was_away = true;
                self.node.scratch.begin_anew(Some(error.to_string()));
            }
            match tried {
                Ok(away) => {
                    if was_away && away.is_none() {
                        self.node.scratch.begin_anew(None);
                    }
                    return away;
                }
                Err(error) if attempt == 0 => {
                    tracing::error!(%error, "can't find out which kernels run; trying until that is mended");
                }
                Err(error) => tracing::debug!(%error, attempt, "still can't find out which kernels run"),
            }
            attempt += 1;
            tokio::time::sleep(RETRIES.pause(attempt)).await;
        }
    }

    /// What is away, if this stock is taken all the same.
    async fn try_recover(&self, stock: Stock) -> Result<Option<Away>, KernelError> {
        let begun = Instant::now();
        let node = self.node.clone();
        let load = move || if stock == Stock::Late { node.notes.load_late() } else { node.notes.load() };
        let found = tokio::task::spawn_blocking(load)
            .await
            .map_err(|_| KernelError::Thread("read the notes"))?
            .map_err(|source| self.node.not_noted(source))?;
        let (candidates, strangers) = self.candidates(&found).await?;
        let away = if stock == Stock::Late { None } else { self.away(&found, &candidates).await? };
        if let Some(away) = &away {
            let (kernels, root) = (away.contained.len(), self.node.scratch.path().to_owned());
            if kernels > 0 {
                let error = KernelError::FilesAway { kernels, root };
                if stock == Stock::Whole {
                    return Err(error);
                }
                self.node.scratch.begin_anew(Some(error.to_string()));
            }
            // Before any end.
            self.node.notes.journal.root_is_away();
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
                    if stock == Stock::Late {
                        // One that was left alone without its files is looked at again.
                        self.tell_death(&container);
                    }
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
        Ok(away)
    }

    /// What is away. Without its notes an agent would tell ends twice and could use no kernel, so a scratch root that is mounted late is
    /// waited for.
    async fn away(&self, found: &Found, candidates: &[Candidate]) -> Result<Option<Away>, KernelError> {
        if !found.kernels.is_empty() {
            return Ok(None);
        }
        let contained = candidates.iter().map(|candidate| candidate.kernel).collect();
        let away = Away { contained, ended: self.node.notes.journal.ended_without_root() };
        let is_there = away.contained.is_empty() && away.ended.is_empty() || self.is_there(&away).await?;
        Ok((!is_there).then_some(away))
    }

    /// Whether any of them has files or a note.
    async fn is_there(&self, away: &Away) -> Result<bool, KernelError> {
        let kernels: Vec<KernelId> = away.contained.iter().chain(&away.ended).copied().collect();
        let node = self.node.clone();
        let looked = tokio::task::spawn_blocking(move || {
            node.scratch.has_any(&kernels) || node.notes.has_any(&kernels)
        });
        looked.await.map_err(|_| KernelError::Thread("look for the kernels' files"))
    }

    async fn wait_for_files(&self, away: Away) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Ok(true) = self.is_there(&away).await {
                return;
            }
        }
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
