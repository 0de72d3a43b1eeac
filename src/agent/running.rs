//! The agent that serves.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::halt::Stop;
use super::measure::{self, Sampled};
use super::site::Shown;
use super::{Life, StartError, fence, parts};
use crate::cluster::{Cluster, Presence};
use crate::docker::Docker;
use crate::events::Events;
use crate::heartbeat::{self, HeartbeatConfig};
use crate::ids::InstanceId;
use crate::images::{ImageList, Pulls};
use crate::kernel::{KernelNetwork, Kernels};
use crate::resources::{GpuWatch, Resources};
use crate::rpc;
use crate::scratch::DiskWatch;
use crate::stats::{Collector, Store, run_reporter};
use crate::telemetry::Meters;
use crate::wire::event::Event;

/// How long the start waits for etcd to say `starting`.
const SAID: Duration = Duration::from_secs(1);

/// What a paired agent is made of.
pub(super) struct Parts {
    pub(super) cluster: Cluster,
    pub(super) kernels: Kernels,
    /// The kernels' tasks.
    pub(super) kernel_tasks: TaskTracker,
    /// Lets kernels live on without the agent.
    pub(super) detach: CancellationToken,
    pub(super) events: Events,
    pub(super) docker: Docker,
    /// The kernels' network.
    pub(super) network: KernelNetwork,
    /// Keeps it shut.
    pub(super) fence: fence::Keeper,
    /// From when on Docker's events are of interest, in nanoseconds since 1970.
    pub(super) events_since: i64,
    pub(super) images: watch::Receiver<ImageList>,
    /// The pulls of images that go on.
    pub(super) pulls: watch::Receiver<Pulls>,
    pub(super) resources: Resources,
    /// Watches the GPUs; `None` on a machine without.
    pub(super) gpus: Option<GpuWatch>,
    pub(super) collector: Arc<Collector>,
    pub(super) store: Store,
    pub(super) heartbeat: HeartbeatConfig,
    /// This agent.
    pub(super) instance: InstanceId,
    /// From one round of statistics to the next.
    pub(super) stats_interval: Duration,
    /// Whether the stop ends all kernels.
    pub(super) stop_kernels: bool,
    /// Where the manager calls.
    pub(super) server: rpc::Server,
    /// How the agent's needs are met.
    pub(super) board: Board,
    /// Watches the disks.
    pub(super) disks: DiskWatch,
    /// What whoever looks is shown.
    pub(super) shown: Arc<Shown>,
    pub(super) meters: Meters,
    pub(super) life: Life,
}

/// An agent at work: everything that runs and has an order to stop in.
pub struct Running {
    pub(super) cluster: Cluster,
    pub(super) kernels: Kernels,
    /// The kernels' tasks.
    pub(super) kernel_tasks: TaskTracker,
    /// Lets kernels live on without the agent.
    pub(super) detach: CancellationToken,
    pub(super) events: Events,
    pub(super) docker: Docker,
    /// The kernels' network.
    pub(super) network: KernelNetwork,
    /// Ends the taking of calls.
    pub(super) stop_calls: CancellationToken,
    /// Takes calls.
    pub(super) server: JoinHandle<()>,
    /// The calls under way.
    pub(super) calls: TaskTracker,
    /// Cancelled when a task ended that must not; only a new start mends that, and kernels don't mind.
    broken: CancellationToken,
    /// Whether the stop ends all kernels.
    stop_kernels: bool,
    /// Everything without an order.
    pub(super) life: Life,
}

