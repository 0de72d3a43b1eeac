//! Taking a running container of an earlier life back, with all that its kernel had. Knows no kernel's state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::container::{Made, look_at, tree};
use super::error::KernelError;
use super::folders::FolderRoot;
use super::labels;
use super::node::Node;
use super::notes::{Environ, KernelNote, Noted, NotedPhase, RunNote, unix_now};
use super::plan::{CONFIG_DIRS, HOME};
use super::published::{ports, services};
use super::reach;
use crate::docker::{Container, ContainerState};
use crate::ids::{ContainerId, KernelId};
use crate::images::ImageLabels;
use crate::resources::{Allocation, Held, parse_cpuset};
use crate::runner::{GoingRun, Runs};
use crate::scratch::Scratch;
use crate::units::{Cores, Gpus};
use crate::wire::config::{KernelConfig, Mount};
use crate::wire::lang;
use crate::wire::limits::Limits;
use crate::wire::reply::KernelPlace;

/// A kernel that was taken back.
pub(super) struct TakenBack {
    pub(super) made: Made,
    pub(super) config: KernelConfig,
    pub(super) allocation: Allocation,
    /// The run that went on, and since when its output waits.
    pub(super) runs: Runs,
    /// What its note says of that; `None` where nothing is noted, or a restart has cut it off.
    pub(super) going: Option<GoingRun>,
    /// For how long nobody has used it.
    pub(super) unused: Duration,
    /// When it was created, as far as its file system knows.
    pub(super) born: Option<SystemTime>,
    /// Whether it is a container of the Python agent.
    pub(super) is_adopted: bool,
}

/// Looks at the container and takes it back. `None`: it runs no more.
pub(super) async fn look(
    node: &Arc<Node>,
    kernel: KernelId,
    container: &ContainerId,
) -> Option<Result<Box<TakenBack>, KernelError>> {
    let mut found = look_at(node, kernel, container).await?;
    let reader = node.clone();
    let noted = tokio::task::spawn_blocking(move || reader.notes.of(kernel)).await;
    let Ok(noted) = noted else { return Some(Err(KernelError::Thread("read the kernel's notes"))) };
    let was_restarting = noted.kernel.as_ref().is_some_and(|note| note.phase == NotedPhase::Restarting);
    if was_restarting && found.state == ContainerState::Created {
        found = finish_restart(node, kernel, found).await?;
    }
    if !found.state.is_alive() {
        let (exit_code, out_of_memory) = (found.exit_code.unwrap_or(-1), found.oom_killed);
        tracing::info!(%kernel, exit_code, out_of_memory, "the container ended while no agent ran");
        return None;
    }
    // Whether a process in it was killed for memory before is not known, as not every Docker says so while it runs.
    node.wants.note_past(container);
    Some(take_back(node, kernel, &found, noted).await.map(Box::new))
}

/// An earlier life ended between the removal of the old container and the start of the new one.
async fn finish_restart(node: &Node, kernel: KernelId, ready: Container) -> Option<Container> {
    tracing::info!(%kernel, container = ready.id.short(), "going on with a restart that an earlier agent had begun");
    if let Err(error) = node.docker.start(&ready.id).await {
        tracing::warn!(%kernel, %error, "could not go on with a restart that had begun");
    }
    look_at(node, kernel, &ready.id).await
}

