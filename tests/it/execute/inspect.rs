//! Completions and logs.

use serde_json::{Value as Json, json};

use super::{BEGIN, begun};
use crate::support::{Bed, docker};

fn completions(answer: &Json) -> Vec<&str> {
    assert_eq!(answer["status"], "finished", "{answer}");
    answer["completions"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[tokio::test]
async fn completions_are_answered_in_both_forms() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    kernel.run("foobar_one = 1\nfoobar_two = 2").await;
    let opts = json!({ "row": 0, "col": 6, "line": "foobar", "post": "" });
    for args in [json!(["foobar", opts]), json!(["query", "foobar", opts])] {
        let answer = kernel.call("get_completions", args).await.unwrap();
        let mut found = completions(&answer);
        found.sort_unstable();
        assert_eq!(found, ["foobar_one", "foobar_two"]);
    }
    let opts = json!({ "row": 0, "col": 11, "line": "no_such_name", "post": "" });
    let answer = kernel.call("get_completions", json!(["no_such_name", opts])).await.unwrap();
    assert_eq!(completions(&answer), Vec::<&str>::new());
}

/// This runner answers nothing at all to a request without `line`, so the agent fills it in.
#[tokio::test]
async fn a_completion_without_a_line_is_answered_and_spoils_nothing() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let answer = kernel.call("get_completions", json!(["impo", {}])).await.unwrap();
    assert_eq!(completions(&answer), ["import"]);
    assert_eq!(kernel.run("print(1)").await.stdout(), "1\n");
    let opts = json!({ "row": 0, "col": 8, "line": "sys.stdo", "post": "" });
    kernel.run("import sys").await;
    let answer = kernel.call("get_completions", json!(["sys.stdo", opts])).await.unwrap();
    assert!(completions(&answer).contains(&"sys.stdout"), "{answer}");
}

#[tokio::test]
async fn the_record_of_a_completion_is_no_output_of_a_run() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let opts = json!({ "row": 0, "col": 4, "line": "impo", "post": "" });
    let during = async {
        begun(&bed, &kernel).await;
        kernel.call("get_completions", json!(["impo", opts])).await
    };
    let code = format!("import time\n{BEGIN}time.sleep(1)\nprint('done')");
    let (run, _either_answer_is_fine) = tokio::join!(kernel.run(&code), during);
    for answer in &run.answers {
        for record in answer["console"].as_array().unwrap() {
            assert_eq!(record[0], "stdout", "{run:?}");
        }
    }
    assert_eq!(run.stdout(), "done\n");
}

#[tokio::test]
async fn logs_are_what_docker_has() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    assert_eq!(kernel.call("get_logs", json!([])).await, Ok(json!({ "logs": "" })));
    let script = "for i in 1 2 3; do echo \"line $i ☃\" >/proc/1/fd/1; done";
    docker::docker(&["exec", kernel.container(), "/bin/sh", "-c", script]).await;
    let logs = kernel.call("get_logs", json!([])).await.unwrap();
    assert_eq!(logs, json!({ "logs": "line 1 ☃\r\nline 2 ☃\r\nline 3 ☃\r\n" }));
}
