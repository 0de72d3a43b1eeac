//! `restart_kernel`: a new container, the same session.

use serde_json::{Value as Json, json};

use crate::support::docker::{self, image};
use crate::support::msgpack::keys;
use crate::support::{Bed, kernel, secs};

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

#[tokio::test]
async fn a_restart_that_fails_ends_the_kernel_once() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let mut bad = kernel.config.clone();
    bad["lang"] = json!("no-such-image:latest");
    let error = kernel.call("restart_kernel", json!([bad])).await.expect_err("restarted with no image");
    assert!(error.text().contains("no-such-image"), "{error:?}");
    // Refused before anything was touched, or ended for good; nothing in between.
    let ends = bed.ends(&agent, &kernel.id).await;
    let left = docker::containers_named(&kernel.id).await;
    match ends.len() {
        0 => assert_eq!(left, [kernel.container()]),
        1 => {
            docker::gone(&kernel.id).await;
            assert_eq!(kernel.destroy().await, Json::Null);
        }
        _ => panic!("{ends:?}"),
    }
    assert_eq!(agent.call("ping", json!(["alive"])).await.unwrap(), "alive");
}
