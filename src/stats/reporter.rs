//! The beat of the statistics: collect all kernels, store them, every few seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Target};
use super::load::LoadMeter;
use super::store::Store;
use crate::ids::InstanceId;

/// Collects the targets of the moment and stores their samples and what they come to together, at once and then every `period` (5 s, PROTOCOL section
/// 6), until `cancel`. A beat that is late is left out: two in a row would tell nothing more. Failures are logged by the
/// collector and the store, which know when they began.
pub async fn run_reporter(
    collector: Arc<Collector>,
    store: Store,
    instance: InstanceId,
    targets: watch::Receiver<Arc<Vec<Target>>>,
    period: Duration,
    cancel: CancellationToken,
) {
    let mut beat = tokio::time::interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut meter = LoadMeter::new(instance);
    let report = async {
        loop {
            beat.tick().await;
            let targets = Arc::clone(&targets.borrow());
            let collected = collector.collect(&targets).await;
            let good = collected.into_iter().filter_map(|(kernel, sample)| Some((kernel, sample.ok()?)));
            let samples: Vec<_> = good.collect();
            let load = meter.next(&samples, Instant::now().into_std());
            // The next beat brings newer figures; waiting for it with these would be pointless.
            let _ = store.put(samples, Some(load), Instant::now() + period).await;
        }
    };
    let _: Option<()> = cancel.run_until_cancelled(report).await;
}
