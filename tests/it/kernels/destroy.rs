//! `destroy_kernel` and `reset`, and the statistics that go with an end.

use std::time::UNIX_EPOCH;

use serde_json::{Value as Json, json};

use super::STATISTICS;
use crate::support::msgpack::keys;
use crate::support::{Bed, Kernel, docker, new_id, secs, until};

/// The hash of a kernel in Redis, as a JSON map of texts.
async fn record(bed: &Bed, kernel: &Kernel) -> Json {
    let lines = bed.redis.redis_cli(&["HGETALL", &kernel.id]).await;
    lines
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), json!(pair[1])))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A statistic as the manager reads it: a number, or a number's text.
fn number(value: &Json) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

#[tokio::test]
async fn the_last_statistics_are_answered_recorded_and_sent() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let commands = bed.redis.commands().await;
    let answer = kernel.destroy().await;
    assert_eq!(keys(&answer), STATISTICS);
    assert!(number(&answer["cpu_used"]) > 10.0, "milliseconds of a Python that started: {answer}");
    assert!(number(&answer["mem_max_bytes"]) > 5e6, "{answer}");
    assert!(number(&answer["mem_max_bytes"]) >= number(&answer["mem_cur_bytes"]));
    assert!(number(&answer["net_rx_bytes"]) > 0.0, "its runner was spoken to: {answer}");
    assert!(number(&answer["io_max_scratch_size"]) >= number(&answer["io_cur_scratch_size"]));

    let end = bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(end.instance, bed.instance);
    assert_eq!(end.args, json!([kernel.id, "user-requested", answer]));

    let stored = record(&bed, &kernel).await;
    assert_eq!(keys(&stored), STATISTICS);
    for name in STATISTICS {
        assert!((number(&stored[name]) - number(&answer[name])).abs() < 0.001, "{name}: {stored} {answer}");
        if name != "cpu_used" {
            let text = stored[name].as_str().unwrap();
            assert!(text.parse::<u64>().is_ok(), "Python's int() does not take {name} {text:?}");
        }
    }
    let ttl: i64 = bed.redis.redis_cli(&["TTL", &kernel.id]).await[0].parse().unwrap();
    assert!(ttl > 20 && ttl <= 30, "{ttl}");
    let sent = end.at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let written = commands.holding(&[&kernel.id, "cpu_used"]).await;
    assert!(written[0] < sent, "written at {written:?}, the event came at {sent}");

    docker::gone(&kernel.id).await;
    until("the removal of the scratch directory", secs(3), async || {
        bed.scratch_dirs().is_empty().then_some(())
    })
    .await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn statistics_of_running_kernels_are_in_redis_all_the_time() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let (one, two) = (agent.create_tiny().await, agent.create_tiny().await);
    for kernel in [&one, &two] {
        let stored = until("statistics in Redis", secs(8), async || {
            Some(record(&bed, kernel).await).filter(|stored| stored.get("cpu_used").is_some())
        })
        .await;
        assert_eq!(keys(&stored), STATISTICS);
        assert!(number(&stored["mem_max_bytes"]) > 0.0);
    }
}

#[tokio::test]
async fn destroying_again_answers_nil_and_tells_nothing_new() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    assert!(kernel.destroy().await.is_object());
    bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(kernel.destroy().await, Json::Null);
    assert_eq!(kernel.destroy().await, Json::Null);
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn two_destroys_at_once_are_one_end() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let (one, two) = tokio::join!(kernel.destroy(), kernel.destroy());
    assert!(one.is_object() || two.is_object(), "{one} {two}");
    bed.wait_end(&kernel.id, secs(5)).await;
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn destroying_an_unknown_kernel_ends_its_session() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let id = new_id();
    assert_eq!(agent.call("destroy_kernel", json!([id])).await, Ok(Json::Null));
    let end = bed.wait_end(&id, secs(5)).await;
    assert_eq!(end.args, json!([id, "already-terminated", null]));
}

#[tokio::test]
async fn a_destroyed_kernel_is_not_there_any_more() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    kernel.destroy().await;
    let error = kernel.execute("r", "query", "1", json!({})).await.expect_err("execute after destroy");
    assert!(error.text().contains(&kernel.id), "{error:?}");
    // The manager may use the id again.
    docker::gone(&kernel.id).await;
    let again = agent.call("create_kernel", json!([kernel.id, kernel.config])).await.expect("create again");
    assert_ne!(again["container_id"], kernel.created["container_id"]);
}

#[tokio::test]
async fn reset_ends_every_kernel() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernels = [agent.create_tiny().await, agent.create_tiny().await];
    assert_eq!(agent.call("reset", json!([])).await, Ok(Json::Null));
    for kernel in &kernels {
        let end = bed.wait_end(&kernel.id, secs(10)).await;
        assert_eq!(end.args[1], "agent-reset");
        docker::gone(&kernel.id).await;
    }
    for kernel in &kernels {
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
    until("empty scratch directories", secs(3), async || bed.scratch_dirs().is_empty().then_some(())).await;
    assert_eq!(agent.call("reset", json!([])).await, Ok(Json::Null), "with nothing to end");
}
