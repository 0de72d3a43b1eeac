//! Several runs of one kernel, and calls that fit no run.

use serde_json::{Value as Json, json};

use super::{BEGIN, begun};
use crate::support::{Bed, Kernel, docker, secs};

const ASSERTION: &str = "builtins.AssertionError";

#[tokio::test]
async fn a_second_run_waits_for_the_first() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let first = format!("import time\norder = []\n{BEGIN}time.sleep(3)\norder.append('first')\nprint('one')");
    let second = async {
        begun(&bed, &kernel).await;
        kernel.run("order.append('second')\nprint(order)").await
    };
    let (first, second) = tokio::join!(kernel.run(&first), second);
    assert_eq!(first.stdout(), "one\n");
    assert_eq!(second.stdout(), "['first', 'second']\n");
}

#[tokio::test]
async fn many_runs_queue_and_keep_their_output_apart() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let runs = (0..8).map(|i| {
        let kernel = &kernel;
        async move { kernel.run(&format!("import time\ntime.sleep(0.05)\nprint('run {i}')")).await }
    });
    let runs = futures_util::future::join_all(runs).await;
    for (i, run) in runs.iter().enumerate() {
        assert_eq!(run.stdout(), format!("run {i}\n"));
    }
}

#[tokio::test]
async fn calls_that_fit_no_run_are_refused_and_do_no_harm() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    kernel.execute("finished", "query", "print(0)", json!({})).await.unwrap();
    let calls = [
        (2, "unknown", "continue"),
        (2, "finished", "continue"),
        (2, "unknown", "input"),
        (2, "r", "no-such-mode"),
        (2, "r", ""),
        (0, "r", "query"),
        (5, "r", "query"),
        (-1, "r", "query"),
    ];
    for (api, run, mode) in calls {
        let error = kernel.execute_as(api, json!(run), mode, json!("print(1)"), json!({})).await;
        let error = error.expect_err(&format!("api {api}, {mode} of {run} was taken"));
        assert_eq!(error.name, ASSERTION, "api {api}, {mode} of {run}: {error:?}");
        let run = kernel.run("print('goes on')").await;
        assert_eq!(run.stdout(), "goes on\n");
    }
}

#[tokio::test]
async fn a_destroy_makes_a_pending_execute_answer_nil() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = format!("import time\n{BEGIN}time.sleep(60)");
    let queued = async {
        begun(&bed, &kernel).await;
        // One call that waits for its turn, and the destroy once it does.
        let destroy = async {
            has_its_place(&kernel, "waits").await;
            kernel.destroy().await
        };
        tokio::join!(kernel.execute("waits", "query", "1", json!({})), destroy)
    };
    let (running, (waiting, statistics)) =
        tokio::join!(kernel.execute("r", "query", &code, json!({})), queued);
    assert_eq!(running, Ok(Json::Null));
    assert_eq!(waiting, Ok(Json::Null));
    assert!(statistics.is_object());
    let end = bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(end.args[1], "user-requested");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_restart_makes_a_pending_execute_answer_nil() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = format!("import time\n{BEGIN}time.sleep(60)");
    let restart = async {
        begun(&bed, &kernel).await;
        kernel.call("restart_kernel", json!([kernel.config])).await
    };
    let (running, restarted) = tokio::join!(kernel.execute("r", "query", &code, json!({})), restart);
    assert_eq!(running, Ok(Json::Null));
    assert!(restarted.unwrap().is_object());
    assert_eq!(kernel.run("print('again')").await.stdout(), "again\n");
    assert!(bed.ends(&agent, &kernel.id).await.is_empty());
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_place() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let first = format!("import time\nseen = ['first']\n{BEGIN}time.sleep(3)");
    let later = async {
        begun(&bed, &kernel).await;
        // Its connection closes while it waits for its turn.
        let given_up = kernel.execute("given-up", "query", "seen.append('given up')", json!({}));
        tokio::select! {
            answer = given_up => panic!("it came to its turn: {answer:?}"),
            () = has_its_place(&kernel, "given-up") => {}
        }
        kernel.run("seen.append('last')\nprint(seen)").await
    };
    let (_, last) = tokio::join!(kernel.run(&first), later);
    assert_eq!(last.stdout(), "['first', 'last']\n");
    let error = kernel.execute("given-up", "continue", "", json!({})).await.unwrap_err();
    assert_eq!(error.name, ASSERTION);
}

/// A run that waits for its turn can't be gone on with, and the refusal says so.
async fn has_its_place(kernel: &Kernel, run: &str) {
    let deadline = std::time::Instant::now() + secs(5);
    loop {
        let refused = kernel.execute(run, "continue", "", json!({})).await.expect_err("it has not begun");
        if refused.text().contains("waits for its turn") {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{refused:?}");
    }
}
