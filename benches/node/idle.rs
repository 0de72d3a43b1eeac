//! An agent's start, and what it costs while nothing happens.

use std::time::{Duration, Instant};

use crate::contender::{Contender, Usage, processor_since};
use crate::figures::Report;
use crate::stub::Stub;
use crate::support::secs;

/// From exec to the first heartbeat and to the first event that says that it serves; then the stop.
pub(crate) async fn start(contender: &Contender, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let begun = Instant::now();
    let mut agent = contender.spawn(&bed);
    bed.wait_event("instance_heartbeat", |_| true, secs(30)).await;
    report.took("start: to the first heartbeat", begun.elapsed());
    bed.wait_event("instance_started", |_| true, secs(30)).await;
    report.took("start: to instance_started", begun.elapsed());
    // What is left of the time above is waited for: etcd, Docker, Redis, iptables.
    report.add("start: agent's processor", "ms", Usage::of(&agent).processor * 1e3);
    let begun = Instant::now();
    agent.stop().await;
    report.took("stop", begun.elapsed());
    if !contender.is_python() {
        start_beside_stub(contender, report).await;
    }
}

async fn start_beside_stub(contender: &Contender, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let begun = Instant::now();
    let _agent = bed.spawn_agent(&["--docker-host", &stub.host()]);
    bed.wait_event("instance_started", |_| true, secs(30)).await;
    report.took("start: to instance_started, beside an engine that takes no time", begun.elapsed());
}

/// Memory after a while, and processor time while nothing happens.
pub(crate) async fn idle(contender: &Contender, report: &mut Report<'_>) {
    const WHILE: Duration = secs(20);
    let bed = contender.bed().await;
    let agent = contender.serving(&bed).await;
    tokio::time::sleep(secs(5)).await;
    let before = Usage::of(&agent);
    tokio::time::sleep(WHILE).await;
    let spent = processor_since(&before, &agent);
    report.add("idle: processor", "% core", 100.0 * spent.as_secs_f64() / WHILE.as_secs_f64());
    let after = Usage::of(&agent);
    report.add("idle: memory (PSS)", "MiB", after.pss);
    report.add("idle: threads", "", after.threads);
}
