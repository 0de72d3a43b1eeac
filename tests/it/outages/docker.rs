//! Docker hangs, refuses connections and comes back.

use std::time::SystemTime;

use serde_json::json;

use super::{PATIENT, lengths};
use crate::support::docker::{self, image};
use crate::support::engine::Engine;
use crate::support::msgpack::from_json;
use crate::support::vitals::{Vitals, heartbeats_were_on_time};
use crate::support::{Agent, Bed, kernel, new_id, secs, until};

/// The limit's own exception: PROTOCOL section 2.
const TIME_LIMIT: &str = "concurrent.futures._base.TimeoutError";

/// An agent that reaches Docker through `engine`.
async fn agent_behind(bed: &Bed, engine: &Engine, limits: &[&str]) -> Agent {
    let args = ["--docker-host", &engine.host(), "--reconcile-interval", "1"];
    bed.agent(&[&args, limits].concat()).await
}

async fn nothing_is_left(bed: &Bed, id: &str) {
    docker::gone(id).await;
    until("the end of the kernel's files", secs(10), async || {
        let noted = bed.scratch().join(".agent/kernels").join(format!("{id}.json")).exists();
        (!noted && !bed.scratch_dirs().contains(&id.to_owned())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hanging_docker_delays_ends_and_undoes_creates() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = agent_behind(&bed, &engine, &[]).await;
    let (doomed, kept) = (agent.create_tiny().await, agent.create_tiny().await);
    let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
    engine.hang();
    let late = new_id();
    let create = async {
        let config = kernel::config(&image::tiny());
        // The manager gives up after 3 s.
        let limit = std::time::Duration::from_millis(3500);
        let error = agent.rpc().call("create_kernel", json!([late, config]), limit).await.unwrap_err();
        assert!(error.name == TIME_LIMIT && error.text().contains("3 s"), "{error:?}");
    };
    let destroy = async {
        let error = agent.call("destroy_kernel", json!([doomed.id])).await.unwrap_err();
        assert!(error.name == TIME_LIMIT && error.text().contains("Docker"), "{error:?}");
    };
    let logs = async {
        let limit = secs(5);
        let error = agent.rpc().call("get_logs", json!([kept.id]), limit).await.unwrap_err();
        assert!(error.text().contains("log"), "{error:?}");
    };
    tokio::join!(create, destroy, logs, bed.slots(false, since, secs(10)));
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty(), "told before it was done");
    heartbeats_were_on_time(&bed, since);
    let back = SystemTime::now();
    engine.pass();
    let end = bed.wait_end(&doomed.id, secs(10)).await;
    assert_eq!(end.args[1], "user-requested");
    bed.slots(true, back, secs(10)).await;
    for id in [&late, &doomed.id] {
        nothing_is_left(&bed, id).await;
    }
    assert_eq!(bed.ends(&agent, &doomed.id).await.len(), 1);
    assert_eq!(bed.manager.all("kernel_terminated", |event| event.args[0] == kept.id.as_str()).len(), 0);
    vitals.check(&agent, 40);
    kept.destroy().await;
    assert!(agent.is_alive());
}

#[tokio::test]
async fn a_docker_that_refuses_is_waited_for_and_deaths_are_noticed() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = agent_behind(&bed, &engine, &PATIENT).await;
    for length in lengths() {
        let (dies, stays) = (agent.create_tiny().await, agent.create_tiny().await);
        let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
        engine.refuse();
        docker::docker(&["kill", dies.container()]).await;
        let error = agent.call("create_kernel", json!([new_id(), kernel::config(&image::tiny())])).await;
        assert!(error.unwrap_err().text().contains("Docker"));
        tokio::time::sleep(length).await;
        engine.pass();
        assert_eq!(bed.wait_end(&dies.id, secs(10)).await.args[1], "self-terminated");
        nothing_is_left(&bed, &dies.id).await;
        assert_eq!(bed.ends(&agent, &dies.id).await.len(), 1);
        bed.slots(true, since, secs(10)).await;
        heartbeats_were_on_time(&bed, since);
        vitals.check(&agent, 40);
        stays.destroy().await;
        bed.wait_end(&stays.id, secs(10)).await;
    }
    // Creates that failed are undone when Docker is back, with pauses of up to 5 s between attempts.
    until("the end of all files", secs(10), async || bed.scratch_dirs().is_empty().then_some(())).await;
    assert!(agent.is_alive());
}

#[tokio::test]
async fn an_agent_that_starts_while_docker_hangs_serves_later() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut first = agent_behind(&bed, &engine, &PATIENT).await;
    let kernel = first.create_tiny().await;
    first.kill9();
    drop(first);
    engine.hang();
    let started = bed.manager.all("instance_started", |_| true).len();
    let mut agent = bed.spawn_agent(&["--docker-host", &engine.host()]);
    until("a word about Docker", secs(15), async || {
        assert!(agent.is_alive(), "it gave up");
        agent.output().contains("Docker").then_some(())
    })
    .await;
    engine.pass();
    bed.manager.wait("instance_started", started + 1, |_| true, secs(15)).await;
    kernel.destroy().await;
    assert_eq!(bed.wait_end(&kernel.id, secs(5)).await.args[1], "user-requested");
    nothing_is_left(&bed, &kernel.id).await;
}