/// Takes it back, or says what is odd about it.
async fn take_back(
    node: &Node,
    kernel: KernelId,
    found: &Container,
    noted: Noted,
) -> Result<TakenBack, KernelError> {
    let stillborn = |problem| KernelError::Stillborn { container: found.id.short().to_owned(), problem };
    let is_adopted = !labels::is_labelled(&found.labels);
    let scratch = files(node, kernel, found).await.ok_or_else(|| stillborn("has no scratch directory"))?;
    let config = match labels::read(&found.labels) {
        Some((_, config)) => config,
        None => unlabelled(found, &node.folder_root()),
    };
    let environ = match noted.kernel.as_ref().and_then(|note| note.environ.clone()) {
        Some(Environ(environ)) => environ,
        // Of a time when only the scratch directory had it; from now on the note has it.
        None => scratch.read_environ().await.unwrap_or_else(|error| {
            tracing::warn!(%kernel, %error, "can't tell the environment that the kernel was made with; a restart will give it none");
            BTreeMap::new()
        }),
    };
    let born = scratch.born().await;
    let config = KernelConfig { environ, ..config };
    let cpus = config.cpu_set.clone().unwrap_or_default();
    let gpus = config.gpu_set.clone().unwrap_or_default();
    let allocation = node.resources.claim(&Held {
        cpus: &cpus,
        gpus: &gpus,
        gpu_uuids: &found.gpu_device_ids,
        gpu_slot: config.limits.gpu_slot,
    });
    let image = node.images.lookup(&config.lang).await.ok().flatten();
    let ports = ports(found, &node.kernel_host).ok_or_else(|| stillborn("has no published ports"))?;
    let runner = reach::runner(found.ip, &ports).await;
    // A container has its image's labels as well, those of the day on which it was made.
    let declared = ImageLabels::read(&found.labels).map(|labels| labels.services).unwrap_or_default();
    let place = KernelPlace {
        kernel,
        host: node.kernel_host.clone(),
        ports,
        container: found.id.clone(),
        cpu_set: cpus,
        gpu_set: gpus,
        services: services(found, &declared, &node.kernel_host),
    };
    let pid = found.pid.ok_or_else(|| stillborn("has no process"))?;
    let exec_timeout = image.and_then(|i| i.labels.exec_timeout);
    let is_of_another_boot =
        noted.kernel.as_ref().is_some_and(|note| note.is_of_another_boot(node.notes.boot()));
    let (going, output) = if is_of_another_boot {
        // Docker has started the container again: no run of then goes on.
        (Some(GoingRun::default()), Vec::new())
    } else {
        (going(noted.kernel.as_ref(), noted.run.as_ref()), noted.output)
    };
    let last_use = noted.kernel.as_ref().map(|note| note.last_use).max(noted.run.as_ref().map(|run| run.at));
    let unused = Duration::from_secs(last_use.map_or(0, |at| unix_now().saturating_sub(at)));
    Ok(TakenBack {
        made: Made { place, pid, runner, exec_timeout, scratch, tree: tree(found) },
        config,
        allocation,
        runs: Runs::taken_over(going.clone(), output, Instant::now()),
        going,
        born,
        unused: unused.min(longest_unused(node)),
        is_adopted,
    })
}

/// What the notes say of the run that goes on; `None` where they say nothing.
fn going(note: Option<&KernelNote>, run: Option<&RunNote>) -> Option<GoingRun> {
    let note = note?;
    if note.phase != NotedPhase::Running {
        return None;
    }
    Some(run.map_or_else(|| note.going_by_earlier_versions(), RunNote::going))
}

/// Nobody could use it while no agent served, so a tenth of the idle timeout is left in any case.
fn longest_unused(node: &Node) -> Duration {
    node.idle_timeout().map_or(Duration::MAX, |timeout| timeout.mul_f64(0.9))
}

/// The kernel's files and settings, where its container has them.
pub(super) async fn files(node: &Node, kernel: KernelId, found: &Container) -> Option<Scratch> {
    let settings = CONFIG_DIRS.into_iter().find_map(|target| found.source_of(target));
    node.scratch.mounted(kernel, found.source_of(HOME)?, settings).await
}

/// What can be read off a container of the Python agent, whose virtual folders are below `folders`.
fn unlabelled(found: &Container, folders: &FolderRoot) -> KernelConfig {
    let cpus = parse_cpuset(&found.cpuset_cpus).unwrap_or_default();
    let cores = u32::try_from(cpus.len()).ok().map(f64::from).and_then(Cores::from_slot).unwrap_or_default();
    let limits =
        Limits { mem_slot: found.memory.unwrap_or_default(), cpu_slot: cores, gpu_slot: Gpus::default() };
    let lang = lang::normal(&found.image).unwrap_or_else(|| found.image.clone());
    let mounts = found.mounts.iter().filter_map(|m| {
        // No folder begins with a dot: those are the runner's, and what Docker makes for the image.
        let name = m.target.strip_prefix("/home/work/").filter(|n| *n != "samples" && !n.starts_with('.'))?;
        let (host, id) = folders.host_and_id(Path::new(&m.source))?;
        Some(Mount { name: name.to_owned(), host, id })
    });
    KernelConfig {
        lang,
        limits,
        mounts: mounts.collect(),
        environ: BTreeMap::default(),
        cpu_set: Some(cpus),
        gpu_set: Some(Vec::new()),
    }
}
