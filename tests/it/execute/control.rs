//! Interrupts and the execution time limit.

use serde_json::json;

use super::{BEGIN, begun};
use crate::support::docker::image;
use crate::support::{Bed, docker, secs};

#[tokio::test]
async fn an_interrupt_ends_the_run_that_is_going_on() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = format!("import time\n{BEGIN}while True: time.sleep(0.05)");
    let interrupt = async {
        begun(&bed, &kernel).await;
        kernel.call("interrupt_kernel", json!([])).await
    };
    let (run, answer) = tokio::join!(kernel.run(&code), interrupt);
    assert_eq!(answer, Ok(json!({ "status": "finished" })));
    assert_eq!(run.last()["status"], "finished");
    assert!(run.stderr().contains("Interrupted!"), "{run:?}");
    assert_eq!(kernel.run("print('goes on')").await.stdout(), "goes on\n");
}

/// The Python runner loses its worker when it is interrupted with nothing to do.
#[tokio::test]
async fn an_interrupt_of_an_idle_kernel_does_no_harm() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let answer = kernel.call("interrupt_kernel", json!([])).await;
    assert_eq!(answer, Ok(json!({ "status": "finished" })));
    let run = kernel.run("print('goes on')").await;
    assert_eq!((run.stdout(), run.stderr()), ("goes on\n".to_owned(), String::new()));
}

#[tokio::test]
async fn the_time_limit_ends_run_and_kernel_where_it_is_enforced() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--enforce-exec-timeout"]).await;
    let kernel = agent.create(&image::python_t5()).await.warm().await;
    let mut answer = kernel.execute("r", "query", "import time\ntime.sleep(60)", json!({})).await.unwrap();
    for _ in 0..3 {
        if answer["status"] == "continued" {
            answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
        }
    }
    assert_eq!(answer["status"], "exec-timeout", "{answer}");
    assert!(answer["exitCode"].is_null() && answer["options"].is_null());
    let end = bed.wait_end(&kernel.id, secs(10)).await;
    assert_eq!(end.args[1], "exec-timeout");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn the_time_limit_of_the_image_is_not_enforced_by_default() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create(&image::python_t5()).await.warm().await;
    let run = kernel.run("import time\ntime.sleep(6.5)\nprint('done')").await;
    assert_eq!((run.stdout().as_str(), run.last()["status"].as_str()), ("done\n", Some("finished")));
}
