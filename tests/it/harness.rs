//! The bed itself: a fault that it injects must be one, or the tests that build on it prove nothing.

use std::time::Duration;

use serde_json::json;

use crate::support::{Bed, secs, until};

#[tokio::test]
async fn services_come_back_with_their_data_or_without() {
    let mut bed = Bed::without_manager().await;
    bed.etcd.etcdctl(&["put", "a", "kept"]).await;
    bed.redis.redis_cli(&["SET", "a", "kept"]).await;
    bed.etcd.kill();
    bed.redis.kill();
    bed.etcd.restart().await;
    bed.redis.restart().await;
    assert_eq!(bed.etcd.etcdctl(&["get", "a"]).await, "a\nkept\n");
    assert_eq!(bed.redis.redis_cli(&["GET", "a"]).await, ["kept"]);
    bed.etcd.kill();
    bed.etcd.lose_data();
    bed.etcd.restart().await;
    bed.redis.kill();
    bed.redis.lose_data();
    bed.redis.restart().await;
    assert_eq!(bed.etcd.etcdctl(&["get", "a"]).await, "");
    assert_eq!(bed.redis.redis_cli(&["EXISTS", "a"]).await, ["0"]);
}

#[tokio::test]
async fn a_frozen_service_answers_after_it_thaws() {
    let bed = Bed::without_manager().await;
    for service in [&bed.etcd, &bed.redis] {
        service.pause().await;
        let frozen = tokio::time::timeout(Duration::from_millis(200), service.ready()).await;
        assert!(frozen.is_err(), "a frozen service answered");
        service.resume();
        service.ready().await;
    }
}

#[tokio::test]
async fn an_agent_that_stands_still_goes_on_later() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    agent.pause().await;
    let mut line = tokio::time::timeout(secs(1), agent.rpc().connect()).await.ok();
    assert!(line.is_none(), "a stopped agent shook hands");
    agent.resume();
    line = Some(agent.rpc().connect().await);
    let args = crate::support::msgpack::from_json(&json!(["x"]));
    let mut line = line.unwrap();
    line.request("ping", &args, &rmpv::Value::Map(vec![])).await;
    assert!(line.answer(secs(2)).await.is_some());
    assert!(agent.memory_kib() > 1000 && agent.open_files() > 5);
    agent.kill9();
    assert!(!agent.is_alive());
}

#[tokio::test]
async fn a_manager_that_was_away_is_found_again() {
    let mut bed = Bed::start().await;
    let _agent = bed.agent(&[]).await;
    bed.manager.down();
    let silent = bed.manager.events().len();
    bed.manager.up();
    until("an event after the manager came back", secs(8), async || {
        (bed.manager.events().len() > silent).then_some(())
    })
    .await;
}
