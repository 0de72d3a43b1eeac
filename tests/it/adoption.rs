//! A node changes from the Python agent to this one under running sessions (PROTOCOL section 12, item 20).

use serde_json::json;

use crate::support::docker::{self, docker, image};
use crate::support::{Agent, Bed, new_id, secs, until};

/// A container as the Python agent makes it: a name, a scratch directory, ports on all addresses, no labels.
async fn python_agents_kernel(bed: &Bed) -> (String, String) {
    let id = new_id();
    let scratch = bed.scratch().join(&id);
    std::fs::create_dir_all(scratch.join(".config")).unwrap();
    std::fs::write(scratch.join(".config/environ.txt"), "GREETING=hello\n").unwrap();
    let (name, bind) = (format!("kernel.python.{id}"), format!("{}:/home/work", scratch.display()));
    let image = format!("lablup/kernel-{}", image::python());
    let container = docker(&[
        "run",
        "-d",
        "-t",
        "-i",
        "--name",
        &name,
        "-v",
        &bind,
        "-m",
        "256m",
        "--cpuset-cpus",
        "0",
        "-e",
        "LOCAL_USER_ID=0",
        "-p",
        "2000",
        "-p",
        "2001",
        "-p",
        "2002",
        "-p",
        "2003",
        &image,
    ])
    .await;
    (id, container)
}

/// Runs code to its end, which takes longer than one answer while the runner still starts.
async fn printed(agent: &Agent, kernel: &str, code: &str) -> String {
    let run = new_id();
    let mut text = String::new();
    let mut answer = agent.call("execute", json!([2, kernel, run, "query", code, {}])).await.unwrap();
    loop {
        for item in answer["console"].as_array().unwrap() {
            text += item[1].as_str().unwrap();
        }
        if answer["status"] == "finished" {
            return text;
        }
        answer = agent.call("execute", json!([2, kernel, run, "continue", "", {}])).await.unwrap();
    }
}

#[tokio::test]
async fn a_kernel_of_the_python_agent_is_taken_over_and_ended_once() {
    let bed = Bed::start().await;
    let (id, container) = python_agents_kernel(&bed).await;
    let mut agent = bed.agent(&[]).await;
    until("the warning", secs(5), async || agent.output().contains("--adopt").then_some(())).await;
    let error = agent.call("get_logs", json!([id])).await.unwrap_err();
    assert!(error.text().contains("not running on this agent"), "{error:?}");
    agent.stop().await;
    assert_eq!(docker::inspect(&container).await["State"]["Running"], true, "it was not left alone");

    let mut agent = bed.agent(&["--adopt"]).await;
    assert_eq!(printed(&agent, &id, "x = 1\nprint('adopted')").await, "adopted\n");
    agent.kill9();

    // What was taken over once is taken back without the option.
    let agent = bed.agent(&[]).await;
    assert_eq!(printed(&agent, &id, "print(x)").await, "1\n");
    let statistics = agent.call("destroy_kernel", json!([id])).await.unwrap();
    assert!(statistics["cpu_used"].is_number(), "{statistics}");
    let end = bed.wait_end(&id, secs(5)).await;
    assert_eq!(end.args[1], "user-requested");
    docker::gone(&id).await;
    assert_eq!(bed.ends(&agent, &id).await.len(), 1);
}

#[tokio::test]
async fn another_agents_containers_are_not_touched() {
    let (theirs, ours) = (Bed::start().await, Bed::start().await);
    let (unlabelled, container) = python_agents_kernel(&theirs).await;
    let other = theirs.agent(&[]).await;
    let labelled = other.create_tiny().await;
    let agent = ours.agent(&["--adopt", "--reconcile-interval", "1"]).await;
    // Three heartbeats are time enough for several comparisons with Docker's list.
    ours.manager.wait("instance_heartbeat", 3, |_| true, secs(12)).await;
    for id in [&unlabelled, &labelled.id] {
        let error = agent.call("get_logs", json!([id])).await.unwrap_err();
        assert!(error.text().contains("not running on this agent"), "{error:?}");
    }
    for id in [container.as_str(), labelled.container()] {
        assert_eq!(docker::inspect(id).await["State"]["Running"], true);
    }
    assert!(theirs.manager.all("kernel_terminated", |_| true).is_empty());
}
