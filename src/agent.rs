//! The composition root: what is started in which order, and stopped in which (PROTOCOL section 10).
//!
//! [`run`] is one straight line down to `serving`, and one straight line from the stop signal to the end. Each part
//! gets its own settings by value and handles of the parts it needs; no part knows this one.

pub mod config;
mod parts;
mod stop;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::config::Config;
use self::parts::Machine;
use crate::address::HostPort;
use crate::cluster::{Cluster, Presence};
use crate::docker::Docker;
use crate::events::Events;
use crate::heartbeat::{self, HeartbeatConfig};
use crate::identity::{self, IdentityConfig};
use crate::images::{Images, ImagesConfig};
use crate::kernel::labels::Owner;
use crate::kernel::notes::Notes;
use crate::kernel::{FolderChecks, Kernels, Node};
use crate::rpc;
use crate::scratch::{OutputStore, ScratchRoot};
use crate::stats::{Collector, Store, run_reporter};
use crate::telemetry::Telemetry;
use crate::wire::event::Event;

/// How long the start waits for the first list of images before it goes on without.
const FIRST_SCAN: Duration = Duration::from_secs(10);

/// How long the start waits for etcd to say `starting`.
const SAID: Duration = Duration::from_secs(1);

/// Why the agent could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The scratch root can't be used.
    #[error(transparent)]
    Scratch(#[from] crate::scratch::ScratchError),
    /// The notes below the scratch root can't be used.
    #[error("could not open the notes of kernels below {path}: {source}; check the owner and the disk")]
    Notes {
        /// The directory.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is no way to the bucket of output files.
    #[error(transparent)]
    Bucket(#[from] crate::scratch::BucketError),
    /// The RPC port.
    #[error(transparent)]
    Listen(#[from] crate::zmtp::ListenError),
    /// The metrics endpoint.
    #[error(transparent)]
    Telemetry(#[from] crate::telemetry::TelemetryError),
    /// Not at the start: something that must never end did.
    #[error("a part of the agent broke, see above; kernels run on, start the agent again")]
    Broken,
}

/// Runs the agent until `stop`, then stops it in order. An error is one of the start.
// One straight line on purpose: the order of the start is the thing to read here.
#[allow(clippy::too_many_lines)]
pub async fn run(config: Config, telemetry: &Telemetry, stop: CancellationToken) -> Result<(), StartError> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = config.cluster.namespace, "starting");
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let tracker = TaskTracker::new();
    // Cancelled at the end of the stop: ends whatever has no order of its own.
    let end = CancellationToken::new();
    let scratch = ScratchRoot::open(&config.scratch_root)?;
    let outputs = OutputStore::new(config.s3.clone())?;
    let docker = Docker::open(config.docker.clone());

    let Some(info) = stop.run_until_cancelled(parts::wait_for_docker(&docker)).await else { return Ok(()) };
    // From before the first look at the containers, so that nothing falls in between.
    let events_since = parts::unix_nanos();
    let identity = {
        let memory = Some(scratch.agent_dir().join("identity.json"));
        identity::discover(IdentityConfig { memory, ..config.identity.clone() }).await
    };
    let agent_host = config.agent_host.clone().unwrap_or_else(|| identity.ip.to_string());
    let kernel_host = config.kernel_host.clone().unwrap_or_else(|| agent_host.clone());
    let owner = Owner { namespace: config.cluster.namespace.clone(), instance: identity.instance_id.clone() };
    let notes = Notes::open(&scratch.agent_dir(), &owner)
        .map_err(|source| StartError::Notes { path: scratch.agent_dir().display().to_string(), source })?;
    tracing::info!(instance = %identity.instance_id, host = agent_host, region = identity.region, "this machine");

    let cluster = Cluster::start(config.cluster.clone(), &identity.instance_id, &end, &tracker);
    let Some(manager) = stop.run_until_cancelled(cluster.wait_for_manager()).await else {
        end.cancel();
        return Ok(());
    };
    tracing::info!(manager = manager.manager_id, "paired with the manager");
    cluster.set_presence(Presence::Starting);

    let machine = Machine::discover(&info).await;
    let images_config = ImagesConfig {
        auto_update: config.auto_update_images,
        ..ImagesConfig::with_updates(parts::wanted_images(
            &cluster,
            config.auto_update_images,
            &end,
            &tracker,
        ))
    };
    let images = Images::start(docker.clone(), images_config, end.clone(), &tracker);
    match stop.run_until_cancelled(images.first_scan(FIRST_SCAN)).await {
        None => {
            if let Err(error) = cluster.retract(FIRST_SCAN / 10).await {
                tracing::warn!(%error, "could not leave etcd");
            }
            end.cancel();
            return Ok(());
        }
        Some(Ok(())) => {}
        Some(Err(error)) => {
            tracing::warn!(%error, "going on without a list of images; kernels are refused until there is one");
        }
    }

    let event_addr =
        parts::map_watch(&cluster.settings(), &tracker, &end, |s| s.as_ref().map(|s| s.event_addr.clone()));
    let redis =
        parts::map_watch(&cluster.settings(), &tracker, &end, |s| s.as_ref().map(|s| s.redis.clone()));
    let events = Events::start(identity.instance_id.clone(), event_addr, &tracker);
    let store = Store::start(redis, end.clone(), &tracker);
    let collector = std::sync::Arc::new(Collector::new(parts::collector(&docker)));
    scratch.start_sweeper(end.clone(), &tracker);

    let kernel_tasks = TaskTracker::new();
    let detach = CancellationToken::new();
    let kernels = Kernels::new(Node {
        config: config.kernels.clone(),
        kernel_host,
        owner,
        docker: docker.clone(),
        images: images.clone(),
        resources: machine.resources.clone(),
        scratch,
        outputs,
        collector: collector.clone(),
        store: store.clone(),
        events: events.clone(),
        settings: cluster.settings(),
        notes,
        folder_checks: FolderChecks::default(),
        tracker: kernel_tasks.clone(),
        detach: detach.clone(),
    });
    let rpc = rpc::Server::bind(&format!("*:{}", config.agent_port), rpc::Limits::default())?;
    let port = rpc.port();

    // Kernels of an earlier life are taken back behind the start; requests about them wait for it.
    // Each part does its work to the agent's end; when one breaks, only a new start mends it, and kernels don't mind.
    let broken = CancellationToken::new();
    let background = |future: futures_util::future::BoxFuture<'static, ()>| {
        let (end, broken) = (end.clone(), broken.clone());
        tracker.spawn(async move {
            if AssertUnwindSafe(end.run_until_cancelled(future)).catch_unwind().await.is_err() {
                broken.cancel();
            }
        });
    };
    let registry = || kernels.clone();
    let (k, since) = (registry(), events_since);
    background(Box::pin(async move { k.recover().await }));
    let k = registry();
    background(Box::pin(async move { k.follow_events(since).await }));
    let k = registry();
    background(Box::pin(async move { k.reconcile().await }));
    let k = registry();
    background(Box::pin(async move { k.probe().await }));
    background(Box::pin(parts::advise(docker.clone())));
    let (k, every) = (registry(), config.stats_interval);
    background(Box::pin(async move { k.keep_samples(every).await }));
    let heartbeats = HeartbeatConfig {
        interval: config.heartbeat_interval,
        ip: agent_host.clone(),
        region: identity.region.clone(),
        addr: HostPort { host: agent_host.clone(), port }.endpoint(),
        totals: machine.resources.totals(),
    };
    background(Box::pin(heartbeat::beat(
        heartbeats,
        images.list(),
        kernels.docker_answers(),
        events.clone(),
    )));
    background(Box::pin(run_reporter(
        collector,
        store,
        kernels.targets(),
        config.stats_interval,
        end.clone(),
    )));

    let stop_calls = CancellationToken::new();
    let calls = TaskTracker::new();
    let serving = AssertUnwindSafe(rpc.serve(kernels.clone(), stop_calls.clone(), calls.clone()));
    let (server_broken, calls_stopped) = (broken.clone(), stop_calls.clone());
    let server = tokio::spawn(async move {
        let panicked = serving.catch_unwind().await.is_err();
        if panicked || !calls_stopped.is_cancelled() {
            server_broken.cancel();
        }
    });
    // Of what is to be said only the newest waits, and a quick start would leave `starting` out. While etcd is away
    // again, it is left out all the same.
    let starting_is_said = tokio::time::timeout(SAID, cluster.presence_published());
    let _ = stop.run_until_cancelled(starting_is_said).await;
    cluster.set_presence(Presence::Running { ip: agent_host.clone() });
    let (published, first_beat) = (cluster.clone(), events.clone());
    let starting = async move {
        // The manager learns of the agent by its first heartbeat; `instance_started` marks it alive.
        published.presence_published().await;
        first_beat.first_beat_arrived().await;
        first_beat.emit(Event::InstanceStarted);
    };
    background(Box::pin(starting));
    let readiness = parts::readiness(&kernels, &cluster, &tracker, &end);
    if let Some(addr) = config.metrics_addr {
        telemetry.serve_metrics(addr, readiness.clone(), end.clone(), &tracker).await?;
    }
    background(Box::pin(parts::measure(
        telemetry.meters(),
        kernels.clone(),
        machine.resources.clone(),
        events.clone(),
        readiness,
    )));
    tracing::info!(port, cores = machine.resources.totals().cpus, "serving");
    parts::tell_systemd(sd_notify::NotifyState::Ready);

    tokio::select! {
        () = stop.cancelled() => {}
        () = broken.cancelled() => tracing::error!("a part of the agent broke; stopping, so that it is started anew"),
    }
    parts::tell_systemd(sd_notify::NotifyState::Stopping);
    let running = stop::Running {
        cluster,
        kernels,
        kernel_tasks,
        detach,
        events,
        stop_calls,
        server,
        calls,
        end,
        tracker,
    };
    stop::stop(running, config.stop_kernels_on_exit && !broken.is_cancelled()).await;
    if broken.is_cancelled() { Err(StartError::Broken) } else { Ok(()) }
}
