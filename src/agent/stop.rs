//! The stop, step by step, each with its own limit and log line.

use std::time::Duration;

use tokio::time::timeout;

use super::halt::{Stop, WITH_KERNELS};
use super::running::Running;
use super::{fence, machine, systemd};
use crate::wire::event::{EndReason, Event, StopReason};

/// How long leaving etcd may take.
const LEAVE: Duration = Duration::from_secs(1);
/// How long kernels may take to end, when they are to.
const END_KERNELS: Duration = Duration::from_secs(30);
/// How long removing the kernels' network may take.
const REMOVE_NETWORK: Duration = Duration::from_secs(5);
/// More than all that comes after them takes, the last log lines included.
const AFTER_KERNELS: Duration = Duration::from_secs(20);
/// Whoever limits the whole stop has to leave them this.
const _: () = assert!(END_KERNELS.as_secs() + AFTER_KERNELS.as_secs() < WITH_KERNELS.as_secs());
/// How long kernel tasks may take to let go; what is in the middle of an end is finished by the next start.
const DETACH: Duration = Duration::from_millis(1500);
/// How long the calls under way may take to be answered.
const ANSWER: Duration = Duration::from_millis(500);
/// How long events that wait may take to leave; those that do not are in the journal.
const DRAIN: Duration = Duration::from_secs(1);
/// How long everything else may take to end.
const REST: Duration = Duration::from_millis(500);

impl Running {
    /// Stops everything; `stop_kernels` ends the kernels, too, and so does a machine that is going down.
    pub(super) async fn stop(self, stop_kernels: bool, stop: &Stop) {
        let Self {
            cluster,
            kernels,
            kernel_tasks,
            detach,
            events,
            stop_calls,
            server,
            calls,
            life,
            docker,
            network,
            ..
        } = self;
        let (left, machine_goes_down) = tokio::join!(cluster.retract(LEAVE), machine::is_going_down());
        // Kernels don't outlive the machine. Ended now, they are billed and told, and it does not wait for them later.
        let stop_kernels = stop_kernels || machine_goes_down;
        tracing::info!(kernels = kernels.count(), stop_kernels, machine_goes_down, "stopping");
        if let Err(error) = left {
            tracing::warn!(%error, "could not leave etcd; the manager sees this agent until its heartbeats stop");
        }
        stop_calls.cancel();
        let reason = if stop_kernels {
            stop.ends_kernels.cancel();
            systemd::stop_takes(END_KERNELS + AFTER_KERNELS);
            let count = kernels.end_all(EndReason::AgentTermination);
            let gone = async {
                // What the recovery still finds is ended by it; the sender lives as long as the registry.
                let _ = kernels.recovered().wait_for(|done| *done).await;
                while kernels.count() > 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            if timeout(END_KERNELS, gone).await.is_err() {
                tracing::warn!(
                    left = kernels.count(),
                    "kernels did not end in time; the next start ends them"
                );
            } else {
                tracing::info!(kernels = count, "all kernels are ended");
                let taken_down = fence::take_down(&docker, &network);
                if timeout(REMOVE_NETWORK, taken_down).await.is_err() {
                    tracing::warn!(
                        network = network.name(),
                        "Docker did not remove the kernels' network in time"
                    );
                }
            }
            StopReason::Shutdown
        } else {
            StopReason::AgentRestart
        };
        detach.cancel();
        kernel_tasks.close();
        calls.close();
        if timeout(ANSWER, async { (calls.wait().await, server.await).1 }).await.is_err() {
            tracing::warn!(calls = calls.len(), "calls were not answered in time");
        }
        if timeout(DETACH, kernel_tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = kernel_tasks.len(),
                "kernels were in the middle of something; the next start finishes it"
            );
        }
        events.emit(Event::InstanceTerminated(reason));
        let unsent = events.close(DRAIN).await;
        if unsent > 0 {
            tracing::warn!(unsent, "events did not leave; those of ended kernels are told at the next start");
        }
        life.end.cancel();
        life.tracker.close();
        // Of the kernels' tasks those that note which ends have just been told.
        let rest = async { tokio::join!(life.tracker.wait(), kernel_tasks.wait()) };
        if timeout(REST, rest).await.is_err() {
            let tasks = life.tracker.len() + kernel_tasks.len();
            tracing::debug!(tasks, "tasks did not end in time");
        }
        tracing::info!(reason = reason.as_str(), "stopped");
    }
}
