//! Many agents of one machine, against one etcd and one manager. Their engine takes no time: a thousand that ask one Docker would
//! measure Docker.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::contender::{Contender, Usage, processor_of, processor_since_all};
use crate::figures::Report;
use crate::sized;
use crate::stub::Stub;
use crate::support::ports::Port;
use crate::support::{Agent, Bed, secs, until};

/// How long the heartbeats are watched once all agents serve.
const WATCHED: Duration = secs(30);

pub(crate) async fn fleet(contender: &Contender, report: &mut Report<'_>) {
    if contender.is_python() {
        return;
    }
    let count = sized("BENCH_AGENTS", 100);
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let begun = Instant::now();
    let mut fleet: Vec<(Port, Agent)> = Vec::new();
    for number in 0..count {
        fleet.push(one(&bed, &stub, number));
    }
    let (_ports, agents): (Vec<Port>, Vec<Agent>) = fleet.into_iter().unzip();
    until("all agents of the fleet", secs(300), async || {
        (bed.manager.all("instance_started", |_| true).len() >= count).then_some(())
    })
    .await;
    report.add(&format!("fleet of {count}: started within"), "s", begun.elapsed().as_secs_f64());
    let (since, before) = (SystemTime::now(), Usage::of_all(&agents));
    let ports = [("etcd", bed.etcd.port()), ("Redis", bed.redis.port())];
    let served = ports.map(|(_, port)| server_processor(port));
    tokio::time::sleep(WATCHED).await;
    for ((name, port), before) in ports.into_iter().zip(served) {
        let percent = 100.0 * (server_processor(port) - before) / WATCHED.as_secs_f64() / count as f64;
        report.add(&format!("fleet: processor of {name} for each agent"), "% core", percent);
    }
    report.took("fleet: largest gap of heartbeats", widest_gap(&bed, since, count));
    let spent = processor_since_all(&before, &agents).as_secs_f64();
    let percent = 100.0 * spent / WATCHED.as_secs_f64() / count as f64;
    report.add("fleet: processor of each agent", "% core", percent);
    report.add("fleet: memory of all (PSS)", "MiB", Usage::of_all(&agents).pss);
}

/// Processor time in seconds of the server whose command line has this port.
fn server_processor(port: u16) -> f64 {
    let port = format!(":{port}");
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let has_port = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (line.contains("etcd") || line.contains("redis")) && line.contains(&port)
    };
    pids.filter(has_port).map(processor_of).sum()
}

fn one(bed: &Bed, stub: &Stub, number: usize) -> (Port, Agent) {
    let port = Port::lease();
    let name = format!("{}-{number}", bed.instance);
    let scratch = bed.outside().join(format!("fleet-{number}"));
    std::fs::create_dir(&scratch).unwrap();
    let agent = bed.spawn_agent(&[
        "--instance-id",
        &name,
        "--docker-host",
        &stub.host(),
        "--agent-port",
        &port.number().to_string(),
        "--scratch-root",
        &scratch.display().to_string(),
        "--socket",
        &bed.outside().join(format!("fleet-{number}.sock")).display().to_string(),
    ]);
    (port, agent)
}

/// The longest time between two heartbeats of one agent, of `count` that all must have some.
pub(crate) fn widest_gap(bed: &Bed, since: SystemTime, count: usize) -> Duration {
    let mut last: HashMap<String, SystemTime> = HashMap::new();
    let mut widest = Duration::ZERO;
    for beat in bed.manager.all("instance_heartbeat", |beat| beat.at >= since) {
        if let Some(before) = last.insert(beat.instance.clone(), beat.at) {
            widest = widest.max(beat.at.duration_since(before).unwrap_or_default());
        }
    }
    assert_eq!(last.len(), count, "an agent sent no heartbeat");
    widest
}
