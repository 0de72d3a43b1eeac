//! etcd and Redis die, freeze and come back.

use std::time::SystemTime;

use super::{PATIENT, lengths};
use crate::support::vitals::{Vitals, heartbeats_were_on_time};
use crate::support::{Agent, Bed, secs, until};

/// A kernel can be made and ended, whatever is away.
async fn kernels_work(bed: &Bed, agent: &Agent) {
    let kernel = agent.create_tiny().await;
    kernel.destroy().await;
    bed.wait_end(&kernel.id, secs(10)).await;
    assert_eq!(bed.ends(agent, &kernel.id).await.len(), 1);
}

async fn presence_is_back(bed: &Bed) {
    let key = bed.presence_key();
    let expected = [key.clone(), "running".to_owned(), key + "/ip", "127.0.0.1".to_owned()];
    until("the agent's presence in etcd", secs(10), async || {
        (bed.presence().await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn etcd_dies_and_comes_back() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&PATIENT).await;
    for length in lengths() {
        let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
        bed.etcd.kill();
        kernels_work(&bed, &agent).await;
        tokio::time::sleep(length).await;
        bed.etcd.restart().await;
        presence_is_back(&bed).await;
        // Followed again: the manager's new address is found.
        bed.manager.move_away();
        let moved = bed.manager.events().len();
        bed.publish(&["nodes/manager/event_addr"]).await;
        until("an event at the manager's new address", secs(10), async || {
            (bed.manager.events().len() > moved).then_some(())
        })
        .await;
        heartbeats_were_on_time(&bed, since);
        vitals.check(&agent, 40);
        assert!(agent.is_alive());
    }
}

#[tokio::test]
async fn etcd_comes_back_without_its_data() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&PATIENT).await;
    let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
    bed.etcd.kill();
    bed.etcd.lose_data();
    bed.etcd.restart().await;
    presence_is_back(&bed).await;
    // The manager is not back yet: what it said before stays in use.
    kernels_work(&bed, &agent).await;
    bed.publish(&["nodes/redis", "nodes/manager/event_addr", "nodes/manager"]).await;
    kernels_work(&bed, &agent).await;
    heartbeats_were_on_time(&bed, since);
    vitals.check(&agent, 50);
    assert!(agent.is_alive());
}

#[tokio::test]
async fn etcd_forgets_its_history() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&PATIENT).await;
    bed.etcd.pause().await;
    tokio::time::sleep(secs(3)).await;
    bed.etcd.resume();
    for round in 0..50 {
        bed.etcd.etcdctl(&["put", "round", &round.to_string()]).await;
    }
    bed.etcd.etcdctl(&["compact", "50"]).await;
    bed.etcd.kill();
    bed.etcd.restart().await;
    bed.etcd.etcdctl(&["del", "--prefix", &bed.presence_key()]).await;
    presence_is_back(&bed).await;
    kernels_work(&bed, &agent).await;
    assert!(agent.is_alive());
}

#[tokio::test]
async fn redis_dies_and_comes_back() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&[&PATIENT[..], &["--stats-interval", "1"]].concat()).await;
    let kernel = agent.create_tiny().await;
    for length in lengths() {
        let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
        bed.redis.kill();
        bed.redis.lose_data();
        kernels_work(&bed, &agent).await;
        tokio::time::sleep(length).await;
        bed.redis.restart().await;
        until("statistics in Redis again", secs(10), async || {
            (bed.redis.redis_cli(&["EXISTS", &kernel.id]).await == ["1"]).then_some(())
        })
        .await;
        heartbeats_were_on_time(&bed, since);
        vitals.check(&agent, 30);
    }
    assert!(agent.is_alive());
}

#[tokio::test]
async fn redis_freezes_and_thaws() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[&PATIENT[..], &["--stats-interval", "1"]].concat()).await;
    let kernel = agent.create_tiny().await;
    let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
    bed.redis.pause().await;
    // Its last statistics can't get to Redis; the answer and the event carry them.
    kernels_work(&bed, &agent).await;
    bed.redis.resume();
    until("statistics in Redis again", secs(10), async || {
        (bed.redis.redis_cli(&["EXISTS", &kernel.id]).await == ["1"]).then_some(())
    })
    .await;
    heartbeats_were_on_time(&bed, since);
    vitals.check(&agent, 30);
    assert!(agent.is_alive());
}
