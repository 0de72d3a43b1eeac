//! The end of the agent, in any state (PROTOCOL sections 4 and 10, section 12 item 37).

use std::path::PathBuf;
use std::time::Instant;

use rustix::process::{Pid, Signal};
use serde_json::{Value as Json, json};

use crate::support::engine::{Engine, Fails};
use crate::support::msgpack::{from_json, to_json};
use crate::support::{Agent, Bed, docker, secs, until};

#[tokio::test]
async fn a_run_goes_on_through_a_stop_and_its_caller_can_follow_it() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nfor i in range(50): time.sleep(0.1)\nprint('done')";
    assert_eq!(kernel.execute("r", "query", code, json!({})).await.unwrap()["status"], "continued");
    // One connection keeps the order of its calls: when the ping is answered, the runs' calls are under way.
    let mut line = agent.rpc().connect().await;
    let nothing = from_json(&json!({}));
    let follows =
        line.request("execute", &from_json(&json!([2, kernel.id, "r", "continue", "", {}])), &nothing).await;
    let queues =
        line.request("execute", &from_json(&json!([2, kernel.id, "q", "query", "1", {}])), &nothing).await;
    let ping = line.request("ping", &from_json(&json!(["?"])), &nothing).await;
    assert_eq!(line.answer(secs(1)).await.expect("the ping's answer").header.id, ping);
    assert!(agent.stop().await.success());
    for _ in 0..2 {
        let answer = line.answer(secs(1)).await.expect("an answer to each");
        let result = to_json(&answer.result.expect("no error"));
        if answer.header.id == follows {
            // A manager that got nil would tell its user that the run is over.
            assert_eq!(result["status"], "continued");
        } else {
            assert_eq!((answer.header.id, result), (queues, Json::Null), "its code was never sent");
        }
    }
    let last = bed.wait_event("instance_terminated", |_| true, secs(5)).await;
    assert_eq!(last.args, json!(["agent-restart"]));
    assert_eq!(docker::containers_named(&kernel.id).await, [kernel.container()]);
    drop(agent);

    let _agent = bed.agent(&[]).await;
    let mut text = String::new();
    let mut answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
    while answer["status"] == "continued" {
        answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
        text += &answer["console"].to_string();
    }
    assert!(answer["status"] == "finished" && text.contains("done"), "{answer} {text}");
}

#[tokio::test]
async fn stopping_the_kernels_too_ends_each_and_says_shutdown_last() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--stop-kernels-on-exit"]).await;
    let kernels = [agent.create_tiny().await, agent.create_tiny().await];
    assert!(agent.stop().await.success());
    let goodbye = bed.wait_event("instance_terminated", |_| true, secs(5)).await;
    assert_eq!(goodbye.args, json!(["shutdown"]));
    for kernel in &kernels {
        let ends = bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id);
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0].args[1], "agent-termination");
        docker::gone(&kernel.id).await;
    }
    assert!(bed.scratch_dirs().is_empty());
}

#[tokio::test]
async fn a_stop_takes_less_than_5_s_whatever_is_away() {
    let mut bed = Bed::start().await;
    // Comparisons with Docker's list go on while the agent stops, and must not take its kernels for orphans.
    let mut agent = bed.agent(&["--reconcile-interval", "0.1"]).await;
    let kernel = agent.create_tiny().await;
    bed.redis.pause().await;
    bed.etcd.pause().await;
    bed.manager.down();
    let begin = Instant::now();
    assert!(agent.stop().await.success());
    println!("stopped in {:?} with Redis, etcd and the manager away", begin.elapsed());
    bed.redis.resume();
    bed.etcd.resume();
    assert_eq!(docker::containers_named(&kernel.id).await, [kernel.container()]);
}

#[tokio::test]
async fn a_stop_while_waiting_for_the_manager_is_quick() {
    let bed = Bed::without_manager().await;
    let mut agent = bed.spawn_agent(&[]);
    until("the wait", secs(5), async || agent.output().contains("waiting for the manager").then_some(()))
        .await;
    assert!(agent.stop().await.success());
}

/// Sends the agent a signal, to its process alone.
fn signal(agent: &Agent, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(agent.pid().try_into().unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_second_signal_half_a_second_later_ends_at_once() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    bed.etcd.pause().await;
    bed.manager.down();
    signal(&agent, Signal::TERM);
    until("the first to be heard", secs(5), async || agent.output().contains("asked to stop").then_some(()))
        .await;
    let heard = Instant::now();
    until("the end", secs(2), async || {
        // One of them is the first that is late enough.
        signal(&agent, Signal::TERM);
        (!agent.is_alive()).then_some(())
    })
    .await;
    println!("ended {:?} after the first signal", heard.elapsed());
    // The first was heard up to 50 ms earlier.
    assert!(heard.elapsed() > std::time::Duration::from_millis(400) && heard.elapsed() < secs(2));
    let output = agent.output();
    assert!(output.lines().last().unwrap_or_default().contains("a second signal"), "{output}");
    bed.etcd.resume();
}

/// A supervisor may signal the group and the process, a terminal with one signal and a script with another.
#[tokio::test]
async fn signals_that_come_together_are_one() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    signal(&agent, Signal::INT);
    signal(&agent, Signal::TERM);
    assert!(agent.wait(secs(5)).await.success(), "{}", agent.output());
    bed.wait_event("instance_terminated", |_| true, secs(1)).await;
}

