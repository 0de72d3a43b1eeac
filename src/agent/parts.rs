//! The small glue between parts that know nothing of each other.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::config::RpcConfig;
use crate::cluster::{Cluster, ClusterStatus};
use crate::conditions::Need;
use crate::docker::{Docker, EngineInfo};
use crate::events::Events;
use crate::images::{ImageList, PREFIX, Updates, WantedImage};
use crate::kernel::Kernels;
use crate::patience::Outage;
use crate::resources::{GpuWatch, NodeLimits, NothingLeft, NvmlDriver, Resources, SysfsPaths, read_topology};
use crate::rpc;
use crate::stats::{CollectorConfig, DockerFigures, DockerHook};

/// The time between two looks at the GPUs: one that falls off the bus leaves the slots within it.
pub(super) const GPUS_EVERY: Duration = Duration::from_secs(10);
/// The time between two looks at the catalogue.
const CATALOGUE_EVERY: Duration = Duration::from_secs(15);

/// What the RPC server may hold.
pub(super) fn rpc_limits(config: RpcConfig) -> rpc::CallLimits {
    let RpcConfig { calls, calls_of_one, memory } = config;
    rpc::CallLimits { calls, calls_of_one, bytes: memory.bytes(), ..rpc::CallLimits::default() }
}

/// What the machine has for kernels, and whoever watches its GPUs, if it has any.
pub(super) async fn discover_resources(
    info: &EngineInfo,
    limits: NodeLimits,
) -> Result<(Resources, Option<GpuWatch>), NothingLeft> {
    let topology = read_topology(&SysfsPaths::default(), Some(info.cpus));
    let resources = Resources::new(topology, info.memory, limits)?;
    let mut gpus = GpuWatch::new(NvmlDriver::default());
    let has_driver = gpus.look(&resources).await;
    Ok((resources, has_driver.then_some(gpus)))
}

