//! What a call costs that does nothing.

use std::time::{Duration, Instant};

use rmpv::Value;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::contender::{Contender, Usage, processor_since};
use crate::figures::Report;
use crate::raw::Echo;
use crate::support::msgpack::from_json;
use crate::support::rpc::Line;
use crate::support::{Agent, secs};

const ALONE: u32 = 4000;
const TOGETHER: usize = 64;
const EACH: u32 = 500;
const FRESH: u32 = 500;
const FRESH_CALLERS: u32 = 16;
const UNDER_WAY: u32 = 10_000;

pub(crate) async fn ping(contender: &Contender, report: &mut Report<'_>) {
    floor(report).await;
    let bed = contender.bed().await;
    let agent = contender.serving(&bed).await;
    let mut line = agent.rpc().connect().await;
    round_trips(&mut line, 200).await;

    let took = measured(&agent, report, "ping, one at a time", ALONE, round_trips(&mut line, ALONE)).await;
    report.add("ping, one at a time: latency", "µs", took.as_secs_f64() * 1e6 / f64::from(ALONE));

    let mut lines = Vec::new();
    for _ in 0..TOGETHER {
        lines.push(agent.rpc().connect().await);
    }
    let calls = EACH * u32::try_from(TOGETHER).unwrap();
    let all = futures_util::future::join_all(lines.iter_mut().map(|line| round_trips(line, EACH)));
    let took = measured(&agent, report, "ping, 64 connections", calls, async { drop(all.await) }).await;
    report.add("ping, 64 connections: rate", "/s", f64::from(calls) / took.as_secs_f64());

    fresh(&agent, report).await;

    let begun = Instant::now();
    let answered = under_way(&mut line).await;
    report.add("ping, 10,000 under way: rate", "/s", f64::from(answered) / begun.elapsed().as_secs_f64());
    report.add("ping, 10,000 under way: lost", "", f64::from(UNDER_WAY - answered));
}

/// A connection for each call, as the manager has it: one caller, and several at once.
async fn fresh(agent: &Agent, report: &mut Report<'_>) {
    let calls = async |count: u32| {
        for _ in 0..count {
            round_trips(&mut agent.rpc().connect().await, 1).await;
        }
    };
    let begun = Instant::now();
    calls(FRESH).await;
    report.add("ping, a connection for each: rate", "/s", f64::from(FRESH) / begun.elapsed().as_secs_f64());
    let all = FRESH * FRESH_CALLERS;
    let work = futures_util::future::join_all((0..FRESH_CALLERS).map(|_| calls(FRESH)));
    let what = format!("ping, a connection for each, {FRESH_CALLERS} callers");
    let took = measured(agent, report, &what, all, async { drop(work.await) }).await;
    report.add(&format!("{what}: rate"), "/s", f64::from(all) / took.as_secs_f64());
}

/// The same messages to and from a program that only sends them back: what the system takes for them.
async fn floor(report: &mut Report<'_>) {
    for (what, connections, each) in [("one at a time", 1, ALONE), ("64 connections", TOGETHER, EACH)] {
        let echo = Echo::start();
        let mut lines = Vec::new();
        for _ in 0..connections {
            lines.push(TcpStream::connect(echo.address).await.unwrap());
        }
        let before = echo.processor();
        futures_util::future::join_all(lines.iter_mut().map(|line| round_trips_raw(line, each))).await;
        let calls = f64::from(each) * connections as f64;
        let spent = echo.processor().saturating_sub(before).as_secs_f64() * 1e6 / calls;
        report.add(&format!("ping, {what}: raw echo's processor a call"), "µs", spent);
    }
    let echo = Echo::start();
    let (before, begun) = (echo.processor(), Instant::now());
    futures_util::future::join_all((0..FRESH_CALLERS).map(|_| async {
        for _ in 0..FRESH {
            let mut line = TcpStream::connect(echo.address).await.unwrap();
            round_trips_raw(&mut line, 1).await;
        }
    }))
    .await;
    let calls = f64::from(FRESH * FRESH_CALLERS);
    let what = format!("ping, a connection for each, {FRESH_CALLERS} callers: raw echo");
    report.add(&format!("{what}'s rate"), "/s", calls / begun.elapsed().as_secs_f64());
    let spent = echo.processor().saturating_sub(before).as_secs_f64() * 1e6 / calls;
    report.add(&format!("{what}'s processor a call"), "µs", spent);
}

async fn round_trips_raw(line: &mut TcpStream, calls: u32) {
    let mut message = [0; Echo::MESSAGE];
    for _ in 0..calls {
        line.write_all(&message).await.unwrap();
        line.read_exact(&mut message).await.unwrap();
    }
}

/// How long it took; the agent's own processor time is reported.
async fn measured(
    agent: &Agent,
    report: &mut Report<'_>,
    what: &str,
    calls: u32,
    work: impl Future<Output = ()>,
) -> Duration {
    let (before, begun) = (Usage::of(agent), Instant::now());
    work.await;
    let took = begun.elapsed();
    let spent = processor_since(&before, agent).as_secs_f64() * 1e6 / f64::from(calls);
    report.add(&format!("{what}: agent's processor a call"), "µs", spent);
    took
}

fn hello() -> (Value, Value) {
    (from_json(&json!(["hello"])), Value::Map(Vec::new()))
}

pub(crate) async fn round_trips(line: &mut Line, calls: u32) {
    let (args, kwargs) = hello();
    for _ in 0..calls {
        line.request("ping", &args, &kwargs).await;
        assert!(line.answer(secs(10)).await.is_some(), "a ping was not answered");
    }
}

async fn under_way(line: &mut Line) -> u32 {
    let (args, kwargs) = hello();
    for _ in 0..UNDER_WAY {
        line.request("ping", &args, &kwargs).await;
    }
    let mut answered = 0;
    while answered < UNDER_WAY && line.answer(secs(5)).await.is_some() {
        answered += 1;
    }
    answered
}
