//! A kernel's container, made and looked at. Knows no kernel's state.
//!
//! Each step leaves something that can be found again by the kernel's id alone: a note, a scratch directory, a
//! container with the kernel's labels. So undoing ([`super::removal`]) needs no list of what was done, and works after any
//! failure, also of a create that Docker carries out after its deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::account::Folder;
use super::error::KernelError;
use super::node::{Node, RETRIES};
use super::notes::{KernelNote, NotedPhase};
use super::plan::{self, Plan};
use super::published::{ports, services, terminal_ip};
use super::wall::Wall;
use super::{demise, labels, reach};
use crate::docker::{Container, ContainerSpec, DockerError};
use crate::ids::{ContainerId, KernelId};
use crate::images::KernelImage;
use crate::resources::{Allocation, MemoryGrant, Request};
use crate::runner::RunnerAddr;
use crate::scratch::{Scratch, Tree};
use crate::units::Gpus;
use crate::wire::config::{KernelConfig, Mount};
use crate::wire::event::Event;
use crate::wire::limits::Limits;
use crate::wire::reply::KernelPlace;

/// How much of the log of a container that ended at once is read, in bytes, and how long Docker may take to know of its end
/// and to give the log.
const LAST_WORDS_BYTES: usize = 4096;
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(1500);
/// From one look at such a container to the next.
const NOTICE_POLL: Duration = Duration::from_millis(20);
/// How often a create is tried while nothing has its name that can be seen, and the pause in between.
const NAME_ATTEMPTS: u32 = 6;
const NAME_PAUSE: Duration = Duration::from_millis(200);
/// What is left of a create after a pull: making the container, and the way of the answer.
const AFTER_PULL: Duration = Duration::from_secs(5);
/// Nothing is pulled for somebody who can't wait so long for it.
const PULLS_FROM: Duration = Duration::from_secs(10);

/// A container that runs.
pub(super) struct Made {
    pub(super) place: KernelPlace,
    pub(super) pid: u32,
    /// Where its runner is reached.
    pub(super) runner: RunnerAddr,
    pub(super) exec_timeout: Option<Duration>,
    pub(super) scratch: Scratch,
    /// What its user sees of the host.
    pub(super) tree: Tree,
}

/// Asks until Docker answers. `None`: there is no such container.
pub(super) async fn look_at(node: &Node, kernel: KernelId, container: &ContainerId) -> Option<Container> {
    let mut attempt = 0;
    loop {
        match node.docker.inspect(container.as_str()).await {
            Ok(found) => return found,
            Err(error) => tracing::debug!(%kernel, %error, "can't look at its container yet"),
        }
        attempt += 1;
        sleep(RETRIES.pause(attempt)).await;
    }
}

/// What Docker says of a container that may have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It lives, as far as can be told.
    Alive,
    /// It has ended.
    Ended,
    /// The system killed it, because it used more memory than its limit.
    OutOfMemory,
}

/// Whether the container has ended, as Docker says it, and the log why; `pid` is its first process, where that is known.
/// When Docker can't say, it counts as alive, and the next comparison with Docker's list asks again.
pub(super) async fn has_ended(
    node: &Node,
    kernel: KernelId,
    container: &ContainerId,
    pid: Option<u32>,
) -> Seen {
    match node.docker.inspect(container.as_str()).await {
        Ok(Some(c)) if c.state.is_alive() && pid.is_none_or(|pid| c.pid == Some(pid)) => Seen::Alive,
        Ok(Some(c)) if c.state.is_alive() => {
            // Somebody restarted the container by hand: its state and its ports are gone.
            tracing::warn!(%kernel, "the container was restarted, and not by the agent; ending the kernel");
            Seen::Ended
        }
        Ok(Some(c)) => {
            let exit_code = c.exit_code.unwrap_or(-1);
            let is_of_memory = demise::is_of_memory(&c, node.wants.since(container));
            node.wants.forget(container);
            if is_of_memory {
                tracing::warn!(%kernel, exit_code, "killed because the kernel used more memory than its limit");
                return Seen::OutOfMemory;
            }
            tracing::info!(%kernel, exit_code, "the container ended by itself");
            Seen::Ended
        }
        Ok(None) => {
            node.wants.forget(container);
            tracing::warn!(%kernel, "the container was removed, and not by the agent");
            Seen::Ended
        }
        Err(error) => {
            tracing::debug!(%kernel, %error, "can't tell whether its container ended; looking again later");
            Seen::Alive
        }
    }
}

