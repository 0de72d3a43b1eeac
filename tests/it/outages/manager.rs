//! The manager's event socket goes away and comes back, here or elsewhere.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{PATIENT, kernel_events, lengths};
use crate::support::docker;
use crate::support::vitals::{LONGEST_GAP, Vitals, heartbeats_were_on_time};
use crate::support::{Agent, Bed, Kernel, new_id, secs};

/// Makes and ends kernels while nobody listens; gives the events that this must have caused, in order, and the
/// kernel that is left.
async fn busy(agent: &Agent, old: Kernel) -> (Vec<(String, String)>, Kernel) {
    let mut expected = Vec::new();
    let mut event = |name: &str, kernel: &Kernel| expected.push((name.to_owned(), kernel.id.clone()));
    old.destroy().await;
    event("kernel_terminated", &old);
    let (one, two) = (agent.create_tiny().await, agent.create_tiny().await);
    event("kernel_creating", &one);
    event("kernel_creating", &two);
    two.destroy().await;
    event("kernel_terminated", &two);
    one.call("restart_kernel", json!([{}])).await.expect("restart_kernel");
    event("kernel_creating", &one);
    (expected, one)
}

async fn away(length: Duration, moves: bool) {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&PATIENT).await;
    let old = agent.create_tiny().await;
    // An event that was handed to a connection which then breaks is gone: that is ZeroMQ's bargain.
    bed.wait_event("kernel_creating", |event| event.args[0] == old.id.as_str(), secs(5)).await;
    let vitals = Vitals::of(&agent);
    bed.manager.down();
    let heard = bed.manager.events().len();
    let (expected, left) = busy(&agent, old).await;
    tokio::time::sleep(length).await;
    let back = SystemTime::now();
    if moves {
        bed.manager.move_away();
        bed.publish(&["nodes/manager/event_addr"]).await;
    } else {
        bed.manager.up();
    }
    let beat = bed.wait_event("instance_heartbeat", |event| event.at >= back, LONGEST_GAP).await;
    // The end of the last kernel comes behind everything that waited.
    left.destroy().await;
    bed.wait_end(&left.id, secs(5)).await;
    let mut arrived = kernel_events(&bed, heard);
    assert_eq!(arrived.pop(), Some(("kernel_terminated".to_owned(), left.id.clone())));
    assert_eq!(arrived, expected);
    let beats = bed.manager.all("instance_heartbeat", |event| {
        event.at >= beat.at && event.at < beat.at + Duration::from_millis(200)
    });
    // The newest of those that waited, and perhaps one whose time has just come.
    assert!(beats.len() <= 2, "{} old heartbeats came along", beats.len() - 1);
    heartbeats_were_on_time(&bed, back);
    vitals.check(&agent, 40);
    assert!(agent.is_alive());
}

#[tokio::test]
async fn what_waited_for_the_manager_arrives_in_order() {
    for length in lengths() {
        away(length, false).await;
    }
}

#[tokio::test]
async fn what_waited_follows_the_manager_to_its_new_address() {
    for length in lengths() {
        away(length, true).await;
    }
}

#[tokio::test]
async fn everything_goes_at_once() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&PATIENT).await;
    let old = agent.create_tiny().await;
    bed.wait_event("kernel_creating", |event| event.args[0] == old.id.as_str(), secs(5)).await;
    for length in lengths() {
        let vitals = Vitals::of(&agent);
        bed.manager.down();
        bed.etcd.kill();
        bed.redis.kill();
        let heard = bed.manager.events().len();
        let kernel = agent.create_tiny().await;
        let (expected, left) = busy(&agent, kernel).await;
        tokio::time::sleep(length).await;
        let back = SystemTime::now();
        bed.etcd.restart().await;
        bed.redis.restart().await;
        bed.manager.move_away();
        bed.publish(&["nodes/manager/event_addr"]).await;
        bed.wait_event("instance_heartbeat", |event| event.at >= back, secs(10)).await;
        left.destroy().await;
        bed.wait_end(&left.id, secs(5)).await;
        let arrived = kernel_events(&bed, heard);
        assert_eq!(&arrived[1..arrived.len() - 1], expected);
        vitals.check(&agent, 60);
    }
    assert_eq!(bed.ends(&agent, &old.id).await.len(), 0);
    assert!(agent.is_alive());
}

/// Ends that wait for the manager survive a crash of the agent, also that of a kernel it never knew.
#[tokio::test]
async fn ends_that_wait_survive_a_crash() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&PATIENT).await;
    let (destroyed, died) = (agent.create_tiny().await, agent.create_tiny().await);
    let unknown = new_id();
    bed.wait_event("kernel_creating", |event| event.args[0] == died.id.as_str(), secs(5)).await;
    bed.manager.down();
    docker::docker(&["kill", died.container()]).await;
    docker::gone(&died.id).await;
    destroyed.destroy().await;
    agent.call("destroy_kernel", json!([unknown])).await.unwrap();
    agent.kill9();
    drop(agent);
    bed.manager.up();
    let agent = bed.agent(&PATIENT).await;
    for (id, reason) in
        [(&destroyed.id, "user-requested"), (&died.id, "self-terminated"), (&unknown, "already-terminated")]
    {
        assert_eq!(bed.wait_end(id, secs(5)).await.args[1], reason);
        agent.call("destroy_kernel", json!([id])).await.unwrap();
        assert_eq!(bed.ends(&agent, id).await.len(), 1);
    }
    // The statistics were kept, too: the manager bills from them.
    assert!(bed.wait_end(&destroyed.id, secs(1)).await.args[2].is_object());
}

/// The manager bills from Redis when it hears of an end, and the figures there expire after 30 s.
#[tokio::test]
async fn statistics_are_in_redis_however_late_an_end_is_heard() {
    let mut bed = Bed::start().await;
    let agent = bed.agent(&PATIENT).await;
    let kernel = agent.create_tiny().await;
    bed.wait_event("kernel_creating", |event| event.args[0] == kernel.id.as_str(), secs(5)).await;
    bed.manager.down();
    assert!(kernel.destroy().await.is_object());
    // As the expiry would, which takes longer than a test should.
    tokio::time::sleep(secs(11)).await;
    bed.redis.redis_cli(&["DEL", &kernel.id]).await;
    bed.manager.up();
    bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(bed.redis.redis_cli(&["HEXISTS", &kernel.id, "cpu_used"]).await, ["1"]);
}
