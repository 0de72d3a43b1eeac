//! `restart_kernel`: a new container, the same session.

use serde_json::{Value as Json, json};

use crate::support::docker::{self, image};
use crate::support::engine::{Engine, Fails};
use crate::support::msgpack::{from_json, keys};
use crate::support::{Bed, kernel, new_id, secs, until};

#[tokio::test]
async fn a_restart_keeps_the_session_and_forgets_the_interpreter() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    std::fs::create_dir_all(bed.folders().join("local/data")).unwrap();
    let mut config = kernel::config(&image::python());
    config["environ"] = json!({ "GREETING": "hello" });
    config["mounts"] = json!([["data", "local", "data"]]);
    std::fs::write(bed.folders().join("local/data/of-the-folder"), "").unwrap();
    let kernel = agent.create_with(config).await.warm().await;
    kernel.run("x = 1\nopen('kept.txt', 'w').write('kept')").await;

    // As manager 1.3.12 sends it: no mounts, no environment.
    let mut again = kernel::config(&image::python());
    again["cpu_set"] = kernel.created["cpu_set"].clone();
    again["gpu_set"] = json!([]);
    let answer = kernel.call("restart_kernel", json!([again])).await.expect("restart_kernel");
    let expected =
        ["container_id", "cpu_set", "gpu_set", "repl_in_port", "repl_out_port", "stdin_port", "stdout_port"];
    for key in expected {
        assert!(keys(&answer).contains(&key), "no {key} in {answer}");
    }
    assert_ne!(answer["container_id"], kernel.created["container_id"]);
    assert_eq!(answer["cpu_set"], kernel.created["cpu_set"]);
    assert_eq!(answer["gpu_set"], json!([]));
    for port in ["repl_in_port", "repl_out_port", "stdin_port", "stdout_port"] {
        assert!(answer[port].is_u64(), "{port} is an int: {answer}");
    }
    assert_eq!(docker::containers_named(&kernel.id).await, [answer["container_id"].as_str().unwrap()]);

    let code = "import os\nprint('x' in globals(), open('kept.txt').read(), os.environ.get('GREETING'), \
                os.path.exists('/home/work/data/of-the-folder'))";
    assert_eq!(kernel.run(code).await.stdout(), "False kept hello True\n");
    let creating = bed.manager.all("kernel_creating", |event| event.args == json!([kernel.id]));
    assert_eq!(creating.len(), 2, "told at the restart, too");
    assert!(bed.ends(&agent, &kernel.id).await.is_empty(), "the session did not end");

    kernel.destroy().await;
    let end = bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(end.args[1], "user-requested");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_restart_takes_new_mounts_and_environment() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    std::fs::create_dir_all(bed.folders().join("local/data")).unwrap();
    let kernel = agent.create_tiny().await;
    let mut again = kernel.config.clone();
    again["environ"] = json!({ "GREETING": "hello" });
    again["mounts"] = json!([["data", "local", "data"]]);
    let answer = kernel.call("restart_kernel", json!([again])).await.expect("restart_kernel");
    let container = answer["container_id"].as_str().unwrap();
    let seen =
        docker::docker(&["exec", container, "/bin/sh", "-c", "ls -d data; cat .config/environ.txt"]).await;
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["data", "GREETING=hello"]);
}

#[tokio::test]
async fn two_restarts_at_once_queue_up() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let restart = || kernel.call("restart_kernel", json!([kernel.config]));
    let (one, two) = tokio::join!(restart(), restart());
    let (one, two) = (one.expect("restart"), two.expect("restart"));
    assert_ne!(one["container_id"], two["container_id"]);
    let left = docker::containers_named(&kernel.id).await;
    assert_eq!(left.len(), 1);
    assert!([&one, &two].iter().any(|answer| answer["container_id"] == left[0].as_str()), "{left:?}");
    assert!(bed.ends(&agent, &kernel.id).await.is_empty());
}