#[tokio::test]
async fn a_stop_is_quick_while_docker_hangs_and_loses_nothing() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = agent_behind(&bed, &engine, &PATIENT).await;
    let (doomed, restarted, kept) =
        (agent.create_tiny().await, agent.create_tiny().await, agent.create_tiny().await);
    let late = new_id();
    engine.hang();
    let mut line = agent.rpc().connect().await;
    for (method, args) in [
        ("destroy_kernel", json!([doomed.id])),
        ("restart_kernel", json!([restarted.id, {}])),
        ("create_kernel", json!([late, kernel::config(&image::tiny())])),
    ] {
        line.request(method, &from_json(&args), &from_json(&json!({}))).await;
    }
    until("the journal's entry", secs(5), async || {
        let entry = bed.scratch().join(".agent/endings").join(format!("{}.json", doomed.id));
        entry.exists().then_some(())
    })
    .await;
    assert!(agent.stop().await.success());
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty(), "told before it was done");
    engine.pass();
    drop(agent);
    let agent = agent_behind(&bed, &engine, &PATIENT).await;
    assert_eq!(bed.wait_end(&doomed.id, secs(10)).await.args[1], "user-requested");
    nothing_is_left(&bed, &doomed.id).await;
    nothing_is_left(&bed, &late).await;
    for kernel in [&restarted, &kept] {
        // Docker did the restart's removal of the old container, or not: the end is told once either way.
        kernel.destroy().await;
        bed.wait_end(&kernel.id, secs(10)).await;
        nothing_is_left(&bed, &kernel.id).await;
    }
    for kernel in [&doomed, &restarted, &kept] {
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
    assert_eq!(bed.ends(&agent, &late).await.len(), 0, "nobody was told of it");
}

/// The agent sees the end of a container's process itself. It lets go of the container's address at once, which
/// Docker may give to another kernel's before it says anything.
#[tokio::test]
async fn a_death_cuts_runs_off_while_docker_hangs() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = agent_behind(&bed, &engine, &PATIENT).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nwhile True: time.sleep(0.05)";
    assert_eq!(kernel.execute("r", "query", code, json!({})).await.unwrap()["status"], "continued");
    engine.hang();
    let going_on = async {
        let begun = std::time::Instant::now();
        let mut answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
        while !answer.is_null() && begun.elapsed() < secs(10) {
            answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
        }
        (answer, begun.elapsed())
    };
    let kill = ["kill", kernel.container()];
    let (_, (answer, after)) = tokio::join!(docker::docker(&kill), going_on);
    assert!(answer.is_null() && after < secs(2), "{answer} after {after:?}");
    engine.pass();
    assert_eq!(bed.wait_end(&kernel.id, secs(15)).await.args[1], "self-terminated");
    nothing_is_left(&bed, &kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}