/// Whoever starts one by hand while another stops: each is refused or takes the place of the one before, which has said its goodbye.
#[tokio::test]
async fn agents_that_are_started_while_another_stops_have_its_place_after_it_only() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let kernel = agent.create_python().await.warm().await;
    for round in 0..3 {
        let run = format!("r{round}");
        // A stop listens on to a run that has just begun.
        let code = "import time\nfor i in range(20):\n  time.sleep(0.1)\nprint('over')";
        assert_eq!(kernel.execute(&run, "query", code, json!({})).await.unwrap()["status"], "continued");
        let lives = |name: &str| bed.manager.all(name, |_| true).len();
        let (begun, ended) = (lives("instance_started"), lives("instance_terminated"));
        signal(&agent, Signal::TERM);
        let mut refused = 0;
        let next = until("the next agent", secs(20), async || {
            let mut next = bed.spawn_agent(&[]);
            let started = until("its start or end", secs(15), async || {
                (!next.is_alive() || lives("instance_started") > begun).then_some(())
            });
            started.await;
            if next.is_alive() {
                return Some(next);
            }
            let output = next.output();
            assert!(output.contains("another agent (pid "), "{output}");
            refused += 1;
            None
        })
        .await;
        println!("round {round}: {refused} were refused");
        assert_eq!(lives("instance_terminated"), ended + 1, "the first has said its goodbye before");
        assert!(agent.wait(secs(5)).await.success(), "{}", agent.output());
        agent = next;
        let mut answer = kernel.execute(&run, "continue", "", json!({})).await.unwrap();
        while answer["status"] == "continued" {
            answer = kernel.execute(&run, "continue", "", json!({})).await.unwrap();
        }
        assert_eq!(answer["status"], "finished", "{answer}");
    }
    assert_eq!(kernel.run("print('free')").await.stdout(), "free\n");
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty());
}

#[tokio::test]
async fn stopping_the_kernels_too_reaches_those_that_are_not_found_yet() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let kernels = [agent.create_tiny().await, agent.create_tiny().await];
    agent.kill9();
    engine.fail("GET", "/containers/json", Fails::Late, 1);
    let mut agent = bed.agent(&["--docker-host", &engine.host(), "--stop-kernels-on-exit"]).await;
    signal(&agent, Signal::TERM);
    until("the stop", secs(5), async || agent.output().contains("stop_kernels=true").then_some(())).await;
    engine.release();
    assert!(agent.wait(secs(10)).await.success());
    for kernel in &kernels {
        let ends = bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id);
        assert_eq!(ends.iter().map(|end| end.args[1].clone()).collect::<Vec<_>>(), ["agent-termination"]);
        docker::gone(&kernel.id).await;
    }
}

/// A program that says what systemd says of the machine, and the search path on which it is found.
fn systemctl(bed: &Bed) -> (PathBuf, String) {
    let programs = bed.outside().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let systemctl = programs.join("systemctl");
    std::fs::write(
        &systemctl,
        "#!/bin/sh\n[ \"$1\" = is-system-running ] && cat \"$(dirname \"$0\")/state\"\nexit 1\n",
    )
    .unwrap();
    std::fs::set_permissions(&systemctl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    (programs.join("state"), path)
}

/// As many kernels on a busy disk do: the end of one takes longer than an ordinary stop may.
#[tokio::test]
async fn the_ends_of_kernels_may_take_their_time_when_the_machine_goes_down() {
    let bed = Bed::start().await;
    let (state, path) = systemctl(&bed);
    std::fs::write(state, "stopping\n").unwrap();
    let engine = Engine::start(bed.outside());
    let args = ["--create-deadline", "9", "--docker-host", &engine.host()];
    let mut agent = bed.spawn_agent_in(&[("PATH", &path)], &args);
    bed.wait_event("instance_started", |_| true, secs(15)).await;
    let kernel = agent.create_tiny().await;
    engine.fail("DELETE", "/containers/", Fails::Late, 1);
    let begun = Instant::now();
    signal(&agent, Signal::TERM);
    until("the end of an ordinary stop", secs(10), async || {
        assert!(agent.is_alive(), "{}", agent.output());
        (begun.elapsed() > secs(6)).then_some(())
    })
    .await;
    engine.release();
    assert!(agent.wait(secs(40)).await.success(), "{}", agent.output());
    let ends = bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id);
    assert_eq!(ends.iter().map(|end| end.args[1].clone()).collect::<Vec<_>>(), ["agent-termination"]);
    assert_eq!(bed.manager.all("instance_terminated", |event| event.args == json!(["shutdown"])).len(), 1);
}

/// A reboot: systemd says that it is stopping, here by a program of the test's own.
#[tokio::test]
async fn a_stop_that_is_the_machine_s_own_ends_the_kernels_and_says_shutdown() {
    let bed = Bed::start().await;
    let (state, path) = systemctl(&bed);
    let start = async || {
        let started = bed.manager.all("instance_started", |_| true).len();
        let agent = bed.spawn_agent_in(&[("PATH", &path)], &["--create-deadline", "9"]);
        bed.manager.wait("instance_started", started + 1, |_| true, secs(15)).await;
        agent
    };
    let stopped =
        |reason: &str| bed.manager.all("instance_terminated", |event| event.args == json!([reason])).len();
    std::fs::write(&state, "degraded\n").unwrap();
    let mut agent = start().await;
    let kernel = agent.create_tiny().await;
    assert!(agent.stop().await.success());
    bed.manager.wait("instance_terminated", 1, |_| true, secs(5)).await;
    assert_eq!((stopped("agent-restart"), stopped("shutdown")), (1, 0));

    std::fs::write(&state, "stopping\n").unwrap();
    let mut agent = start().await;
    assert!(agent.stop().await.success());
    let end = bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(end.args[1], "agent-termination");
    bed.manager.wait("instance_terminated", 2, |_| true, secs(5)).await;
    assert_eq!((stopped("agent-restart"), stopped("shutdown")), (1, 1));
    docker::gone(&kernel.id).await;
    let agent = start().await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1, "told again after the boot");
}
