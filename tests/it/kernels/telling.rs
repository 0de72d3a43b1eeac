//! The telling of an end: what is done before the event leaves, and who may give up meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::support::docker;
use crate::support::msgpack::from_json;
use crate::support::{Agent, Bed, new_id, secs, until};

/// Longer than last statistics stay in Redis without being put there again.
const LONG: Duration = Duration::from_secs(11);

/// Redis hangs in the moment in which an event that has waited for long may leave: its statistics have expired, or may at
/// any moment, and the manager bills from them when it hears of the end.
#[tokio::test]
async fn an_event_that_waited_leaves_after_its_statistics_although_redis_hangs_for_seconds() {
    let mut bed = Bed::start().await;
    let agent = bed.agent(&["--stats-interval", "20"]).await;
    let kernel = agent.create_tiny().await;
    bed.manager.down();
    assert!(kernel.destroy().await.is_object());
    tokio::time::sleep(LONG).await;
    let commands = bed.redis.commands().await;
    bed.redis.pause().await;
    bed.manager.up();
    // The agent connects again within 2 s; the bug was an event 1 s after that, and statistics after Redis's answer.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert!(bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id).is_empty());
    bed.redis.resume();
    let end = bed.wait_end(&kernel.id, secs(5)).await;
    let sent = end.at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let written = commands.holding(&[&kernel.id, "cpu_used"]).await;
    assert!(written[0] < sent, "written at {written:?}, the event came at {sent}");
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    assert!(!agent.output().contains("check the disk"), "{}", agent.output());
}

/// Redis never answers: many ends are told all the same, with their statistics, and soon.
#[tokio::test]
async fn events_leave_within_a_bounded_time_when_redis_hangs_for_good() {
    let mut bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut kernels = Vec::new();
    for _ in 0..4 {
        kernels.push(agent.create_tiny().await);
    }
    bed.manager.down();
    for kernel in &kernels {
        kernel.destroy().await;
    }
    tokio::time::sleep(LONG).await;
    bed.redis.pause().await;
    bed.manager.up();
    let begun = SystemTime::now();
    for kernel in &kernels {
        let end = bed.wait_end(&kernel.id, secs(15)).await;
        assert!(end.args[2]["cpu_used"].is_number(), "{:?}", end.args);
        let after = end.at.duration_since(begun).unwrap_or_default();
        assert!(after < secs(9), "told {after:?} after the manager was back: each waited for Redis");
    }
    assert!(agent.output().contains("last statistics are not in Redis"), "{}", agent.output());
    assert!(!agent.output().contains("check the disk"), "{}", agent.output());
    bed.redis.resume();
    for kernel in &kernels {
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
}

async fn ask_and_hang_up(agent: &Agent, id: &str) {
    let mut line = agent.rpc().connect().await;
    line.request("destroy_kernel", &from_json(&json!([id])), &from_json(&json!({}))).await;
}

#[tokio::test]
async fn an_end_is_told_although_whoever_asked_for_it_hung_up() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut ids: Vec<String> = (0..8).map(|_| new_id()).collect();
    for _ in 0..2 {
        ids.push(agent.create_tiny().await.id);
    }
    // So that it takes a while.
    bed.redis.pause().await;
    for id in &ids {
        ask_and_hang_up(&agent, id).await;
    }
    bed.redis.resume();
    for id in &ids {
        until("the journal's entry", secs(10), async || {
            bed.scratch().join(".agent/endings").join(format!("{id}.json")).exists().then_some(())
        })
        .await;
        // The second finds the first out.
        agent.call("destroy_kernel", json!([id])).await.unwrap();
        bed.wait_end(id, secs(10)).await;
        assert_eq!(bed.ends(&agent, id).await.len(), 1);
    }
}

/// The manager never asks for the end of a session that it knows to be over: asked so late, it has not heard.
#[tokio::test]
async fn a_destroy_that_comes_a_minute_after_the_event_is_told_again_with_the_truth() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--idle-timeout", "1", "--stats-interval", "1"]).await;
    let kernel = agent.create_tiny().await;
    let end = bed.wait_end(&kernel.id, secs(10)).await;
    docker::gone(&kernel.id).await;
    assert_eq!(kernel.destroy().await, Json::Null, "the request and the event may have crossed");
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    agent.stop().await;
    let path = bed.scratch().join(".agent/endings").join(format!("{}.json", kernel.id));
    let mut entry: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    entry["told_at"] = json!(entry["told_at"].as_u64().expect("it was told") - 61);
    std::fs::write(&path, entry.to_string()).unwrap();
    let agent = bed.agent(&[]).await;
    assert_eq!(kernel.destroy().await, end.args[2]);
    assert_eq!(kernel.destroy().await, Json::Null);
    let ends = bed.ends(&agent, &kernel.id).await;
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[1].args, end.args, "the true reason and statistics");
}
