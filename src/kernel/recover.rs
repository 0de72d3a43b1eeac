//! Taking back what an earlier life of the agent left (section 12, items 20 and 21; idea 1 of ARCHITECTURE.md).
//!
//! What there is comes from three places: Docker's list by labels, the notes, and the untold endings. What to do
//! about each kernel is decided by [`fate::decide`], which is pure; each kernel's own task then does it, so that a hundred
//! kernels are taken back side by side while the agent serves already.

pub mod fate;

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use self::fate::{Candidate, Fate, decide};
use super::error::{Failure, KernelError};
use super::labels;
use super::make::{Made, ports};
use super::notes::{Found, KernelNote, NotedPhase, unix_now};
use super::task::{Birth, Kernel, pause};
use super::{Kernels, Live, Phase, reach};
use crate::docker::{Container, ContainerSummary, ListFilter};
use crate::ids::{ContainerId, KernelId, RunId};
use crate::resources::parse_cpuset;
use crate::units::{Cores, Gpus};
use crate::wire::config::{KernelConfig, Limits};
use crate::wire::event::EndReason;
use crate::wire::reply::KernelPlace;
use crate::wire::sample::Sample;

impl Kernels {
    /// Finds out what there is and starts a task for each kernel; tries until Docker answers.
    pub async fn recover(&self) {
        let mut attempt = 0;
        loop {
            match self.try_recover().await {
                Ok(()) => break,
                Err(error) if attempt == 0 => {
                    tracing::error!(%error, "can't find out which kernels run; trying until Docker answers");
                }
                Err(error) => tracing::debug!(%error, attempt, "still can't find out which kernels run"),
            }
            tokio::time::sleep(pause(attempt)).await;
            attempt += 1;
        }
        self.shared.recovered.send_replace(true);
    }

    async fn try_recover(&self) -> Result<(), KernelError> {
        let begun = Instant::now();
        let node = self.node.clone();
        let found = tokio::task::spawn_blocking(move || node.notes.load())
            .await
            .map_err(|_| KernelError::Thread("read the notes"))?
            .map_err(|source| KernelError::Note {
                path: self.node.scratch.agent_dir().display().to_string(),
                source,
            })?;
        let (candidates, strangers) = self.candidates(&found).await?;
        for kernel in strangers.iter().filter(|kernel| found.kernels.contains_key(kernel)) {
            tracing::error!(
                %kernel,
                "left alone: noted as this agent's kernel, but its container is labelled otherwise; was this agent's name or version changed?"
            );
        }
        let fates = decide(&found, &candidates, &strangers);
        let (mut taken, mut ended, mut undone) = (0, 0, 0);
        for (kernel, fate) in fates {
            let birth = match fate {
                Fate::TakeBack(container) => {
                    taken += 1;
                    let sample = found.samples.get(&kernel).copied();
                    Birth::Found(container, found.kernels.get(&kernel).cloned(), sample)
                }
                Fate::End(reason) => {
                    ended += 1;
                    let noted = found.untold.get(&kernel).and_then(|e| e.sample);
                    let was = found.kernels.get(&kernel).map(|n| n.phase);
                    Birth::Ended {
                        reason,
                        sample: noted.or_else(|| found.samples.get(&kernel).copied()),
                        was_restarting: was == Some(NotedPhase::Restarting),
                    }
                }
                Fate::Undo => {
                    undone += 1;
                    Birth::HalfMade
                }
            };
            self.spawn(kernel, birth);
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
        let ours = self.node.scratch.path().join(kernel.to_string());
        // The disk may hang; then nothing of this start may.
        let compared = tokio::task::spawn_blocking(move || {
            let ours = std::fs::canonicalize(&ours).unwrap_or(ours);
            found.mounts.iter().any(|m| {
                m.target == "/home/work"
                    && std::fs::canonicalize(&m.source).is_ok_and(|source| source == ours)
            })
        });
        compared.await.map_err(|_| KernelError::Thread("compare scratch directories"))
    }
}

fn candidate(kernel: KernelId, container: &ContainerSummary) -> Candidate {
    let (container_id, alive) = (container.id.clone(), container.state.is_alive());
    Candidate { kernel, container: container_id, alive, created: container.created }
}

impl Kernel {
    /// Takes a running container back, or ends the kernel when it runs no more.
    pub(super) async fn take_over(
        &mut self,
        container: ContainerId,
        note: Option<KernelNote>,
        sample: Option<Sample>,
    ) -> Option<std::sync::Arc<Live>> {
        let found = self.look_at(&container).await;
        let Some(found) = found.filter(|c| self.is_alive(c)) else {
            if note.is_some_and(|n| n.phase == NotedPhase::Restarting) {
                self.expect_deaf_manager();
            }
            self.finish(EndReason::SelfTerminated, sample, None).await;
            return None;
        };
        match self.taken_back(&found, note).await {
            Ok(live) => {
                tracing::info!(kernel = %self.id, lang = self.config.lang, container = container.short(),
                    run = self.note.run, cpus = ?live.place.cpu_set, "took back a running kernel");
                Some(live)
            }
            Err(error) => {
                // Odd, but somebody's session: it keeps running for a better agent to look at.
                tracing::error!(kernel = %self.id, container = container.short(), %error,
                    "left alone: can't take back this running kernel");
                self.leave_alone(container, std::sync::Arc::new(error), sample).await;
                None
            }
        }
    }

    fn is_alive(&self, found: &Container) -> bool {
        if found.state.is_alive() {
            return true;
        }
        let (exit_code, out_of_memory) = (found.exit_code.unwrap_or(-1), found.oom_killed);
        tracing::info!(kernel = %self.id, exit_code, out_of_memory, "its container ended while no agent ran");
        false
    }

