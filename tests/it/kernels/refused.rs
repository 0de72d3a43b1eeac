//! Requests that are refused, and that nothing is left of them.

use serde_json::{Value as Json, json};

use crate::support::docker::{self, image};
use crate::support::{Agent, Bed, RemoteError, kernel, new_id};

const ASSERTION: &str = "builtins.AssertionError";
const RUNTIME: &str = "builtins.RuntimeError";
const PARAMETERS: &str = "aiozmq.rpc.base.ParametersError";

async fn create_refused(agent: &Agent, id: &str, config: &Json) -> RemoteError {
    match agent.call("create_kernel", json!([id, config])).await {
        Ok(answer) => panic!("{config} made a kernel: {answer}"),
        Err(error) => error,
    }
}

/// No directory, no container, and nothing of the kernel was told as ended: the manager has no session for it.
async fn nothing_is_left(bed: &Bed, id: &str) {
    assert!(bed.scratch_dirs().is_empty(), "{:?}", bed.scratch_dirs());
    assert!(docker::containers_named(id).await.is_empty());
    assert!(bed.manager.all("kernel_terminated", |event| event.args[0] == id).is_empty());
}

#[tokio::test]
async fn a_kernel_id_that_is_no_uuid_is_refused_everywhere() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let precious = bed.scratch().join("precious");
    std::fs::create_dir(&precious).unwrap();
    let config = kernel::config(&image::tiny());
    let uuid = new_id();
    // Every one of these, taken as a path, stays inside this bed's own directory: a wrong agent runs as root and
    // deletes what it is given, so no test may ever name anything of the host ("/" least of all).
    let absolute = precious.display().to_string();
    let (bare, braced) = (uuid.replace('-', ""), format!("{{{uuid}}}"));
    let bad = ["", ".", "..", "precious", "../scratch", &absolute, &bare, &braced];
    for id in bad {
        let calls = [
            ("create_kernel", json!([id, config])),
            ("destroy_kernel", json!([id])),
            ("restart_kernel", json!([id, config])),
            ("interrupt_kernel", json!([id])),
            ("get_logs", json!([id])),
            ("get_completions", json!([id, "impo", {}])),
            ("execute", json!([2, id, "r", "query", "1", {}])),
        ];
        for (method, args) in calls {
            let error = agent.call(method, args).await.expect_err(method);
            assert_eq!(error.name, ASSERTION, "{method} of {id:?}: {error:?}");
            assert!(error.text().contains("UUID"), "{method} of {id:?}: {error:?}");
        }
        let upload = rmpv::Value::Array(vec![id.into(), "x".into(), rmpv::Value::Binary(vec![1])]);
        let error = agent
            .rpc()
            .call_with("upload_file", upload, rmpv::Value::Map(vec![]), crate::support::secs(3))
            .await;
        assert_eq!(error.unwrap_err().name, ASSERTION, "upload_file of {id:?}");
    }
    assert_eq!(bed.scratch_dirs(), ["precious"]);
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty());
    assert!(bed.manager.all("kernel_creating", |_| true).is_empty());
}

#[tokio::test]
async fn an_image_that_is_not_here_is_refused() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    for lang in ["no-such-image:latest", "python:no-such-tag", "BAD IMAGE", "", ":", "../python:latest"] {
        let id = new_id();
        let error = create_refused(&agent, &id, &kernel::config(lang)).await;
        assert!([ASSERTION, RUNTIME].contains(&error.name.as_str()), "{lang:?}: {error:?}");
        assert!(error.text().contains(lang), "{lang:?} is not named: {error:?}");
        nothing_is_left(&bed, &id).await;
    }
}

#[tokio::test]
async fn configs_that_make_no_sense_are_refused() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let good = kernel::config(&image::tiny());
    let without = |key: &str| {
        let mut config = good.clone();
        config.as_object_mut().unwrap().remove(key);
        config
    };
    let with = |pointer: &str, value: Json| {
        let mut config = good.clone();
        *config.pointer_mut(pointer).unwrap() = value;
        config
    };
    let cases = [
        without("lang"),
        without("limits"),
        with("/lang", json!(5)),
        with("/limits", json!({})),
        with("/limits/mem_slot", json!("lots")),
        with("/limits/mem_slot", json!(-1)),
        with("/limits/cpu_slot", json!(-1)),
        with("/limits/gpu_slot", json!(1)),
        with("/environ", json!([1])),
        with("/environ", json!({ "A": "two\nlines=1" })),
        with("/environ", json!({ "A=B": "x" })),
        with("/mounts", json!("x")),
        with("/mounts", json!([["name", "host"]])),
    ];
    for config in cases {
        let id = new_id();
        let error = create_refused(&agent, &id, &config).await;
        assert!([ASSERTION, PARAMETERS].contains(&error.name.as_str()), "{config}: {error:?}");
        nothing_is_left(&bed, &id).await;
    }
    let kernel = agent.create_with(good).await;
    kernel.destroy().await;
}

#[tokio::test]
async fn calls_for_a_kernel_that_is_not_there_are_refused() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let id = new_id();
    let calls = [
        ("restart_kernel", json!([id, kernel::config(&image::tiny())])),
        ("interrupt_kernel", json!([id])),
        ("get_logs", json!([id])),
        ("get_completions", json!([id, "impo", {}])),
        ("execute", json!([2, id, "r", "query", "1", {}])),
        ("execute", json!([2, id, "r", "continue", "", {}])),
    ];
    for (method, args) in calls {
        let error = agent.call(method, args).await.expect_err(method);
        assert!([ASSERTION, RUNTIME].contains(&error.name.as_str()), "{method}: {error:?}");
        assert!(error.text().contains(&id), "{method} does not name the kernel: {error:?}");
    }
    nothing_is_left(&bed, &id).await;
}
