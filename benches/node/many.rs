//! What kernels cost while they do nothing: memory, processor time, and a start of the agent that finds them.

use std::time::{Duration, Instant};

use backendai_agent::ids::ContainerId;
use backendai_agent::rooms::stats::{Collector, CollectorConfig, RedisAccess, Store, Target};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::contender::{Contender, Usage, processor_of, processor_since};
use crate::figures::Report;
use crate::sized;
use crate::support::{Agent, Bed, Kernel, docker, secs};

/// How many kernels are made or ended at a time.
const AT_ONCE: usize = 4;

pub(crate) async fn many(contender: &Contender, report: &mut Report<'_>) {
    let count = sized("BENCH_KERNELS", 200);
    let bed = contender.bed().await;
    let mut agent = contender.serving(&bed).await;
    tokio::time::sleep(secs(5)).await;
    let before = Usage::of(&agent);
    // With runners: where none listens, the agent tries to connect again and again.
    let kernels = futures_util::stream::iter(0..count).map(|_| agent.create_python());
    let kernels: Vec<Kernel> = kernels.buffer_unordered(AT_ONCE).collect().await;
    tokio::time::sleep(secs(10)).await;
    let each = (Usage::of(&agent).pss - before.pss) / count as f64;
    report.add(&format!("memory of each of {count} kernels"), "KiB", each * 1024.0);
    quiet(&agent, count, report).await;
    if !contender.is_python() {
        samples(&bed, &kernels, report).await;
        restart(contender, &bed, &mut agent, count, report).await;
    }
    let ends = futures_util::stream::iter(&kernels).map(Kernel::destroy);
    ends.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// Statistics are most of it, each five seconds.
async fn quiet(agent: &Agent, count: usize, report: &mut Report<'_>) {
    const CYCLES: u32 = 6;
    let before = Usage::of(agent);
    tokio::time::sleep(secs(5) * CYCLES).await;
    let spent = processor_since(&before, agent);
    let seconds = f64::from(5 * CYCLES);
    report.add(&format!("{count} kernels: processor"), "% core", 100.0 * spent.as_secs_f64() / seconds);
    report.took(&format!("{count} kernels: processor of 5 s"), spent / CYCLES);
    let samples = u32::try_from(count).unwrap() * CYCLES;
    report.took("processor for a kernel and 5 s", spent / samples);
}

/// The agent's own reading of the kernels' figures and their way to Redis, in this process and without all else that an agent does.
async fn samples(bed: &Bed, kernels: &[Kernel], report: &mut Report<'_>) {
    const CYCLES: u32 = 10;
    let mut targets = Vec::new();
    for kernel in kernels {
        let found = docker::inspect(kernel.container()).await;
        targets.push(Target {
            kernel: kernel.id.parse().unwrap(),
            container: ContainerId::new(found["Id"].as_str().unwrap()),
            pid: found["State"]["Pid"].as_u64().unwrap().try_into().unwrap(),
            scratch: bed.scratch().join(&kernel.id),
        });
    }
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let redis = watch::Sender::new(Some(format!("127.0.0.1:{}", bed.redis.port()).parse().unwrap()));
    let store = Store::start(redis.subscribe(), RedisAccess::default(), cancel.clone(), &tracker);
    let collector = Collector::new(CollectorConfig::default());
    let cycle = async || {
        let collected = collector.collect(&targets).await;
        let samples: Vec<_> =
            collected.into_iter().map(|(kernel, sample)| (kernel, sample.unwrap())).collect();
        let deadline = tokio::time::Instant::now() + secs(5);
        store.put(samples, None, deadline).await.unwrap();
    };
    cycle().await;
    let before = processor_of(std::process::id());
    for _ in 0..CYCLES {
        cycle().await;
    }
    let spent = Duration::from_secs_f64(processor_of(std::process::id()) - before);
    report.took("processor for a kernel and sample", spent / CYCLES / u32::try_from(kernels.len()).unwrap());
    cancel.cancel();
}

/// The agent is killed, and a new one takes the kernels back.
async fn restart(contender: &Contender, bed: &Bed, agent: &mut Agent, count: usize, report: &mut Report<'_>) {
    agent.kill9();
    agent.wait(secs(5)).await;
    let started = bed.manager.all("instance_started", |_| true).len() + 1;
    let begun = Instant::now();
    *agent = contender.spawn(bed);
    let mut line = agent.rpc().connect().await;
    crate::ping::round_trips(&mut line, 1).await;
    report.took(&format!("start with {count} kernels: to the first ping"), begun.elapsed());
    bed.manager.wait("instance_started", started, |_| true, secs(60)).await;
    report.took(&format!("start with {count} kernels: to instance_started"), begun.elapsed());
    // An answer about a kernel waits until all are known.
    let known = agent.rpc().call("get_logs", serde_json::json!([crate::support::new_id()]), secs(60)).await;
    assert!(known.is_err(), "a kernel that nobody made has a log");
    report.took(&format!("start with {count} kernels: all known"), begun.elapsed());
}
