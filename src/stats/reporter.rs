//! The beat of the statistics: collect all kernels, store them, every few seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Target};
use super::store::Store;

/// Collects the targets of the moment and stores their samples, at once and then every `period` (5 s, PROTOCOL section
/// 6), until `cancel`. A beat that is late is left out: two in a row would tell nothing more. Failures are logged by the
/// collector and the store, which know when they began.
pub async fn run_reporter(
    collector: Arc<Collector>,
    store: Store,
    targets: watch::Receiver<Arc<Vec<Target>>>,
    period: Duration,
    cancel: CancellationToken,
) {
    let mut beat = tokio::time::interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let report = async {
        loop {
            beat.tick().await;
            let targets = Arc::clone(&targets.borrow());
            let collected = collector.collect(&targets).await;
            let samples =
                collected.into_iter().filter_map(|(kernel, sample)| Some((kernel, sample.ok()?))).collect();
            // The next beat brings newer figures; waiting for it with these would be pointless.
            let _ = store.put(samples, Instant::now() + period).await;
        }
    };
    let _: Option<()> = cancel.run_until_cancelled(report).await;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio_util::task::TaskTracker;

    use super::super::collector::CollectorConfig;
    use super::super::store::test_server::RedisServer;
    use super::*;
    use crate::ids::{ContainerId, KernelId};

    #[tokio::test]
    async fn samples_of_the_targets_of_the_moment_reach_redis_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/7/cgroup", "0::/docker/cafe\n");
        write("cg/docker/cafe/memory.current", "1\n");
        let config = CollectorConfig {
            proc_root: dir.path().join("proc"),
            cgroup_root: dir.path().join("cg"),
            ..CollectorConfig::default()
        };
        let redis = RedisServer::start();
        let (_address, address) = watch::channel(Some(redis.address()));
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let store = Store::start(address, cancel.clone(), &tracker);
        let (targets, receiver) = watch::channel(Arc::new(Vec::new()));
        let collector = Arc::new(Collector::new(config));
        let period = Duration::from_millis(20);
        tracker.spawn(run_reporter(collector, store, receiver, period, cancel.clone()));

        let target = |container: &str| Target {
            kernel: KernelId::random(),
            container: ContainerId::new(container),
            pid: 7,
            scratch: dir.path().join("scratch"),
        };
        let (good, gone) = (target("cafe"), target("dead"));
        targets.send_replace(Arc::new(vec![gone.clone(), good.clone()]));
        for memory in ["2", "3"] {
            write("cg/docker/cafe/memory.current", memory);
            let seen = async {
                while redis.hash(good.kernel).0.get("mem_cur_bytes").map(String::as_str) != Some(memory) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
        }
        assert!(redis.hash(gone.kernel).0.is_empty());

        cancel.cancel();
        tracker.close();
        tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.unwrap();
    }
}
