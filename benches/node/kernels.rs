//! A kernel's life beside the same life without an agent: made, first answer, warm answers, ended.

use std::time::Instant;

use serde_json::json;

use crate::contender::Contender;
use crate::figures::{Report, median};
use crate::raw::{RawKernel, model};
use crate::support::kernel::config;
use crate::support::{Agent, Kernel, docker, new_id};

const LIVES: usize = 4;
const WARM: usize = 100;
/// Creates at once, as often as [`LIVES`] where they are compared with Docker's.
const AT_ONCE: [usize; 2] = [8, 10];

pub(crate) async fn kernels(contender: &Contender, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let agent = contender.serving(&bed).await;
    let first = agent.create_python().await;
    let like = model(first.container()).await;
    for _ in 0..LIVES {
        let (raw, created) = RawKernel::like(&like).await;
        report.took("create: raw Docker", created);
        let (mut runner, answered) = raw.runner().await;
        report.took("first answer: raw runner, after its create", answered);
        let mut trips = Vec::new();
        for _ in 0..WARM {
            let begun = Instant::now();
            runner.run("1+1").await;
            trips.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        report.add("1+1, warm: raw runner", "ms", median(&trips));
        report.took("destroy: raw Docker", raw.remove().await);

        let begun = Instant::now();
        let kernel = agent.create_python().await;
        report.took("create", begun.elapsed());
        let begun = Instant::now();
        kernel.run("1+1").await;
        report.took("first answer, after the create's", begun.elapsed());
        report.add("1+1, warm", "ms", warm(&kernel).await);
        let begun = Instant::now();
        kernel.destroy().await;
        report.took("destroy", begun.elapsed());
    }
    first.destroy().await;
    let tiny = agent.create_tiny().await;
    let like = model(tiny.container()).await;
    for count in AT_ONCE {
        let (mut raw, mut own) = (Vec::new(), Vec::new());
        for _ in 0..LIVES {
            raw.extend(raw_together(&like, count).await);
            own.extend(together(&agent, count).await);
        }
        report.add(&format!("create, {count} at once: raw Docker, median"), "ms", median(&raw));
        report.add(&format!("create, {count} at once: median"), "ms", median(&own));
        report.add(&format!("create, {count} at once: raw Docker, slowest"), "ms", slowest(&raw));
        report.add(&format!("create, {count} at once: slowest"), "ms", slowest(&own));
    }
    tiny.destroy().await;
}

fn slowest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::NAN, f64::max)
}

async fn warm(kernel: &Kernel) -> f64 {
    let mut trips = Vec::new();
    for _ in 0..WARM {
        let begun = Instant::now();
        let answer = kernel.execute(&new_id(), "query", "1+1", json!({})).await.unwrap();
        trips.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(answer["status"], "finished");
    }
    median(&trips)
}

/// How long each of several creates at once takes, in milliseconds: kernels that only sleep. One that is undone because Docker took
/// longer than its caller waits counts as that long.
async fn together(agent: &Agent, count: usize) -> Vec<f64> {
    let lives = (0..count).map(|_| async {
        let (begun, id) = (Instant::now(), new_id());
        let made = agent.call("create_kernel", json!([id, tiny_config()])).await;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if made.is_ok() {
            agent.call("destroy_kernel", json!([id])).await.expect("destroy_kernel");
        }
        took
    });
    futures_util::future::join_all(lives).await
}

fn tiny_config() -> serde_json::Value {
    let mut config = config(&docker::image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config
}

/// The same of Docker alone.
async fn raw_together(like: &serde_json::Value, count: usize) -> Vec<f64> {
    let lives = (0..count).map(|_| async {
        let (raw, took) = RawKernel::like(like).await;
        raw.remove().await;
        took.as_secs_f64() * 1e3
    });
    futures_util::future::join_all(lives).await
}
