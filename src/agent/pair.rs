//! From what this machine gives to an agent that serves: Docker, etcd, the manager, then the parts.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::running::{Parts, Running};
use super::{Agent, StartError, fence, parts, privacy, reach};
use crate::address::HostPort;
use crate::cluster::{Cluster, Presence};
use crate::docker::Docker;
use crate::events::Events;
use crate::heartbeat::HeartbeatConfig;
use crate::images::{Images, ImagesConfig};
use crate::kernel::{FolderChecks, Hardening, KernelNetwork, Kernels, LastStatistics, Looks, Node, Wants};
use crate::runner::Held;
use crate::stats::{Collector, Store};

/// How long the start waits for the first list of images before it goes on without.
const FIRST_SCAN: Duration = Duration::from_secs(10);

/// How long leaving etcd may take when the start is given up.
const LEAVE: Duration = Duration::from_secs(1);

impl Agent {
    /// Waits for Docker and for the manager, as long as it takes, and starts the parts. `None` when told to stop
    /// meanwhile; then etcd is as it was found. An error is one that Docker's answer brought to light, and nobody has been
    /// told of this agent.
    // One straight line on purpose: the order of the start is the thing to read here.
    #[allow(clippy::too_many_lines)]
    pub async fn pair(self, stop: &CancellationToken) -> Result<Option<Running>, StartError> {
        let Self {
            config,
            changes,
            identity,
            owner,
            scratch,
            notes,
            outputs,
            server,
            mut callers,
            board,
            mut disks,
            shown,
            meters,
            life,
        } = self;
        let (end, tracker) = (&life.end, &life.tracker);
        let waits_for = |what: &str| board.starting(what);

        let docker = Docker::open(config.docker);
        waits_for("waiting for Docker");
        let Some(info) = stop.run_until_cancelled(parts::wait_for_docker(&docker)).await else {
            return Ok(None);
        };
        disks.and_docker(&info.data_root);
        for gap in Hardening::gaps(&info) {
            tracing::warn!("{gap}");
        }
        let (resources, gpus) = parts::discover_resources(&info, config.limits).await?;
        // From before the first look at the containers, so that nothing falls in between.
        let events_since = parts::unix_nanos();
        let agent_host = config.agent_host.unwrap_or_else(|| identity.ip.to_string());
        let kernel_host = config.kernel_host.unwrap_or_else(|| agent_host.clone());
        tracing::info!(instance = %identity.instance_id, host = agent_host, region = identity.region, "this machine");

        let config_etcd = config.cluster.endpoints.clone();
        let cluster = Cluster::start(config.cluster, &identity.instance_id, end, tracker);
        let following = parts::follow_etcd(board.clone(), cluster.status());
        tracker.spawn(end.clone().run_until_cancelled_owned(following));
        let manager = tokio::select! {
            manager = stop.run_until_cancelled(cluster.wait_for_manager()) => manager,
            never = parts::say_what_is_awaited(&cluster, waits_for) => match never {},
        };
        let Some(manager) = manager else {
            return Ok(None);
        };
        tracing::info!(manager = manager.manager_id, "paired with the manager");
        let manager_mount = manager.volume_mount;
        let (published, manager) = (agent_host.clone(), manager.event_addr);
        // Before the first call is taken; after that it is followed.
        if stop.run_until_cancelled(callers.look(&docker, Some(&manager))).await.is_none() {
            return Ok(None);
        }
        let following = callers.follow(docker.clone(), cluster.settings());
        tracker.spawn(end.clone().run_until_cancelled_owned(following));
        tracker.spawn(end.clone().run_until_cancelled_owned(reach::advise(published, manager)));
        let (hardening, kernel_uid) = (config.kernels.hardening, config.kernels.uid);
        if hardening && rustix::process::geteuid().is_root() && kernel_uid != 0 {
            privacy::advise_on_user(kernel_uid);
            let advising = privacy::advise_on_folders(manager_mount, kernel_uid);
            tracker.spawn(end.clone().run_until_cancelled_owned(advising));
        }
        let network = KernelNetwork::new(&owner, config.kernel_network);
        let known = cluster.settings().borrow().clone();
        let mut fence = fence::Keeper::new(docker.clone(), network.clone(), config_etcd, server.port());
        if stop.run_until_cancelled(fence.look(known.as_ref())).await.is_none() {
            return Ok(None);
        }
        cluster.set_presence(Presence::Starting);
        waits_for("starting");

        let updates = parts::map_watch(&changes, tracker, end, |changes| changes.updates.clone());
        let idle_timeout = parts::map_watch(&changes, tracker, end, |changes| changes.idle_timeout);
        let wanted = parts::wanted_images(&cluster, updates.clone(), end, tracker);
        let settings = cluster.settings();
        let login = parts::map_watch(&settings, tracker, end, |s| s.as_ref()?.registry_login.clone());
        let images_config = ImagesConfig { login, ..ImagesConfig::new(wanted, updates) };
        let images = Images::start(docker.clone(), images_config, end.clone(), tracker);
        match stop.run_until_cancelled(images.first_scan(FIRST_SCAN)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "going on without a list of images; kernels are refused until there is one");
            }
            None => {
                if let Err(error) = cluster.retract(LEAVE).await {
                    tracing::warn!(%error, "could not leave etcd");
                }
                return Ok(None);
            }
        }

        let event_addr =
            parts::map_watch(&settings, tracker, end, |s| s.as_ref().map(|s| s.event_addr.clone()));
        let redis = parts::map_watch(&settings, tracker, end, |s| s.as_ref().map(|s| s.redis.clone()));
        let events = Events::start(identity.instance_id, event_addr, tracker);
        let store = Store::start(redis, config.redis, end.clone(), tracker);
        let collector = Arc::new(Collector::new(parts::collector(&docker)));
        scratch.start_sweeper(end.clone(), tracker);

        let heartbeat = HeartbeatConfig {
            interval: config.heartbeat_interval,
            ip: agent_host.clone(),
            region: identity.region,
            addr: HostPort { host: agent_host, port: server.port() }.endpoint(),
            totals: resources.watch_totals(),
        };
        let (kernel_tasks, detach) = (TaskTracker::new(), CancellationToken::new());
        let kernels = Kernels::new(Node {
            config: config.kernels,
            idle_timeout,
            kernel_host,
            owner: owner.clone(),
            docker: docker.clone(),
            hardening: Hardening::of(&info),
            uid: rustix::process::geteuid().as_raw(),
            network: network.clone(),
            images: images.clone(),
            resources: resources.clone(),
            scratch,
            outputs,
            collector: collector.clone(),
            last_statistics: LastStatistics::new(store.clone()),
            events: events.clone(),
            settings,
            conditions: board.conditions(),
            notes: notes.of(&owner),
            looks: Looks::default(),
            folder_checks: FolderChecks::default(),
            held: Held::default(),
            wants: Wants::default(),
            tracker: kernel_tasks.clone(),
            detach: detach.clone(),
        });
        let parts = Parts {
            cluster,
            kernels,
            kernel_tasks,
            detach,
            events,
            docker,
            network,
            fence,
            events_since,
            images: images.list(),
            pulls: images.pulls(),
            resources,
            gpus,
            collector,
            store,
            heartbeat,
            instance: owner.instance,
            stats_interval: config.stats_interval,
            stop_kernels: config.stop_kernels_on_exit,
            server,
            board,
            disks,
            shown,
            meters,
            life,
        };
        Ok(Some(Running::start(parts, stop).await))
    }
}