/// Everything that can be refused is refused before the kernel is touched: what it knows, its files, its container, the
/// run that goes on.
#[tokio::test]
async fn a_restart_that_can_not_be_carried_out_leaves_the_kernel_as_it_is() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    std::fs::create_dir_all(bed.folders().join("local/data")).unwrap();
    let lang = format!("restart-{}:demo", &new_id()[..8]);
    let tag = format!("lablup/kernel-{lang}");
    docker::docker(&["tag", &format!("lablup/kernel-{}", image::python()), &tag]).await;
    let mut config = kernel::config(&lang);
    config["environ"] = json!({ "GREETING": "hello" });
    config["mounts"] = json!([["data", "local", "data"]]);
    let kernel = agent.create_with(config).await.warm().await;
    kernel.run("x = 41\nopen('kept.txt', 'w').write('kept')").await;
    let run = kernel.execute("long", "query", "import time\ntime.sleep(6)\nprint('over')", json!({})).await;
    assert_eq!(run.unwrap()["status"], "continued");

    let is_refused = async |new_config: Json, why: &str| {
        let error = kernel.call("restart_kernel", json!([new_config])).await.expect_err(why);
        assert!(error.text().contains(why), "{error:?}");
        assert_eq!(docker::containers_named(&kernel.id).await, [kernel.container()], "{why}");
    };
    is_refused(json!({ "mounts": [["data", "local", "gone"]] }), "gone").await;
    is_refused(json!({ "mounts": [["../data", "local", "data"]] }), "../data").await;
    is_refused(json!({ "environ": { "A": "one\ntwo" } }), "line break").await;
    is_refused(json!({ "environ": { "A": "a".repeat(200_000) } }), "131071").await;
    is_refused(json!({ "mounts": "all" }), "mounts").await;
    engine.fail("POST", "/containers/create", Fails::Before, 1);
    is_refused(json!({}), "on purpose").await;
    std::fs::rename(bed.folders().join("local/data"), bed.folders().join("local/away")).unwrap();
    is_refused(json!({}), "data").await;
    std::fs::rename(bed.folders().join("local/away"), bed.folders().join("local/data")).unwrap();
    docker::docker(&["rmi", &tag]).await;
    is_refused(json!({ "mounts": [], "environ": {} }), &lang).await;
    let creating = bed.manager.all("kernel_creating", |event| event.args == json!([kernel.id]));
    assert_eq!(creating.len(), 1, "told of a restart that never began");

    let run = kernel.execute("long", "continue", "", json!({})).await.unwrap();
    assert!(run["console"].to_string().contains("over") || run["status"] == "continued", "{run}");
    let code = "import os\nprint(x, open('kept.txt').read(), os.environ['GREETING'], os.path.exists('data'))";
    assert_eq!(kernel.run(code).await.stdout(), "41 kept hello True\n");
    // All is well again.
    docker::docker(&["tag", &format!("lablup/kernel-{}", image::python()), &tag]).await;
    let again = kernel.call("restart_kernel", json!([{}])).await.expect("restart_kernel");
    docker::docker(&["rmi", &tag]).await;
    let code = "import os\nprint('x' in globals(), open('kept.txt').read(), os.environ['GREETING'])";
    assert_eq!(kernel.run(code).await.stdout(), "False kept hello\n");
    assert_eq!(docker::containers_named(&kernel.id).await, [again["container_id"].as_str().unwrap()]);
    assert!(bed.ends(&agent, &kernel.id).await.is_empty());
    kernel.destroy().await;
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

/// The manager sends what it has in its database: rounded, in another unit, or empty (managers from 1.4 on).
#[tokio::test]
async fn a_restart_keeps_limits_and_cores_whatever_is_sent() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let before = docker::inspect(kernel.container()).await;
    // GiB that 1.4.0 rounds, GiB as later ones have it, and nonsense.
    for memory in [json!(1), json!(0.5), json!("lots")] {
        let sent = json!({ "limits": { "mem_slot": memory, "cpu_slot": 2.0, "gpu_slot": 0.0 },
            "cpu_set": [], "gpu_set": [], "mounts": [], "environ": {} });
        let answer = kernel.call("restart_kernel", json!([sent])).await.expect("restart_kernel");
        assert_eq!(answer["cpu_set"], kernel.created["cpu_set"]);
        let after = docker::inspect(answer["container_id"].as_str().unwrap()).await;
        for limit in ["Memory", "MemorySwap", "CpuQuota", "CpusetCpus", "ShmSize", "PidsLimit"] {
            assert_eq!(after["HostConfig"][limit], before["HostConfig"][limit], "{limit}");
        }
        assert_eq!(after["Name"], before["Name"]);
        for label in ["ai.backend.limits", "ai.backend.cpu-set"] {
            assert_eq!(after["Config"]["Labels"][label], before["Config"]["Labels"][label], "{label}");
        }
    }
}

/// Docker starts the new container when the agent that asked for it is dead already.
#[tokio::test]
async fn a_restart_that_a_kill_cut_off_is_gone_on_with() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let mut config = kernel::config(&image::python());
    config["environ"] = json!({ "GREETING": "hello" });
    let kernel = agent.create_with(config).await.warm().await;
    kernel.run("open('kept.txt', 'w').write('kept')").await;
    for path in ["/containers/create", "/start"] {
        let before = docker::containers_named(&kernel.id).await;
        engine.fail("POST", path, Fails::Late, 1);
        let failed = engine.failed();
        let mut line = agent.rpc().connect().await;
        line.request("restart_kernel", &from_json(&json!([kernel.id, {}])), &from_json(&json!({}))).await;
        until("Docker's part of the restart", secs(10), async || (engine.failed() > failed).then_some(()))
            .await;
        agent.kill9();
        agent = bed.agent(&["--docker-host", &engine.host()]).await;
        let code = "import os\nprint(open('kept.txt').read(), os.environ.get('GREETING'))";
        assert_eq!(kernel.run(code).await.stdout(), "kept hello\n", "{path}");
        let after = docker::containers_named(&kernel.id).await;
        assert_eq!(after == before, path == "/containers/create", "{before:?} {after:?}");
    }
    assert!(bed.ends(&agent, &kernel.id).await.is_empty());
    engine.release();
    kernel.destroy().await;
    assert_eq!(bed.wait_end(&kernel.id, secs(5)).await.args[1], "user-requested");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}
