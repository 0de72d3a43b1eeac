//! A node changes under running sessions: from the Python agents to this one (PROTOCOL section 12, item 20), and from an
//! earlier version of it. Their files stay where those have made them.

use std::path::Path;

use serde_json::json;

use crate::support::docker::{self, image};
use crate::support::earlier::{PythonAgent, made_by_an_earlier_version, python_agents_kernel};
use crate::support::{Agent, Bed, kernel, new_id, secs, until};

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
    let (id, container) = python_agents_kernel(&bed, PythonAgent::V1_3).await;
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

/// What the manager asks of a kernel whose user's files are in `home`, before a restart and after it.
async fn goes_on(agent: &Agent, id: &str, home: &Path) {
    let upload = |name: &str| {
        rmpv::Value::Array(vec![id.into(), name.into(), rmpv::Value::Binary(b"uploaded".to_vec())])
    };
    let none = || rmpv::Value::Map(Vec::new());
    agent.rpc().call_with("upload_file", upload("a.txt"), none(), secs(10)).await.expect("upload");
    assert_eq!(std::fs::read(home.join("a.txt")).unwrap(), b"uploaded", "{}", home.display());
    for round in ["before", "after"] {
        let seen = "import os\nprint(open('a.txt').read(), os.environ.get('GREETING'))";
        assert_eq!(printed(agent, id, seen).await, "uploaded hello\n", "{round}");
        let listed = agent.call("list_files", json!([id, "."])).await.unwrap();
        assert!(listed["files"].as_str().unwrap().contains("a.txt"), "{listed}");
        let fetch = rmpv::Value::Array(vec![id.into(), "a.txt".into()]);
        let tar = agent.rpc().call_with("download_file", fetch, none(), secs(10)).await.expect("download");
        assert!(String::from_utf8_lossy(tar.as_slice().unwrap()).contains("uploaded"));
        let code = format!("os.makedirs('.output', exist_ok=True)\nopen('.output/{round}', 'w').write('x')");
        let run = new_id();
        let mut answer = agent.call("execute", json!([2, id, run, "query", code, {}])).await.unwrap();
        while answer["status"] != "finished" {
            answer = agent.call("execute", json!([2, id, run, "continue", "", {}])).await.unwrap();
        }
        assert_eq!(answer["files"][0]["name"], round, "{answer}");
        assert!(home.join(".output").join(round).exists());
        if round == "before" {
            agent.call("restart_kernel", json!([id, {}])).await.expect("restart");
        }
    }
}

/// Where a container has what.
async fn mounts(container: &str) -> Vec<(String, String, bool)> {
    let found = docker::inspect(container).await;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mounts = found["Mounts"].as_array().unwrap().iter();
    let mut mounts: Vec<_> = mounts
        .map(|mount| (text(&mount["Destination"]), text(&mount["Source"]), mount["RW"] == true))
        .collect();
    mounts.sort();
    mounts
}

#[tokio::test]
async fn kernels_of_every_python_agent_go_on_with_their_files_where_they_are() {
    let bed = Bed::start().await;
    for made_by in [PythonAgent::V1_3, PythonAgent::V1_4, PythonAgent::V18_12] {
        let (id, _) = python_agents_kernel(&bed, made_by).await;
        let mut agent = bed.agent(&["--adopt"]).await;
        let own = bed.scratch().join(&id);
        goes_on(&agent, &id, &own.join(made_by.home())).await;
        let [container] = <[String; 1]>::try_from(docker::containers_named(&id).await).unwrap();
        let at = |name: &str| own.join(name).display().to_string();
        let mut expected = match made_by {
            PythonAgent::V1_3 => vec![("/home/work".to_owned(), own.display().to_string(), true)],
            PythonAgent::V1_4 => vec![
                ("/home/config".to_owned(), at(".config"), false),
                ("/home/work".to_owned(), at(".work"), true),
                ("/home/work/.config".to_owned(), at(".config"), false),
            ],
            PythonAgent::V18_12 => vec![
                ("/home/config".to_owned(), at("config"), false),
                ("/home/work".to_owned(), at("work"), true),
                ("/home/work/.config".to_owned(), at("config"), false),
            ],
        };
        expected.push((
            "/home/work/data".to_owned(),
            bed.folders().join("local/0a1b").display().to_string(),
            true,
        ));
        assert_eq!(mounts(&container).await, expected, "{made_by:?}");
        agent.call("destroy_kernel", json!([id])).await.unwrap();
        docker::gone(&id).await;
        until("the removal of its files", secs(5), async || (!own.exists()).then_some(())).await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_kernel_of_an_earlier_version_goes_on_with_its_files_where_they_are() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let mut config = kernel::config(&image::python());
    config["environ"] = json!({ "GREETING": "hello" });
    let kernel = agent.create_with(config).await;
    kernel.upload("of-before", b"kept").await.unwrap();
    agent.kill9();
    let (_, home) = made_by_an_earlier_version(&bed, &kernel).await;

    // Without any option: it is this agent's own.
    let mut agent = bed.agent(&[]).await;
    goes_on(&agent, &kernel.id, &home).await;
    let [container] = <[String; 1]>::try_from(docker::containers_named(&kernel.id).await).unwrap();
    assert_eq!(mounts(&container).await, [("/home/work".to_owned(), home.display().to_string(), true)]);
    agent.kill9();
    // What the restart has made is taken back likewise.
    let agent = bed.agent(&[]).await;
    assert_eq!(printed(&agent, &kernel.id, "print(open('of-before').read())").await, "kept\n");
    kernel.destroy().await;
    until("the removal of its files", secs(5), async || (!home.exists()).then_some(())).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

/// The user's code can't change what its runner is told, and finds it in both places.
#[tokio::test]
async fn the_runner_s_settings_are_read_only_in_both_places() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config["environ"] = json!({ "GREETING": "hello" });
    let kernel = agent.create_with(config).await;
    for place in ["/home/work/.config", "/home/config"] {
        let script = format!(
            "cat {place}/environ.txt; for act in 'rm {place}/environ.txt' 'touch {place}/x' 'mv {place} {place}.old' 'rmdir {place}' 'chmod 777 {place}'; do $act 2>/dev/null && echo done: $act; done; true"
        );
        let said = docker::docker(&["exec", kernel.container(), "/bin/sh", "-c", &script]).await;
        assert_eq!(said, "GREETING=hello");
    }
    assert_eq!(std::fs::read_dir(bed.home(&kernel.id).join(".config")).unwrap().count(), 0);
}

#[tokio::test]
async fn another_agents_containers_are_not_touched() {
    let (theirs, ours) = (Bed::start().await, Bed::start().await);
    let (unlabelled, container) = python_agents_kernel(&theirs, PythonAgent::V1_3).await;
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
