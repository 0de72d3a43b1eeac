//! Runs that take no time: one after the other, and as many as users of a full node may ask for.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::contender::{Contender, Usage, processor_since};
use crate::figures::{Report, median, quantile};
use crate::raw::RawRunner;
use crate::sized;
use crate::stub::{Runner, Stub, stub_config};
use crate::support::msgpack::{from_json, to_json};
use crate::support::rpc::Line;
use crate::support::{Agent, Kernel, new_id, secs};

const WARM: usize = 1000;
const KERNELS: usize = 50;
/// From one run of a kernel to its next.
const EVERY: Duration = Duration::from_millis(10);
/// Where a runner without an agent listens.
const RAW: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 1);

pub(crate) async fn runs(contender: &Contender, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let agent = stub.agent(&bed).await;
    let kernel = agent.create_with(stub_config()).await.warm().await;
    warm(&agent, &kernel, report).await;
    kernel.destroy().await;
    together(&agent, report).await;
}

/// Over one connection, beside the runner alone.
async fn warm(agent: &Agent, kernel: &Kernel, report: &mut Report<'_>) {
    let _runner = Runner::listen(RAW);
    let mut raw = RawRunner::at(&RAW.to_string()).await;
    let mut trips = Vec::new();
    for _ in 0..WARM {
        let begun = Instant::now();
        raw.run("1+1").await;
        trips.push(milliseconds(begun.elapsed()));
    }
    report.add("stub's 1+1, warm: raw runner", "ms", median(&trips));

    let mut line = agent.rpc().connect().await;
    let (mut trips, before) = (Vec::new(), Usage::of(agent));
    for _ in 0..WARM {
        let begun = Instant::now();
        one_run(&mut line, &kernel.id).await;
        trips.push(milliseconds(begun.elapsed()));
    }
    report.add("stub's 1+1, warm", "ms", median(&trips));
    let spent = processor_since(&before, agent).as_secs_f64() * 1e6;
    report.add("stub's 1+1, warm: agent's processor a run", "µs", spent / WARM as f64);
}

/// On many kernels, at a pace that no answer slows down: each is counted from when it was due.
async fn together(agent: &Agent, report: &mut Report<'_>) {
    let each = sized("BENCH_RUNS", 1000);
    let (mut kernels, mut lines) = (Vec::new(), Vec::new());
    for _ in 0..KERNELS {
        kernels.push(agent.create_with(stub_config()).await.warm().await);
        lines.push(agent.rpc().connect().await);
    }
    let (before, begun) = (Usage::of(agent), tokio::time::Instant::now() + EVERY);
    let users = kernels.iter().zip(lines).zip(0_u32..).map(|((kernel, mut line), number)| {
        let id = kernel.id.clone();
        // Not all at one moment.
        let begun = begun + EVERY * number / u32::try_from(KERNELS).unwrap();
        tokio::spawn(async move {
            let mut trips = Vec::new();
            for run in 0..u32::try_from(each).unwrap() {
                let due = begun + EVERY * run;
                tokio::time::sleep_until(due).await;
                one_run(&mut line, &id).await;
                trips.push(milliseconds(due.elapsed()));
            }
            trips
        })
    });
    let users: Vec<_> = users.collect();
    let mut trips = Vec::new();
    for user in users {
        trips.extend(user.await.expect("a run was lost"));
    }
    let took = begun.elapsed().as_secs_f64();
    let spent = processor_since(&before, agent).as_secs_f64() * 1e6;
    let what = format!("{KERNELS} kernels, 100 runs a second each");
    report.add(&format!("{what}: answered"), "", trips.len() as f64);
    report.add(&format!("{what}: rate"), "/s", trips.len() as f64 / took);
    report.add(&format!("{what}: answer, median"), "ms", median(&trips));
    report.add(&format!("{what}: answer, p99"), "ms", quantile(&trips, 0.99));
    report.add(&format!("{what}: agent's processor a run"), "µs", spent / trips.len() as f64);
    for kernel in kernels {
        kernel.destroy().await;
    }
}

/// Panics when it is not answered, or not with its end.
async fn one_run(line: &mut Line, kernel: &str) {
    let args = json!([2, kernel, new_id(), "query", "1+1", {}]);
    line.request("execute", &from_json(&args), &from_json(&json!({}))).await;
    let answer = line.answer(secs(10)).await.expect("an answer to a run").result.expect("execute");
    let answer: Json = to_json(&answer);
    assert_eq!(
        (&answer["status"], &answer["console"][0][1]),
        (&json!("finished"), &json!("2\n")),
        "{answer}"
    );
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
