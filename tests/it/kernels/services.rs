//! What runners from 18.12 on know beyond the older ones: services, and the clean step of a batch (PROTOCOL sections 5 and 8).

use serde_json::json;

use crate::support::docker::{TestImage, image};
use crate::support::{Bed, http, new_id, secs};

/// Two services, and a runner that knows them.
async fn of_18_12() -> TestImage {
    TestImage::with_runner(
        include_str!("../../peers/runner.py"),
        &["ai.backend.service-ports=web:http:8080,broken:tcp:8081"],
    )
    .await
}

#[tokio::test]
async fn a_service_is_started_once_and_reached_at_its_port() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let image = of_18_12().await;
    let kernel = agent.create(image.lang()).await;
    for expected in ["started", "running"] {
        let answer = kernel.call("start_service", json!(["web", {}])).await.unwrap();
        assert_eq!(answer, json!({ "status": expected }));
    }
    let web = &kernel.created["service_ports"][0];
    assert_eq!((&web["name"], &web["protocol"]), (&json!("web"), &json!("http")));
    let port = u16::try_from(web["host_port"].as_u64().unwrap()).unwrap();
    assert_eq!(http::get(port, "/").await, Some((200, "a page".to_owned())));
    let failed = kernel.call("start_service", json!(["broken", {}])).await.unwrap();
    assert_eq!(failed, json!({ "status": "failed", "error": "it has no program" }));
}

#[tokio::test]
async fn a_batch_begins_with_its_clean_step() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let image = of_18_12().await;
    let kernel = agent.create(image.lang()).await;
    let run = new_id();
    let opts = json!({ "clean": "echo cleaned; exit 3", "build": null, "exec": "echo ran" });
    // Seven arguments, as the manager of 18.12 sends them.
    let asked = json!([3, kernel.id, run, "batch", "", opts, 2.0]);
    let mut answers = vec![agent.rpc().call("execute", asked, secs(10)).await.unwrap()];
    while answers.last().unwrap()["status"] != "finished" {
        let on = json!([3, kernel.id, run, "continue", "", {}, 2.0]);
        answers.push(agent.rpc().call("execute", on, secs(10)).await.unwrap());
        assert!(answers.len() < 10, "{answers:?}");
    }
    answers.retain(|answer| answer["status"] != "continued");
    let told = answers.iter().map(|answer| (&answer["status"], &answer["exitCode"], &answer["console"]));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (&json!("clean-finished"), &json!(3), &json!([["stdout", "cleaned\n"]])),
            (&json!("build-finished"), &json!(0), &json!([])),
            (&json!("finished"), &json!(0), &json!([["stdout", "ran\n"]])),
        ]
    );
}

/// A runner of 1.3 passes the clean step over, and so does the run.
#[tokio::test]
async fn an_older_runner_s_batch_begins_with_its_build_step() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create(&image::python()).await.warm().await;
    let opts = json!({ "clean": "echo cleaned", "build": "echo built", "exec": "echo ran" });
    let run = kernel.run_with("batch", "", opts, &[]).await;
    assert_eq!(run.stdout(), "built\nran\n");
}
