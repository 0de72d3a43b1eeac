//! Query mode: shapes of answers, output, input.

use serde_json::{Value as Json, json};

use crate::support::Bed;

const BOTH: &str = "import sys\nprint('out1')\nprint('err1', file=sys.stderr)\nprint('out2')";

#[tokio::test]
async fn answers_have_the_shape_of_their_api_version() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let head = |run: &str| json!({ "runId": run, "status": "finished", "exitCode": 0, "options": null, "files": [] });
    let with = |mut answer: Json, more: Json| {
        answer.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        answer
    };
    let console = json!({ "console": [["stdout", "out1\n"], ["stderr", "err1\n"], ["stdout", "out2\n"]] });
    for api in [2, 3] {
        let run = format!("api-{api}");
        let answer = kernel.execute_as(api, json!(run), "query", json!(BOTH), json!({})).await.unwrap();
        assert_eq!(answer, with(head(&run), console.clone()));
    }
    let first = json!({ "stdout": "out1\nout2\n", "stderr": "err1\n", "media": [], "html": [] });
    let answer = kernel.execute_as(1, json!("api-1"), "query", json!(BOTH), json!({})).await.unwrap();
    assert_eq!(answer, with(head("api-1"), first));
}

#[tokio::test]
async fn media_and_html_come_in_order() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "from ai.backend.kernel.python.types import MediaRecord, HTMLRecord\nprint('a')\n\
                _sorna_emit(MediaRecord('image/svg+xml', '<svg/>'))\nprint('b')\n_sorna_emit(HTMLRecord('<b>x</b>'))";
    let answer = kernel.execute("r", "query", code, json!({})).await.unwrap();
    let console = json!([
        ["stdout", "a\n"],
        ["media", ["image/svg+xml", "<svg/>"]],
        ["stdout", "b\n"],
        ["html", "<b>x</b>"]
    ]);
    assert_eq!(answer["console"], console);
    let answer = kernel.execute_as(1, json!("r1"), "query", json!(code), json!({})).await.unwrap();
    assert_eq!(answer["stdout"], "a\nb\n");
    assert_eq!(answer["media"], json!([["image/svg+xml", "<svg/>"]]));
    assert_eq!(answer["html"], json!(["<b>x</b>"]));
}

#[tokio::test]
async fn output_is_joined_and_keeps_every_character() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let answer = kernel
        .execute("r", "query", "for i in range(500): print(i, 'héllo ☃ 한글')", json!({}))
        .await
        .unwrap();
    let expected = (0..500).map(|i| format!("{i} héllo ☃ 한글\n")).collect::<Vec<_>>().concat();
    assert_eq!(answer["console"], json!([["stdout", expected]]), "one record, everything in it");
    let run = kernel.run("print('é' * 2_000_000)").await;
    assert!(run.stdout().trim_end().chars().all(|c| c == 'é'));
    assert_eq!(run.stdout().chars().count(), 2_000_001);
}

#[tokio::test]
async fn an_exception_is_output_like_any_other() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let run = kernel.run("1/0").await;
    assert_eq!(run.last()["exitCode"], 0);
    assert!(run.stderr().ends_with("ZeroDivisionError: division by zero\n"), "{run:?}");
    assert_eq!(kernel.run("print(1)").await.stdout(), "1\n");
}

#[tokio::test]
async fn code_opts_and_run_id_may_be_nil() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let answer = kernel.execute_as(2, Json::Null, "query", Json::Null, Json::Null).await.unwrap();
    assert_eq!((&answer["status"], &answer["console"]), (&json!("finished"), &json!([])));
    let run = answer["runId"].as_str().unwrap();
    assert!(run.len() == 32 && run.chars().all(|c| c.is_ascii_hexdigit()), "{run}");
    let other = kernel.execute_as(2, Json::Null, "query", json!(""), json!({})).await.unwrap();
    assert_ne!(other["runId"], run);
}

#[tokio::test]
async fn a_long_run_is_continued_every_two_seconds() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let begin = std::time::Instant::now();
    let run =
        kernel.run("import time\nfor i in range(5):\n    print(i)\n    time.sleep(1)\nprint('end')").await;
    let took = begin.elapsed();
    assert_eq!(run.statuses(), ["continued", "continued", "finished"]);
    assert_eq!(run.stdout(), "0\n1\n2\n3\n4\nend\n");
    assert!(run.answers.iter().take(2).all(|answer| answer["exitCode"].is_null()));
    assert!(took.as_secs_f64() > 4.9 && took.as_secs_f64() < 7.0, "{took:?}");
    let ids: Vec<&Json> = run.answers.iter().map(|answer| &answer["runId"]).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

/// A client need not be there all the time: what comes while nobody waits is kept for the next `continue`.
#[tokio::test]
async fn output_between_two_calls_is_found_by_the_next() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\ntime.sleep(2.3)\nprint('between')\nopen('/home/work/begun', 'w').close()";
    let first = kernel.execute("r", "query", code, json!({})).await.unwrap();
    assert_eq!(first["status"], "continued");
    super::begun(&bed, &kernel).await;
    let last = kernel.execute("r", "continue", "", json!({})).await.unwrap();
    assert_eq!(last["status"], "finished");
    assert_eq!(last["console"], json!([["stdout", "between\n"]]));
}

#[tokio::test]
async fn input_is_asked_for_and_given() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let asked = kernel.execute("r", "query", "x = input('name? ')\nprint('hi', x)", json!({})).await.unwrap();
    assert_eq!((&asked["status"], &asked["exitCode"]), (&json!("waiting-input"), &Json::Null));
    assert_eq!(asked["options"], json!({ "is_password": false }));
    assert_eq!(asked["console"], json!([["stdout", "name? "]]));
    let done = kernel.execute("r", "input", "héllo ☃", json!({})).await.unwrap();
    assert_eq!((&done["status"], &done["options"]), (&json!("finished"), &Json::Null));
    assert_eq!(done["console"], json!([["stdout", "hi héllo ☃\n"]]));

    let code = "import getpass\na = getpass.getpass('key: ')\nb = input()\nprint(len(a), b)";
    let run = kernel.run_with("query", code, json!({}), &["secret", "second"]).await;
    assert_eq!(run.statuses(), ["waiting-input", "waiting-input", "finished"]);
    assert_eq!(run.answers[0]["options"], json!({ "is_password": true }));
    assert!(run.stdout().ends_with("6 second\n"), "{run:?}");
}

#[tokio::test]
async fn the_interpreter_remembers() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await;
    kernel.run("x = 41").await;
    assert_eq!(kernel.run("print(x + 1)").await.stdout(), "42\n");
}
