//! What the manager would not hear, by what its 1.3.12 does: it rolls a create back when it gives up on it, and it ignores the
//! end of a kernel whose create it has not committed or whose restart it has not seen the end of.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::support::docker::{self, docker, image};
use crate::support::engine::{Engine, Fails};
use crate::support::msgpack::from_json;
use crate::support::{Agent, Bed, kernel, new_id, secs, until};

/// What the manager gets to write an answer down, less what clocks may be apart.
const SETTLED: Duration = Duration::from_millis(900);

/// Asks for a kernel and hangs up once the agent has begun to make it.
async fn ask_and_leave(bed: &Bed, agent: &Agent) -> String {
    let id = new_id();
    let mut line = agent.rpc().connect().await;
    let args = from_json(&json!([id, kernel::config(&image::tiny())]));
    line.request("create_kernel", &args, &from_json(&json!({}))).await;
    let note = bed.scratch().join(".agent/kernels").join(format!("{id}.json"));
    until("the kernel's note", secs(5), async || note.exists().then_some(())).await;
    id
}

async fn nothing_is_left(bed: &Bed, agent: &Agent, id: &str) {
    let note = bed.scratch().join(".agent/kernels").join(format!("{id}.json"));
    until("the end of its traces", secs(10), async || {
        let containers = docker::containers_named(id).await;
        (containers.is_empty() && !note.exists() && bed.scratch_dirs().is_empty()).then_some(())
    })
    .await;
    assert_eq!(bed.ends(agent, id).await.len(), 0, "nobody knows of it");
}

#[tokio::test]
async fn a_create_whose_asker_left_is_undone() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--create-deadline", "0"]).await;
    let first = agent.create_tiny().await;
    first.destroy().await;
    for _ in 0..3 {
        let id = ask_and_leave(&bed, &agent).await;
        nothing_is_left(&bed, &agent, &id).await;
    }
    let last = agent.create_tiny().await;
    assert_eq!(last.created["cpu_set"], first.created["cpu_set"], "cores are still taken");
}

#[tokio::test]
async fn a_create_whose_asker_left_while_docker_hung_is_undone() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host(), "--create-deadline", "0"]).await;
    // Once this works, the agent has heard from Docker what there is.
    agent.create_tiny().await.destroy().await;
    engine.hang();
    let id = ask_and_leave(&bed, &agent).await;
    engine.pass();
    nothing_is_left(&bed, &agent, &id).await;
}

#[tokio::test]
async fn an_end_right_after_the_create_waits_until_the_manager_knows_the_kernel() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    docker(&["kill", kernel.container()]).await;
    let end = bed.wait_end(&kernel.id, secs(5)).await;
    let after = end.at.duration_since(kernel.created_at).unwrap();
    assert!(after >= SETTLED, "told {after:?} after the answer");
    // A kernel that the manager wants destroyed is known to it.
    let kernel = agent.create_tiny().await;
    docker(&["kill", kernel.container()]).await;
    docker::gone(&kernel.id).await;
    kernel.destroy().await;
    bed.wait_end(&kernel.id, Duration::from_millis(500)).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn the_end_after_a_failed_restart_waits_until_the_manager_has_its_answer() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let kernel = agent.create_tiny().await;
    engine.fail("POST", "/start", Fails::Before, 1);
    kernel.call("restart_kernel", json!([{}])).await.expect_err("the restart fails");
    let answered = SystemTime::now();
    let end = bed.wait_end(&kernel.id, secs(5)).await;
    let after = end.at.duration_since(answered).unwrap();
    assert!(after >= SETTLED, "told {after:?} after the answer");
    assert_eq!(end.args[1], "self-terminated");
}

#[tokio::test]
async fn an_end_that_met_a_restart_is_told_again_when_the_manager_asks_for_it() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    docker(&["kill", kernel.container()]).await;
    bed.wait_end(&kernel.id, secs(5)).await;
    // It restarts the kernel, so it has not heard the end, and its status kept it from hearing.
    let error = kernel.call("restart_kernel", json!([{}])).await.unwrap_err();
    assert!(error.text().contains("not running on this agent"), "{error:?}");
    agent.stop().await;
    let agent = bed.agent(&[]).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1, "told again without need");
    for _ in 0..2 {
        kernel.destroy().await;
    }
    let reasons: Vec<_> =
        bed.ends(&agent, &kernel.id).await.into_iter().map(|end| end.args[1].clone()).collect();
    assert_eq!(reasons, ["self-terminated", "self-terminated"], "the true reason both times");
}

#[tokio::test]
async fn the_end_of_a_kernel_whose_restart_a_crash_cut_off_waits_for_the_manager() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let kernel = agent.create_tiny().await;
    engine.fail("POST", "/start", Fails::Late, 1);
    let mut line = agent.rpc().connect().await;
    line.request("restart_kernel", &from_json(&json!([kernel.id, {}])), &from_json(&json!({}))).await;
    until("the start of the new container", secs(5), async || (engine.failed() == 1).then_some(())).await;
    agent.kill9();
    drop((agent, line));
    // The old container is gone, and the new one never comes.
    for container in docker::containers_named(&kernel.id).await {
        docker(&["rm", "-f", &container]).await;
    }
    let agent = bed.agent(&[]).await;
    until("the journal's entry", secs(5), async || {
        let entry = bed.scratch().join(".agent/endings").join(format!("{}.json", kernel.id));
        entry.exists().then_some(())
    })
    .await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 0, "told to a manager that waits for the restart");
    kernel.destroy().await;
    assert_eq!(bed.wait_end(&kernel.id, secs(5)).await.args[1], "self-terminated");
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    engine.release();
}
