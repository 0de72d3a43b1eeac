//! How long managers of each series wait, where that shows in the call (PROTOCOL section 3).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::docker::image;
use crate::support::engine::Engine;
use crate::support::msgpack::{from_json, to_json};
use crate::support::{Bed, kernel, new_id, secs};

/// Without `flush_timeout` an answer comes after 2 s.
#[tokio::test]
async fn a_run_is_told_of_after_as_long_as_its_asker_says() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let ask = async |mode: &str, code: &str, flush: serde_json::Value| {
        let asked = Instant::now();
        let args = json!([2, kernel.id, "r", mode, code, {}, flush]);
        let answer = agent.rpc().call("execute", args, secs(20)).await.unwrap();
        (answer["status"].as_str().unwrap().to_owned(), asked.elapsed())
    };
    // As the manager's web sockets ask.
    let (status, took) = ask("query", "import time\ntime.sleep(5)", json!(0.2)).await;
    assert_eq!(status, "continued");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    // As long as the run lasts.
    let (status, took) = ask("continue", "", json!(null)).await;
    assert_eq!(status, "finished");
    assert!(took > secs(2), "{took:?}");
}

/// The manager that sends `tpu_slot` waits for 30 s, the others for 3 s.
#[tokio::test]
async fn a_create_has_as_long_as_its_manager_waits() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let none = rmpv::Value::Map(Vec::new());
    let text = json!({ "mem_slot": "0.0625", "cpu_slot": "0.5", "gpu_slot": "0" });
    let config = |limits: &serde_json::Value| json!({ "lang": image::tiny(), "limits": limits, "mounts": [], "environ": {} });
    let mut patient = text.clone();
    patient["tpu_slot"] = json!("0");
    engine.hang();
    let mut line = agent.rpc().connect().await;
    let id = new_id();
    let asked = line.request("create_kernel", &from_json(&json!([id, config(&patient)])), &none).await;
    for limits in [&kernel::config("")["limits"], &text] {
        let refused = agent.rpc().call("create_kernel", json!([new_id(), config(limits)]), secs(10)).await;
        assert!(refused.unwrap_err().text().contains("3 s"), "{limits}");
    }
    engine.pass();
    let answer = line.answer(secs(20)).await.expect("the create is over");
    assert_eq!(answer.header.id, asked);
    assert_eq!(to_json(&answer.result.unwrap())["id"], id);
}
