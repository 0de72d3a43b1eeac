//! A real dockerd is killed and frozen under an agent (PROTOCOL section 12, items 1, 5, 19 and 24).

use std::time::SystemTime;

use serde_json::json;

use super::{PATIENT, lengths};
use crate::support::docker::image;
use crate::support::dockerd::Dockerd;
use crate::support::vitals::{Vitals, heartbeats_were_on_time};
use crate::support::{Agent, Bed, Kernel, kernel, new_id, secs, until};

async fn agent_of(bed: &Bed, engine: &Dockerd) -> Agent {
    let args = ["--docker-host", &engine.host(), "--reconcile-interval", "1"];
    bed.agent(&[&args[..], &PATIENT].concat()).await
}

/// Waits for a heartbeat with slots or without, newer than `since`.
async fn slots(bed: &Bed, some: bool, since: SystemTime) {
    let fits = |beat: &crate::support::manager::Event| {
        let info = &beat.args[0];
        beat.at > since && ["cpu_slots", "mem_slots"].iter().all(|key| (info[key] != 0) == some)
    };
    bed.wait_event("instance_heartbeat", fits, secs(12)).await;
}

async fn is_over(bed: &Bed, engine: &Dockerd, agent: &Agent, kernel: &Kernel, reason: &str) {
    let end = bed.wait_end(&kernel.id, secs(30)).await;
    assert_eq!(end.args[1], reason);
    engine.gone(&kernel.id).await;
    until("the end of the kernel's files", secs(10), async || {
        (!bed.scratch_dirs().contains(&kernel.id)).then_some(())
    })
    .await;
    assert_eq!(bed.ends(agent, &kernel.id).await.len(), 1);
}

/// Without live-restore a dockerd ends its containers when it starts again.
#[tokio::test]
async fn kernels_that_a_killed_dockerd_took_down_are_told_once() {
    let bed = Bed::start().await;
    let mut engine = Dockerd::with_usual_images(bed.outside(), false, false).await;
    let mut agent = agent_of(&bed, &engine).await;
    let cores = agent.create_tiny().await;
    cores.destroy().await;
    for length in lengths() {
        let (lost, doomed) = (agent.create_tiny().await, agent.create_tiny().await);
        let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
        engine.kill();
        let refused = agent.call("create_kernel", json!([new_id(), kernel::config(&image::tiny())])).await;
        assert!(refused.unwrap_err().text().contains("Docker"));
        let destroyed = doomed.call("destroy_kernel", json!([]));
        let (destroyed, ()) = tokio::join!(destroyed, async {
            slots(&bed, false, since).await;
            tokio::time::sleep(length).await;
            engine.restart().await;
        });
        // Its answer was there in time or it was not; its end is told either way.
        drop(destroyed);
        let back = SystemTime::now();
        is_over(&bed, &engine, &agent, &lost, "self-terminated").await;
        is_over(&bed, &engine, &agent, &doomed, "user-requested").await;
        slots(&bed, true, back).await;
        heartbeats_were_on_time(&bed, since);
        vitals.check(&agent, 40);
        let next = agent.create_tiny().await;
        assert_eq!(next.created["cpu_set"], cores.created["cpu_set"], "cores are still taken");
        next.destroy().await;
        is_over(&bed, &engine, &agent, &next, "user-requested").await;
    }
    assert!(agent.is_alive());
}