    /// Keeps the kernel's place in the registry, so that its container is no orphan and its end is told.
    async fn leave_alone(&mut self, container: ContainerId, failure: Failure, sample: Option<Sample>) {
        self.phase.send_replace(Phase::LeftAlone(container.clone(), failure.clone()));
        let reason = loop {
            tokio::select! {
                biased;
                Some(reason) = self.inbox.terminate.recv() => break reason,
                () = self.node.detach.cancelled() => return,
                Some(_) = self.inbox.deaths.recv() => {
                    let found = self.node.docker.inspect(container.as_str()).await;
                    // When Docker can't say, the next comparison asks again.
                    if found.is_ok_and(|found| found.is_none_or(|c| !c.state.is_alive())) {
                        break EndReason::SelfTerminated;
                    }
                }
                Some(request) = self.inbox.restarts.recv() => {
                    // The asker may be gone.
                    let _ = request.answer.send(Err(failure.clone()));
                }
            }
        };
        self.finish(reason, sample, None).await;
    }

    /// Nobody could use it while no agent served, so a tenth of the idle timeout is left in any case.
    fn longest_unused(&self) -> Duration {
        self.node.config.idle_timeout.map_or(Duration::MAX, |timeout| timeout.mul_f64(0.9))
    }

    async fn look_at(&self, container: &ContainerId) -> Option<Container> {
        let mut attempt = 0;
        loop {
            match self.node.docker.inspect(container.as_str()).await {
                Ok(found) => return found,
                Err(error) => tracing::debug!(kernel = %self.id, %error, "can't look at its container yet"),
            }
            tokio::time::sleep(pause(attempt)).await;
            attempt += 1;
        }
    }

    async fn taken_back(
        &mut self,
        found: &Container,
        note: Option<KernelNote>,
    ) -> Result<std::sync::Arc<Live>, KernelError> {
        let stillborn = |problem| KernelError::Stillborn { container: found.id.short().to_owned(), problem };
        let is_adopted = !labels::is_labelled(&found.labels);
        let scratch =
            self.node.scratch.existing(self.id).await.ok_or_else(|| stillborn("has no scratch directory"))?;
        let config = match labels::read(&found.labels) {
            Some((_, config)) => config,
            None => unlabelled(found),
        };
        let environ = scratch.read_environ().await.unwrap_or_default();
        self.config = KernelConfig { environ, ..config };
        let cpus = self.config.cpu_set.clone().unwrap_or_default();
        let gpus = self.config.gpu_set.clone().unwrap_or_default();
        self.allocation = Some(self.node.resources.claim(&cpus, &gpus));
        let image = self.node.images.lookup(&self.config.lang).await.ok().flatten();
        let ports = ports(found).ok_or_else(|| stillborn("has no published ports"))?;
        let runner = reach::runner(found.ip, &ports).await;
        let place = KernelPlace {
            kernel: self.id,
            host: self.node.kernel_host.clone(),
            ports,
            container: found.id.clone(),
            cpu_set: cpus,
            gpu_set: gpus,
        };
        let pid = found.pid.ok_or_else(|| stillborn("has no process"))?;
        let exec_timeout = image.and_then(|i| i.exec_timeout);
        let made = Made { place, pid, runner, exec_timeout, scratch, is_new: false };
        let run = note.as_ref().and_then(|n| n.run.clone()).map(RunId::new);
        self.note.waits = note.as_ref().is_some_and(|n| n.waits);
        // Noted as idle by an agent of this kind: no run goes on. Without a note one may.
        let is_known_idle = run.is_none() && note.as_ref().is_some_and(|n| n.phase == NotedPhase::Running);
        let live = self
            .connect(Made { is_new: is_known_idle, ..made }, run.clone().map(|run| (run, self.note.waits)));
        let unused = note.as_ref().map_or(0, |n| unix_now().saturating_sub(n.last_use));
        let unused = Duration::from_secs(unused).min(self.longest_unused());
        self.last_use = Instant::now().checked_sub(unused).unwrap_or(self.last_use);
        self.note.run = run.map(|r| r.as_str().to_owned());
        self.note.adopted = is_adopted.then(|| found.id.to_string());
        self.note_phase(NotedPhase::Running).await;
        live.remember_if_running(&self.note.run).await;
        Ok(live)
    }
}

/// What can be read off a container of the Python agent.
fn unlabelled(found: &Container) -> KernelConfig {
    let cpus = parse_cpuset(&found.cpuset_cpus).unwrap_or_default();
    let cores = u32::try_from(cpus.len()).ok().map(f64::from).and_then(Cores::from_slot).unwrap_or_default();
    let limits =
        Limits { mem_slot: found.memory.unwrap_or_default(), cpu_slot: cores, gpu_slot: Gpus::default() };
    let lang = found.image.strip_prefix(crate::images::PREFIX).unwrap_or(&found.image).to_owned();
    let mounts = found.mounts.iter().filter_map(|m| {
        let name = m.target.strip_prefix("/home/work/").filter(|n| *n != "samples")?;
        let source = std::path::Path::new(&m.source);
        let part = |p: Option<&std::ffi::OsStr>| Some(p?.to_str()?.to_owned());
        let id = part(source.file_name())?;
        let host = part(source.parent()?.file_name())?;
        Some(crate::wire::config::Mount { name: name.to_owned(), host, id })
    });
    KernelConfig {
        lang,
        limits,
        mounts: mounts.collect(),
        environ: std::collections::BTreeMap::default(),
        cpu_set: Some(cpus),
        gpu_set: Some(Vec::new()),
    }
}
