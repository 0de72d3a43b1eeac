//! Whether an agent grows with the kernels that it had.

use crate::contender::{Contender, Usage};
use crate::figures::{Report, slope};
use crate::sized;
use crate::support::secs;

/// How many kernels live between two looks, one after the other.
const STRETCH: usize = 50;

pub(crate) async fn growth(contender: &Contender, report: &mut Report<'_>) {
    let stretches = sized("BENCH_LIVES", 500).div_ceil(STRETCH);
    let bed = contender.bed().await;
    let agent = contender.serving(&bed).await;
    let mut looks = Vec::new();
    for stretch in 0..=stretches {
        for _ in 0..STRETCH {
            agent.create_tiny().await.destroy().await;
        }
        tokio::time::sleep(secs(1)).await;
        // The first ones are the agent's own beginning.
        if stretch > 0 {
            looks.push(((stretch * STRETCH) as f64, Usage::of(&agent).pss * 1024.0));
        }
    }
    let last = looks.last().map_or(f64::NAN, |(_, pss)| pss / 1024.0);
    report.add("growth: memory after all lives", "MiB", last);
    report.add("growth: slope of the memory", "KiB/life", slope(&looks));
}
