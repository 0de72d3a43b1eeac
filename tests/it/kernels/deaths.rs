//! Kernels that nobody asked to end.

use serde_json::{Value as Json, json};

use crate::support::docker::docker;
use crate::support::{Bed, docker, secs, until};

/// Kills a kernel's container with a `docker` command and follows what the agent makes of it.
async fn dies_by(command: &[&str]) {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    docker(&[command, &[kernel.container()]].concat()).await;
    let end = bed.wait_end(&kernel.id, secs(12)).await;
    assert_eq!((&end.args[0], &end.args[1]), (&json!(kernel.id), &json!("self-terminated")));
    assert_eq!(end.args.as_array().map(Vec::len), Some(3));
    docker::gone(&kernel.id).await;
    until("the removal of its directory", secs(3), async || bed.scratch_dirs().is_empty().then_some(()))
        .await;
    assert_eq!(kernel.destroy().await, Json::Null);
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_killed_container_is_told_once() {
    dies_by(&["kill"]).await;
}

#[tokio::test]
async fn a_removed_container_is_told_once() {
    dies_by(&["rm", "-f"]).await;
}

#[tokio::test]
async fn a_container_stopped_by_hand_is_told_once() {
    dies_by(&["stop", "-t", "0"]).await;
}

/// Docker's events and the comparison every 10 s are two witnesses of one death.
#[tokio::test]
async fn a_death_is_not_told_again_by_the_comparison_with_docker() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    docker(&["kill", kernel.container()]).await;
    bed.wait_end(&kernel.id, secs(12)).await;
    let beats = bed.manager.all("instance_heartbeat", |_| true).len();
    // Four heartbeats take long enough for one comparison.
    bed.manager.wait("instance_heartbeat", beats + 4, |_| true, secs(15)).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_kernel_out_of_memory_ends_with_its_run() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    // Written to, so that the pages are really taken.
    let mut answer = kernel.execute("r", "query", "x = b'x' * (900 << 20)", json!({})).await;
    while answer.as_ref().is_ok_and(|answer| answer["status"] == "continued") {
        answer = kernel.execute("r", "continue", "", json!({})).await;
    }
    match answer {
        Ok(answer) => assert_eq!(answer, Json::Null),
        Err(gone) => assert!(gone.text().contains(&kernel.id), "{gone:?}"),
    }
    let end = bed.wait_end(&kernel.id, secs(12)).await;
    assert_eq!(end.args[1], "self-terminated");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    assert!(agent.output().contains("used more memory than its limit"), "{}", agent.output());
}

/// Docker marks a container for ever once a process in it was killed for memory, also by SIGKILL's exit code.
#[tokio::test]
async fn a_kernel_is_not_blamed_for_the_memory_of_a_child_that_was_killed_before() {
    const EAT: &str = "import subprocess, sys\neat = 'x = bytearray(600_000_000)'\n\
                       print(subprocess.run([sys.executable, '-c', eat]).returncode)";
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let (killed, later) =
        (agent.create_python().await.warm().await, agent.create_python().await.warm().await);
    for kernel in [&killed, &later] {
        assert_eq!(kernel.run(EAT).await.stdout(), "-9\n");
    }
    until("Docker's word", secs(10), async || {
        (agent.output().matches("out of memory").count() > 1).then_some(())
    })
    .await;
    docker(&["kill", killed.container()]).await;
    bed.wait_end(&killed.id, secs(12)).await;
    agent.kill9();
    let first = agent.output();
    let agent = bed.agent(&["--create-deadline", "9"]).await;
    later.call("get_logs", json!([])).await.expect("it is taken back");
    docker(&["kill", later.container()]).await;
    bed.wait_end(&later.id, secs(12)).await;
    for log in [first, agent.output()] {
        assert!(log.contains("the container ended by itself") && !log.contains("used more memory"), "{log}");
    }
}

#[tokio::test]
async fn an_idle_kernel_ends_and_a_busy_one_does_not() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--idle-timeout", "2"]).await;
    let busy = agent.create_python().await;
    let idle = agent.create_tiny().await;
    let follow = busy.run("import time\nfor i in range(12):\n    time.sleep(0.5)\nprint('done')");
    let (run, end) = tokio::join!(follow, bed.wait_end(&idle.id, secs(15)));
    assert_eq!(run.stdout(), "done\n");
    assert_eq!(end.args[1], "idle-timeout");
    assert!(end.at.duration_since(idle.created_at).unwrap() >= secs(1), "it was given no time at all");
    docker::gone(&idle.id).await;
    // Idle from the end of its run on, it ends as well.
    let end = bed.wait_end(&busy.id, secs(15)).await;
    assert_eq!(end.args[1], "idle-timeout");
    assert_eq!(bed.ends(&agent, &idle.id).await.len(), 1);
}

/// As the clusters of 18.12 say it; the operator's word goes before that.
#[tokio::test]
async fn the_cluster_may_say_when_a_kernel_is_idle() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    bed.etcd.etcdctl(&["put", &bed.key("nodes/idle_timeout"), "2"]).await;
    let end = bed.wait_end(&kernel.id, secs(15)).await;
    assert_eq!(end.args[1], "idle-timeout");
}

#[tokio::test]
async fn an_idle_timeout_of_zero_means_never() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--idle-timeout", "0"]).await;
    let kernel = agent.create_tiny().await;
    // Long enough for one idle check (10 s).
    bed.manager.wait("instance_heartbeat", 5, |_| true, secs(16)).await;
    assert!(bed.ends(&agent, &kernel.id).await.is_empty());
}

#[tokio::test]
async fn a_renamed_container_is_still_its_kernels() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--reconcile-interval", "1"]).await;
    let kernel = agent.create_tiny().await;
    docker(&["rename", kernel.container(), &format!("baitest-{}", kernel.id)]).await;
    // Two heartbeats are time enough for several comparisons with Docker's list.
    let beats = bed.manager.all("instance_heartbeat", |_| true).len();
    bed.manager.wait("instance_heartbeat", beats + 2, |_| true, secs(10)).await;
    assert!(bed.ends(&agent, &kernel.id).await.is_empty());
    assert!(kernel.destroy().await.is_object());
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_paused_container_is_told_of_in_the_log_and_can_be_destroyed() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--reconcile-interval", "1"]).await;
    let kernel = agent.create_tiny().await;
    docker(&["pause", kernel.container()]).await;
    until("the warning", secs(5), async || agent.output().contains("container is paused").then_some(()))
        .await;
    assert!(bed.ends(&agent, &kernel.id).await.is_empty(), "a paused kernel is not over");
    assert!(kernel.destroy().await.is_object());
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

/// Its interpreter, its runs and its ports are gone: that is the end of the session.
#[tokio::test]
async fn a_container_restarted_by_hand_ends_its_kernel_once() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--reconcile-interval", "1"]).await;
    let kernel = agent.create_tiny().await;
    docker(&["restart", "-t", "0", kernel.container()]).await;
    let end = bed.wait_end(&kernel.id, secs(12)).await;
    assert_eq!(end.args[1], "self-terminated");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}