/// With live-restore a session does not notice that dockerd died, and neither does its end.
#[tokio::test]
async fn a_session_outlives_a_killed_dockerd_with_live_restore() {
    let bed = Bed::start().await;
    let mut engine = Dockerd::with_usual_images(bed.outside(), true, true).await;
    let mut agent = agent_of(&bed, &engine).await;
    let session = agent.create_python().await.warm().await;
    session.run("n = 0").await;
    for (round, length) in (1..).zip(lengths()) {
        let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
        engine.kill();
        slots(&bed, false, since).await;
        tokio::time::sleep(length).await;
        engine.restart().await;
        let back = SystemTime::now();
        slots(&bed, true, back).await;
        assert_eq!(session.run("n += 1\nprint(n)").await.stdout(), format!("{round}\n"));
        heartbeats_were_on_time(&bed, since);
        vitals.check(&agent, 40);
    }
    // An agent that starts after it finds the session as it was.
    agent.kill9();
    engine.kill();
    engine.restart().await;
    let agent = agent_of(&bed, &engine).await;
    assert_eq!(session.run("n += 1\nprint(n)").await.stdout(), format!("{}\n", lengths().len() + 1));
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty());
    session.destroy().await;
    is_over(&bed, &engine, &agent, &session, "user-requested").await;
}

/// A frozen dockerd takes connections and answers none; what runs in kernels goes on.
#[tokio::test]
async fn a_frozen_dockerd_delays_ends_and_no_run() {
    let bed = Bed::start().await;
    let engine = Dockerd::with_usual_images(bed.outside(), false, true).await;
    let mut agent = agent_of(&bed, &engine).await;
    let session = agent.create_python().await.warm().await;
    for length in lengths() {
        let doomed = agent.create_tiny().await;
        let late = new_id();
        let (since, vitals) = (SystemTime::now(), Vitals::of(&agent));
        engine.pause().await;
        let destroyed = doomed.call("destroy_kernel", json!([]));
        let created =
            agent.rpc().call("create_kernel", json!([late, kernel::config(&image::tiny())]), secs(12));
        let (destroyed, created, ()) = tokio::join!(destroyed, created, async {
            assert_eq!(session.run("print('still here')").await.stdout(), "still here\n");
            tokio::time::sleep(length).await;
            if length > secs(8) {
                slots(&bed, false, since).await;
            }
            engine.resume();
        });
        if length < secs(5) {
            destroyed.expect("a destroy that Docker carried out in time");
        } else {
            assert!(destroyed.unwrap_err().text().contains("Docker"));
        }
        let back = SystemTime::now();
        is_over(&bed, &engine, &agent, &doomed, "user-requested").await;
        if created.is_ok() {
            agent.call("destroy_kernel", json!([late])).await.expect("destroy_kernel");
        }
        engine.gone(&late).await;
        assert_eq!(bed.ends(&agent, &late).await.len(), usize::from(created.is_ok()));
        slots(&bed, true, back).await;
        heartbeats_were_on_time(&bed, since);
        vitals.check(&agent, 40);
    }
    // And a stop is quick, and loses nothing.
    engine.pause().await;
    assert!(agent.stop().await.success());
    engine.resume();
    let agent = agent_of(&bed, &engine).await;
    assert_eq!(session.run("print('and here')").await.stdout(), "and here\n");
    session.destroy().await;
    is_over(&bed, &engine, &agent, &session, "user-requested").await;
}

/// Deaths that come while dockerd is away are noticed when it is back, with the agent and without.
#[tokio::test]
async fn a_death_while_dockerd_was_away_is_told_once() {
    let bed = Bed::start().await;
    let mut engine = Dockerd::with_usual_images(bed.outside(), true, false).await;
    let mut agent = agent_of(&bed, &engine).await;
    for with_agent in [true, false] {
        let (dies, lives) = (agent.create_tiny().await, agent.create_tiny().await);
        let pid = engine.docker(&["inspect", "--format", "{{.State.Pid}}", dies.container()]).await;
        if !with_agent {
            agent.kill9();
        }
        engine.kill();
        let killed = std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        assert!(killed.success());
        engine.restart().await;
        if !with_agent {
            agent = agent_of(&bed, &engine).await;
        }
        is_over(&bed, &engine, &agent, &dies, "self-terminated").await;
        assert_eq!(bed.ends(&agent, &lives.id).await.len(), 0);
        lives.destroy().await;
        is_over(&bed, &engine, &agent, &lives, "user-requested").await;
    }
}