/// The container and all that it needs; what was made so far stays when it fails. `wait`: how long its asker waits, if there
/// is a limit.
pub(super) async fn make(
    node: &Arc<Node>,
    kernel: KernelId,
    config: &KernelConfig,
    wait: Option<Duration>,
    allocation: &mut Option<Allocation>,
) -> Result<Made, KernelError> {
    let image = match image(node, config).await {
        Err(KernelError::NoImage(lang)) => fetched(node, config, &lang, wait).await?,
        found => found?,
    };
    let folders = folders(node, &config.mounts).await?;
    let (limits, memory) = grant(node, config, &image)?;
    let held = allocate(node, config, limits, allocation)?;
    let entry = KernelNote::new(kernel, NotedPhase::Creating);
    let shared = node.clone();
    tokio::task::spawn_blocking(move || shared.notes.note(kernel, &entry, true))
        .await
        .map_err(|_| KernelError::Thread("note the kernel"))?
        .map_err(|source| node.not_noted(source))?;
    node.events.emit(Event::KernelCreating(kernel));
    let wall = Wall::around(node, kernel, &image, &folders, None);
    let scratch = node.scratch.create(kernel, &config.environ, wall.uid).await.inspect_err(|error| {
        if !error.is_refusal() {
            node.scratch.doubt();
        }
    })?;
    let granted = Granted { limits, memory, held, wall };
    let spec = specify(node, kernel, config, &image, &granted, &folders, &scratch).await?;
    let container = create_named(node, kernel, &labels::name(&config.lang, kernel), &spec).await?;
    run(node, kernel, container, &image, held, scratch).await
}

/// The kernel's image.
pub(super) async fn image(node: &Node, config: &KernelConfig) -> Result<KernelImage, KernelError> {
    let image =
        node.images.lookup(&config.lang).await?.ok_or_else(|| KernelError::NoImage(config.lang.clone()))?;
    if config.limits.gpu_slot > Gpus::default() && !image.labels.nvidia_enabled {
        return Err(KernelError::GpuRefused(config.lang.clone()));
    }
    Ok(image)
}

/// An image that is not here, where its asker waits long enough for a pull.
async fn fetched(
    node: &Node,
    config: &KernelConfig,
    lang: &str,
    wait: Option<Duration>,
) -> Result<KernelImage, KernelError> {
    let limit = wait.unwrap_or(Duration::MAX).saturating_sub(AFTER_PULL);
    let missing = || KernelError::NoImage(lang.to_owned());
    if limit < PULLS_FROM {
        return Err(missing());
    }
    node.images.fetch(lang, limit).await?.ok_or_else(missing)?;
    image(node, config).await
}

/// The kernel's virtual folders: where they are, and where they go.
pub(super) async fn folders(node: &Node, mounts: &[Mount]) -> Result<Vec<Folder>, KernelError> {
    node.folder_checks.look_up(node.folder_root(), mounts).await
}

/// What a kernel gets of the machine.
pub(super) struct Granted<'a> {
    pub(super) limits: Limits,
    pub(super) memory: MemoryGrant,
    pub(super) held: &'a Allocation,
    pub(super) wall: Wall,
}

/// What was asked for, within what the image declares that it can use.
pub(super) fn grant(
    node: &Node,
    config: &KernelConfig,
    image: &KernelImage,
) -> Result<(Limits, MemoryGrant), KernelError> {
    let limits = image.labels.capped(config.limits);
    Ok((limits, node.resources.memory(limits.mem_slot)?))
}

/// The cores and GPUs that the kernel holds; handed out where it holds none.
pub(super) fn allocate<'a>(
    node: &Node,
    config: &KernelConfig,
    limits: Limits,
    held: &'a mut Option<Allocation>,
) -> Result<&'a Allocation, KernelError> {
    let allocation = match held.take() {
        Some(allocation) => allocation,
        None => node.resources.allocate(Request {
            cpu_slot: limits.cpu_slot,
            gpu_slot: limits.gpu_slot,
            prefer_cpus: config.cpu_set.clone(),
            prefer_gpus: config.gpu_set.clone(),
        })?,
    };
    Ok(held.insert(allocation))
}

