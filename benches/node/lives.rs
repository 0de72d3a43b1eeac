//! Whether an agent grows with the kernels that it had, where no engine's time limits how many they are.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use crate::contender::{Contender, Usage};
use crate::figures::{Report, slope};
use crate::sized;
use crate::stub::{Stub, stub_config};
use crate::support::{Agent, new_id, secs};

/// Looks that are taken on the way, after the first lives.
const LOOKS: usize = 20;

/// Kernels that live at once.
const AT_ONCE: usize = 4;

/// How long the runtime keeps a thread that waited for a file, and a while.
const THREADS_END: Duration = secs(12);

pub(crate) async fn lives(contender: &Contender, report: &mut Report<'_>) {
    let lives = sized("BENCH_STUB_LIVES", 10_000);
    let stretch = lives.div_ceil(LOOKS);
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let agent = stub.agent(&bed).await;
    // The first ones are the agent's own beginning.
    live(&agent, stretch).await;
    tokio::time::sleep(THREADS_END).await;
    let (before, files) = (Usage::of(&agent), agent.open_files());
    let mut looks = vec![(0.0, before.pss * 1024.0)];
    for look in 1..=LOOKS {
        live(&agent, stretch).await;
        looks.push(((look * stretch) as f64, Usage::of(&agent).pss * 1024.0));
    }
    tokio::time::sleep(THREADS_END).await;
    let (after, files_after) = (Usage::of(&agent), agent.open_files());
    report.add("lives: memory before", "MiB", before.pss);
    report.add(&format!("lives: memory after {lives}"), "MiB", after.pss);
    report.add("lives: slope of the memory", "KiB/life", slope(&looks));
    report.add("lives: threads before", "", before.threads);
    report.add("lives: threads after", "", after.threads);
    report.add("lives: open files before", "", files as f64);
    report.add("lives: open files after", "", files_after as f64);
    let spent = (after.processor - before.processor) * 1e3 / (LOOKS * stretch) as f64;
    report.add("lives: agent's processor of one", "ms", spent);
}

/// So many kernels are made, run something, and are ended.
async fn live(agent: &Agent, count: usize) {
    let lives = futures_util::stream::iter(0..count).map(|_| async {
        let kernel = agent.create_with(stub_config()).await;
        let answer = kernel.execute(&new_id(), "query", "1+1", json!({})).await.expect("execute");
        assert_eq!(answer["status"], "finished", "{answer}");
        kernel.destroy().await;
    });
    lives.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}
