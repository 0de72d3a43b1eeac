//! Each step that Docker does for a kernel fails in turn (PROTOCOL section 12, items 13 and 23).

use serde_json::json;

use crate::support::docker::{self, image};
use crate::support::engine::{Engine, Fails};
use crate::support::{Agent, Bed, Kernel, kernel, new_id, secs, until};

/// Directories of kernels and the agent's notes of them.
fn traces(bed: &Bed) -> Vec<String> {
    let notes = std::fs::read_dir(bed.scratch().join(".agent/kernels")).unwrap();
    let notes = notes.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    bed.scratch_dirs().into_iter().chain(notes).collect()
}

/// The cores that a new kernel gets, which tell whether those of earlier ones are free.
async fn cores(agent: &Agent) -> serde_json::Value {
    let kernel = agent.create_tiny().await;
    kernel.destroy().await;
    kernel.created["cpu_set"].clone()
}

#[tokio::test]
async fn a_create_of_which_any_step_fails_leaves_nothing() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host(), "--create-deadline", "9"]).await;
    let free = cores(&agent).await;
    let steps = [("POST", "/containers/create"), ("POST", "/start"), ("GET", "/containers/*/json")];
    for (method, path) in steps {
        for fails in [Fails::Before, Fails::After] {
            let (id, before) = (new_id(), engine.failed());
            engine.fail(method, path, fails, 1);
            let made = agent.call("create_kernel", json!([id, kernel::config(&image::tiny())])).await;
            let error = made.expect_err(path);
            assert!(engine.failed() > before, "{path}: nothing failed, but {error:?}");
            assert!(error.name == "builtins.RuntimeError" && error.text().contains("container"), "{error:?}");
            docker::gone(&id).await;
            until("the end of all traces", secs(5), async || traces(&bed).is_empty().then_some(())).await;
            assert_eq!(cores(&agent).await, free, "{path}: cores are still taken");
            assert_eq!(bed.ends(&agent, &id).await.len(), 0, "nobody was told of it");
        }
    }
}

#[tokio::test]
async fn a_removal_that_fails_is_tried_again() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host(), "--create-deadline", "9"]).await;
    for fails in [Fails::Before, Fails::After] {
        let kernel = agent.create_tiny().await;
        engine.fail("DELETE", "/containers/", fails, 3);
        kernel.destroy().await;
        bed.wait_end(&kernel.id, secs(5)).await;
        docker::gone(&kernel.id).await;
        until("the end of all traces", secs(5), async || traces(&bed).is_empty().then_some(())).await;
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
}

/// Ends a kernel whose restart failed: told once, nothing left.
async fn is_over(bed: &Bed, agent: &Agent, kernel: &Kernel) {
    let end = bed.wait_end(&kernel.id, secs(10)).await;
    assert_eq!(end.args[1], "self-terminated");
    docker::gone(&kernel.id).await;
    until("the end of all traces", secs(5), async || traces(bed).is_empty().then_some(())).await;
    assert_eq!(bed.ends(agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_restart_that_has_begun_and_fails_ends_the_kernel_once() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host(), "--create-deadline", "9"]).await;
    let free = cores(&agent).await;
    for (method, path) in [("POST", "/start"), ("GET", "/containers/*/json")] {
        let kernel = agent.create_tiny().await;
        engine.fail(method, path, Fails::Before, 1);
        kernel.call("restart_kernel", json!([{}])).await.expect_err(path);
        is_over(&bed, &agent, &kernel).await;
        assert_eq!(cores(&agent).await, free, "{path}: cores are still taken");
    }
}

#[tokio::test]
async fn a_restart_goes_on_where_docker_fails_to_remove_or_rename() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let kernel = agent.create_tiny().await;
    // Without its usual name it is restarted as well, and under that once more.
    for (method, path) in [("DELETE", "/containers/"), ("POST", "/rename"), ("POST", "/rename")] {
        let failed = engine.failed();
        engine.fail(method, path, Fails::Before, 1);
        let answer = kernel.call("restart_kernel", json!([{}])).await.expect(path);
        assert_eq!(engine.failed(), failed + 1, "{path}");
        let left = docker::containers_named(&kernel.id).await;
        assert_eq!(left, [answer["container_id"].as_str().unwrap()], "{path}");
    }
    kernel.destroy().await;
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_create_that_docker_does_long_after_its_time_leaves_nothing() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed
        .agent(&["--docker-host", &engine.host(), "--reconcile-interval", "1", "--create-deadline", "2"])
        .await;
    let id = new_id();
    engine.fail("POST", "/containers/create", Fails::Late, 1);
    agent.call("create_kernel", json!([id, kernel::config(&image::tiny())])).await.expect_err("too late");
    until("the end of all traces", secs(5), async || traces(&bed).is_empty().then_some(())).await;
    // Docker makes no container over a directory that is gone.
    for mounted in ["work", "config"] {
        std::fs::create_dir_all(bed.scratch().join(&id).join(mounted)).unwrap();
    }
    engine.release();
    until("the late container", secs(5), async || {
        (!docker::containers_named(&id).await.is_empty() || agent.output().contains("belongs to no kernel"))
            .then_some(())
    })
    .await;
    docker::gone(&id).await;
    assert_eq!(bed.ends(&agent, &id).await.len(), 0, "nobody was told of it");
}