impl Running {
    /// Starts what the parts do by themselves, and serves. Kernels of an earlier life are taken back meanwhile; requests
    /// about them wait for it.
    pub(super) async fn start(parts: Parts, stop: &CancellationToken) -> Self {
        let Parts { cluster, kernels, events, life, server, .. } = parts;
        let broken = CancellationToken::new();
        let port = server.port();
        let (ip, cores) = (parts.heartbeat.ip.clone(), parts.resources.totals().cpus);

        let k = kernels.clone();
        life.background(&broken, async move { k.recover().await });
        let (k, since) = (kernels.clone(), parts.events_since);
        life.background(&broken, async move { k.follow_events(since).await });
        let k = kernels.clone();
        life.background(&broken, async move { k.reconcile().await });
        let k = kernels.clone();
        life.background(&broken, async move { k.probe().await });
        let k = kernels.clone();
        life.background(&broken, async move { k.sweep().await });
        life.background(&broken, fence::advise(parts.docker.clone(), parts.network.clone()));
        let keeping = parts.fence.keep(cluster.settings(), kernels.docker_answers());
        life.background(&broken, keeping);
        let (k, every) = (kernels.clone(), parts.stats_interval);
        life.background(&broken, async move { k.keep_samples(every).await });
        let board = parts.board;
        // Before the first beat: what is known of the needs is known to it.
        let troubles = (parts.store.trouble(), parts.disks.trouble());
        for following in
            parts::follow_needs(&board, &kernels, &cluster, parts.images.clone(), troubles, &events)
        {
            life.background(&broken, following);
        }
        life.background(&broken, parts.disks.run());
        let list = parts.images.clone();
        let beat = heartbeat::beat(parts.heartbeat, parts.images, board.conditions(), events.clone());
        life.background(&broken, beat);
        let (targets, end) = (kernels.targets(), life.end.clone());
        life.background(
            &broken,
            run_reporter(parts.collector, parts.store, parts.instance, targets, every, end),
        );

        let (stop_calls, calls) = (CancellationToken::new(), TaskTracker::new());
        let serving = server.serve(kernels.clone(), stop_calls.clone(), calls.clone());
        let (server_broken, calls_stopped) = (broken.clone(), stop_calls.clone());
        let server = tokio::spawn(async move {
            let panicked = AssertUnwindSafe(serving).catch_unwind().await.is_err();
            if panicked || !calls_stopped.is_cancelled() {
                server_broken.cancel();
            }
        });
        // Of what is to be said only the newest waits, and a quick start would leave `starting` out. While etcd is away
        // again, it is left out all the same.
        let starting_is_said = tokio::time::timeout(SAID, cluster.presence_published());
        let _ = stop.run_until_cancelled(starting_is_said).await;
        cluster.set_presence(Presence::Running { ip });
        let (published, first_beat) = (cluster.clone(), events.clone());
        life.background(&broken, async move {
            // The manager learns of the agent by its first heartbeat; `instance_started` marks it alive.
            published.presence_published().await;
            first_beat.first_beat_arrived().await;
            first_beat.emit(Event::InstanceStarted);
        });
        let gpu_readings = parts.gpus.as_ref().map(GpuWatch::readings);
        if let Some(gpus) = parts.gpus {
            life.background(&broken, gpus.run(parts.resources.clone(), parts::GPUS_EVERY));
        }
        let sampled = Sampled {
            kernels: kernels.clone(),
            resources: parts.resources,
            events: events.clone(),
            images: list,
            pulls: parts.pulls,
            gpus: gpu_readings,
        };
        parts.shown.has_parts(sampled.clone());
        life.background(&broken, measure::measure(parts.meters, sampled));
        tracing::info!(port, cores, "serving");
        Self {
            cluster,
            kernels,
            kernel_tasks: parts.kernel_tasks,
            detach: parts.detach,
            events,
            docker: parts.docker,
            network: parts.network,
            stop_calls,
            server,
            calls,
            broken,
            stop_kernels: parts.stop_kernels,
            life,
        }
    }

    /// Lasts until `stop`, or until a part breaks; then stops in order.
    pub async fn run(self, stop: Stop) -> Result<(), StartError> {
        tokio::select! {
            () = stop.asked.cancelled() => {}
            () = self.broken.cancelled() => {
                tracing::error!("a part of the agent broke; stopping, so that it is started anew");
            }
        }
        stop.asked.cancel();
        let is_broken = self.broken.is_cancelled();
        let stop_kernels = self.stop_kernels && !is_broken;
        self.stop(stop_kernels, &stop).await;
        if is_broken { Err(StartError::Broken) } else { Ok(()) }
    }
}

impl Life {
    /// Does something to the agent's end. When it panics, the agent is `broken`.
    fn background(&self, broken: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        let (end, broken) = (self.end.clone(), broken.clone());
        self.tracker.spawn(async move {
            if AssertUnwindSafe(end.run_until_cancelled(work)).catch_unwind().await.is_err() {
                broken.cancel();
            }
        });
    }
}