/// What the container shall be like.
pub(super) async fn specify(
    node: &Node,
    kernel: KernelId,
    config: &KernelConfig,
    image: &KernelImage,
    granted: &Granted<'_>,
    folders: &[Folder],
    scratch: &Scratch,
) -> Result<ContainerSpec, KernelError> {
    let Granted { limits, memory, held, wall } = granted;
    let samples = plan::wants_samples(&config.lang) && node.docker.volume_exists(plan::SAMPLES).await?;
    node.network.ensure(&node.docker).await?;
    Ok(plan::spec(&Plan {
        owner: &node.owner,
        kernel,
        config,
        image,
        limits: *limits,
        memory: *memory,
        cpu_set: held.cpu_set(),
        numa_node: held.numa_node(),
        gpu_set: held.gpu_set(),
        gpu_uuids: held.gpu_uuids(),
        home: scratch.home(),
        config_dir: scratch.config(),
        folders,
        samples,
        terminal_ip: terminal_ip(&node.kernel_host),
        uid: wall.uid,
        confinement: wall.confinement.clone(),
        debug_kernel: node.config.debug_kernel.as_deref(),
        pids_limit: node.config.pids_limit,
        network: node.network.name(),
    }))
}

/// Starts a container that was made, and finds out where its runner is.
pub(super) async fn run(
    node: &Node,
    kernel: KernelId,
    container: ContainerId,
    image: &KernelImage,
    held: &Allocation,
    scratch: Scratch,
) -> Result<Made, KernelError> {
    node.docker.start(&container).await?;
    let stillborn = |problem| KernelError::Stillborn { container: container.short().to_owned(), problem };
    let found = node.docker.inspect(container.as_str()).await?.ok_or_else(|| stillborn("is gone"))?;
    let Some(pid) = found.pid.filter(|_| found.state.is_alive()) else {
        return Err(ended_at_once(node, &container).await);
    };
    let ports = ports(&found, &node.kernel_host).ok_or_else(|| stillborn("has no published ports"))?;
    let runner = reach::runner(found.ip, &ports).await;
    let place = KernelPlace {
        kernel,
        host: node.kernel_host.clone(),
        ports,
        container,
        cpu_set: held.cpu_set().to_vec(),
        gpu_set: held.gpu_set().to_vec(),
        services: services(&found, &image.labels.services, &node.kernel_host),
    };
    Ok(Made { place, pid, runner, exec_timeout: image.labels.exec_timeout, scratch, tree: tree(&found) })
}

/// What the user of a container sees of the host.
pub(super) fn tree(container: &Container) -> Tree {
    Tree::of(container.mounts.iter().map(|mount| (mount.target.as_str(), mount.source.as_str())))
}

/// What a container that ended at once has left: its exit code and its last words. Undoing the create removes both.
pub(super) async fn ended_at_once(node: &Node, container: &ContainerId) -> KernelError {
    // Docker notices the end of a process late, and has all of its output only then.
    let ended = async {
        loop {
            match node.docker.inspect(container.as_str()).await {
                Ok(Some(found)) if found.state.is_alive() => sleep(NOTICE_POLL).await,
                found => break found.ok().flatten(),
            }
        }
    };
    let found = timeout(LAST_WORDS_LIMIT, ended).await.ok().flatten();
    let words = match node.docker.logs_tail(container, LAST_WORDS_BYTES, LAST_WORDS_LIMIT).await {
        Ok(log) => match demise::last_words(&log) {
            words if words.is_empty() => "it wrote nothing".to_owned(),
            words => format!("its last words: {words}"),
        },
        Err(error) => format!("its last words are not known ({error})"),
    };
    let of_memory = found.as_ref().is_some_and(|c| demise::is_of_memory(c, node.wants.since(container)));
    let exit = match found.and_then(|c| c.exit_code) {
        Some(code) if of_memory => format!("with exit code {code}, for want of memory"),
        Some(code) => format!("with exit code {code}"),
        None => "with an exit code that Docker does not tell".to_owned(),
    };
    KernelError::EndedAtOnce { container: container.short().to_owned(), exit, words }
}

/// A dead leftover of the name is cleared (section 12, item 13); a living one is somebody's. A name that is taken by nothing is that of a
/// container which Docker is making or removing, for a request of an earlier life as a rule.
pub(super) async fn create_named(
    node: &Node,
    kernel: KernelId,
    name: &str,
    spec: &ContainerSpec,
) -> Result<ContainerId, KernelError> {
    let mut attempt = 0;
    loop {
        let taken = match node.docker.create(name, spec).await {
            Err(error @ DockerError::NameTaken { .. }) => error,
            created => return Ok(created?),
        };
        attempt += 1;
        match node.docker.inspect(name).await? {
            Some(leftover) if !leftover.state.is_alive() && attempt < NAME_ATTEMPTS => {
                tracing::info!(%kernel, container = leftover.id.short(), "removing a dead leftover of the same name");
                node.docker.remove(&leftover.id).await?;
            }
            None if attempt < NAME_ATTEMPTS => sleep(NAME_PAUSE).await,
            _ => return Err(taken.into()),
        }
    }
}