/// Waits for an engine that answers, and logs its version.
pub(super) async fn wait_for_docker(docker: &Docker) -> EngineInfo {
    let mut outage = Outage::default();
    loop {
        match docker.info().await {
            Ok(info) => {
                tracing::info!(
                    version = info.server_version,
                    cpus = info.cpus,
                    cgroup = info.cgroup_version,
                    driver = info.cgroup_driver,
                    "Docker answers"
                );
                return info;
            }
            Err(error) if outage.failed(Instant::now()) => tracing::error!(%error, "waiting for Docker"),
            Err(error) => tracing::debug!(%error, "still waiting for Docker"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Says for ever what is awaited before the manager's settings are there.
pub(super) async fn say_what_is_awaited(cluster: &Cluster, say: impl Fn(&str)) -> Infallible {
    let mut status = cluster.status();
    loop {
        let text = {
            let status = status.borrow_and_update();
            match (status.etcd_reachable, status.gaps.is_empty()) {
                (false, _) => "waiting for etcd".to_owned(),
                (true, true) => "waiting for the manager".to_owned(),
                (true, false) => format!("waiting for the manager ({})", status.gaps),
            }
        };
        say(&text);
        if status.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Figures from Docker where the cgroup files can't be seen, as in an agent that runs in a container.
pub(super) fn collector(docker: &Docker) -> CollectorConfig {
    let docker = docker.clone();
    let hook: DockerHook = Arc::new(move |container| {
        let docker = docker.clone();
        async move {
            let s = docker.stats(&container).await?;
            Ok(DockerFigures {
                cpu_total_ns: s.cpu_total_ns,
                mem_usage_bytes: Some(s.mem_cur),
                mem_max_usage_bytes: Some(s.mem_max).filter(|max| *max > 0),
                io_read_bytes: s.io_read,
                io_write_bytes: s.io_write,
                net_rx_bytes: s.net_rx,
                net_tx_bytes: s.net_tx,
            })
        }
        .boxed()
    });
    CollectorConfig { docker: Some(hook), ..CollectorConfig::default() }
}

/// A watch that follows another through a function.
pub(super) fn map_watch<T, U>(
    from: &watch::Receiver<T>,
    tracker: &TaskTracker,
    end: &CancellationToken,
    f: impl Fn(&T) -> U + Send + Sync + 'static,
) -> watch::Receiver<U>
where
    T: Send + Sync + 'static,
    U: PartialEq + Send + Sync + 'static,
{
    let mut from = from.clone();
    let (to, receiver) = watch::channel(f(&from.borrow_and_update()));
    let end = end.clone();
    tracker.spawn(async move {
        let follow = async {
            while from.changed().await.is_ok() {
                let value = f(&from.borrow_and_update());
                to.send_if_modified(|old| {
                    let differs = *old != value;
                    *old = value;
                    differs
                });
            }
        };
        end.run_until_cancelled(follow).await;
    });
    receiver
}

/// What the catalogue in etcd wants this machine's images to be; empty unless updates are on.
pub(super) fn wanted_images(
    cluster: &Cluster,
    mut updates: watch::Receiver<Updates>,
    end: &CancellationToken,
    tracker: &TaskTracker,
) -> watch::Receiver<Vec<WantedImage>> {
    let (wanted, receiver) = watch::channel(Vec::new());
    let (cluster, end) = (cluster.clone(), end.clone());
    tracker.spawn(async move {
        let follow = async {
            // Only ends with the agent.
            while updates.wait_for(|updates| updates.are_on).await.is_ok() {
                match cluster.catalogue().await {
                    Ok(catalogue) => drop(wanted.send_replace(all_wanted(&catalogue))),
                    Err(error) => tracing::debug!(%error, "can't read the image catalogue"),
                }
                tokio::time::sleep(CATALOGUE_EVERY).await;
            }
        };
        end.run_until_cancelled(follow).await;
    });
    receiver
}

fn all_wanted(catalogue: &crate::cluster::Catalogue) -> Vec<WantedImage> {
    let references = catalogue
        .images
        .iter()
        .flat_map(|(name, image)| image.tags.keys().map(move |tag| format!("{name}:{tag}")));
    references
        .filter_map(|name_tag| {
            let found = catalogue.resolve(&name_tag)?;
            Some(WantedImage { source: found.name_tag, hash_prefix: found.hash.to_owned(), name_tag })
        })
        .collect()
}

/// Says how each need is met, as far as that is known, and gives what follows them for ever.
pub(super) fn follow_needs(
    board: &Board,
    kernels: &Kernels,
    cluster: &Cluster,
    images: watch::Receiver<ImageList>,
    (redis, disks): (watch::Receiver<Option<String>>, watch::Receiver<Option<String>>),
    events: &Events,
) -> [BoxFuture<'static, ()>; 7] {
    let docker = |answers: &bool| (!answers).then(|| "Docker does not answer".to_owned());
    let images_there = |list: &ImageList| {
        list.entries
            .is_empty()
            .then(|| format!("there is no kernel image ({PREFIX}…) on this machine; pull one"))
    };
    // Without etcd nobody knows, and it is as it was.
    let manager = |status: &ClusterStatus| {
        let text = "the manager left etcd; what it last told stays in use until it is back";
        (!status.manager_present).then(|| text.to_owned())
    };
    [
        start_ends(board.clone(), kernels.recovered(), events.clone()).boxed(),
        board.follow(Need::Docker, kernels.docker_answers(), docker).boxed(),
        board.follow(Need::Images, images, images_there).boxed(),
        board.follow(Need::Manager, cluster.status(), manager).boxed(),
        board.follow(Need::Redis, redis, Clone::clone).boxed(),
        board.follow(Need::Disk, disks, Clone::clone).boxed(),
        board.clone().follow_beats(events.last_beat(), events.trouble()).boxed(),
    ]
}

/// Says how etcd answers, from when that is known on: the agent may wait for it long before it serves.
pub(super) async fn follow_etcd(board: Board, mut status: watch::Receiver<ClusterStatus>) {
    let is_known = |status: &ClusterStatus| status.etcd_reachable || status.etcd_trouble.is_some();
    if status.wait_for(is_known).await.is_err() {
        return;
    }
    let unmet = |status: &ClusterStatus| {
        let why = |error| format!("etcd can't be reached; trying until it answers: {error}");
        status.etcd_trouble.as_ref().map(why)
    };
    board.follow(Need::Etcd, status, unmet).await;
}

/// The last steps of the start.
async fn start_ends(board: Board, mut recovered: watch::Receiver<bool>, events: Events) {
    board.starting("kernels of an earlier life are not known yet");
    if recovered.wait_for(|done| *done).await.is_err() {
        return;
    }
    board.starting("the first heartbeat has not arrived at the manager yet");
    events.first_beat_arrived().await;
    board.set(Need::Start, None);
}

/// Nanoseconds since 1970, as Docker's events count.
pub(super) fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
