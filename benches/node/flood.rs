//! Output without end through the agent, from a runner that costs nothing itself.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::contender::{Contender, Usage, processor_since};
use crate::figures::Report;
use crate::raw::RawRunner;
use crate::sized;
use crate::stub::{Flood, Runner, Stub, stub_config};
use crate::support::msgpack::from_json;
use crate::support::{Agent, Kernel, new_id, secs};

/// What a program's prints are sent in, and what a program that copies a file is.
const RECORDS: [usize; 2] = [1000, 64 * 1024];
/// In so many bytes of an answer its status is.
const HEAD: usize = 100;
/// Kernels that flood at once.
const KERNELS: usize = 50;
/// Where a runner without an agent listens.
const RAW: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 2);

pub(crate) async fn flood(contender: &Contender, report: &mut Report<'_>) {
    let bytes = sized("BENCH_FLOOD", 4000) * 1_000_000;
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let agent = stub.agent(&bed).await;
    let kernel = agent.create_with(stub_config()).await.warm().await;
    let _runner = Runner::listen(RAW);
    let idle = Usage::of(&agent).peak;
    for record in RECORDS {
        let what = format!("flood in records of {record} bytes");
        let flood = Flood { bytes, record };
        let mut raw = RawRunner::at(&RAW.to_string()).await;
        let begun = Instant::now();
        let came = raw.run(&flood.code()).await;
        report.add(&format!("{what}: raw runner"), "MB/s", rate(came, begun));
        drop(raw);

        let (before, begun) = (Usage::of(&agent), Instant::now());
        let came = followed(&agent, &kernel, flood, None).await;
        assert!(came >= bytes, "of {bytes} bytes {came} came");
        report.add(&what, "MB/s", rate(came, begun));
        let spent = processor_since(&before, &agent).as_secs_f64() * 1e3;
        report.add(&format!("{what}: agent's processor"), "ms/MB", spent / (came as f64 / 1e6));
        report.add(&format!("{what}: peak over idle"), "MiB", Usage::of(&agent).peak - idle);
    }
    stalled(&agent, &kernel, bytes, report).await;
    report.add("flood: peak of the agent", "MiB", Usage::of(&agent).peak);
    kernel.destroy().await;
    drop(agent);
    together(contender, bytes, report).await;
}

/// Many kernels at once: in all as much output as one of them had alone, and then once more for callers that pause.
async fn together(contender: &Contender, bytes: usize, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let agent = stub.agent(&bed).await;
    let mut kernels = Vec::new();
    for _ in 0..KERNELS {
        kernels.push(agent.create_with(stub_config()).await.warm().await);
    }
    let idle = Usage::of(&agent).peak;
    let flood = Flood { bytes: bytes / KERNELS, record: 1000 };
    let begun = Instant::now();
    let all = kernels.iter().map(|kernel| followed(&agent, kernel, flood, None));
    let came: usize = futures_util::future::join_all(all).await.into_iter().sum();
    assert!(came >= flood.bytes * KERNELS, "of {} bytes {came} came", flood.bytes * KERNELS);
    let what = format!("flood of {KERNELS} kernels");
    report.add(&what, "MB/s", rate(came, begun));
    report.add(&format!("{what}: peak over idle"), "MiB", Usage::of(&agent).peak - idle);
    let all = kernels.iter().map(|kernel| followed(&agent, kernel, flood, Some(secs(5))));
    futures_util::future::join_all(all).await;
    report.add(&format!("{what}, their callers pause: peak over idle"), "MiB", Usage::of(&agent).peak - idle);
}

/// A caller that stops for a while: it asks for nothing, and later asks and reads no answer.
async fn stalled(agent: &Agent, kernel: &Kernel, bytes: usize, report: &mut Report<'_>) {
    let idle = Usage::of(agent).peak;
    let flood = Flood { bytes: bytes / 4, record: 1000 };
    let came = followed(agent, kernel, flood, Some(secs(3))).await;
    assert!(came >= flood.bytes, "of {} bytes {came} came", flood.bytes);
    report.add("flood, its caller pauses: further peak", "MiB", Usage::of(agent).peak - idle);
}

/// Follows a run to its end as the manager does, a connection for each call. How many bytes its answers had. With a `pause`, there is one of
/// that length before the third call, and one before the answer to the fourth is read.
async fn followed(agent: &Agent, kernel: &Kernel, flood: Flood, pause: Option<Duration>) -> usize {
    let (run, mut code, mut mode, mut came) = (new_id(), flood.code(), "query", 0);
    for call in 1.. {
        if let Some(pause) = pause.filter(|_| call == 3) {
            tokio::time::sleep(pause).await;
        }
        let args = from_json(&json!([2, kernel.id, run, mode, code, {}]));
        let mut line = agent.rpc().connect().await;
        line.request("execute", &args, &from_json(&json!({}))).await;
        if let Some(pause) = pause.filter(|_| call == 4) {
            tokio::time::sleep(pause).await;
        }
        let frames = line.frames(secs(30)).await.expect("an answer");
        let [_, body] = &frames[..] else { panic!("{} frames", frames.len()) };
        // Not taken apart: what that takes is the caller's own. The map begins with the run's id and how it stands.
        came += body.len();
        let head = String::from_utf8_lossy(&body[..body.len().min(HEAD)]);
        if head.contains("finished") {
            break;
        }
        assert!(head.contains("continued"), "{head}");
        (code, mode) = (String::new(), "continue");
    }
    came
}

fn rate(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}
