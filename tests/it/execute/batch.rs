//! Batch mode, and the files that runs leave.

use serde_json::json;

use crate::support::Bed;

#[tokio::test]
async fn a_batch_builds_then_runs() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    kernel.upload("main.py", b"import sys\nprint('from main')\nsys.exit(3)\n").await.unwrap();
    let opts = json!({ "build": "echo building", "exec": "python3 main.py" });
    let run = kernel.run_with("batch", "", opts, &[]).await;
    let statuses: Vec<&str> = run.statuses().into_iter().filter(|&status| status != "continued").collect();
    assert_eq!(statuses, ["build-finished", "finished"]);
    let built = run.answers.iter().find(|answer| answer["status"] == "build-finished").unwrap();
    assert_eq!((&built["exitCode"], &built["console"]), (&json!(0), &json!([["stdout", "building\n"]])));
    assert_eq!(run.last()["exitCode"], 3);
    assert_eq!(run.stdout(), "building\nfrom main\n");
}

#[tokio::test]
async fn a_failed_build_says_so() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let opts = json!({ "build": "exit 3", "exec": "echo never" });
    let run = kernel.run_with("batch", "", opts, &[]).await;
    let built = run.answers.iter().find(|answer| answer["status"] == "build-finished").unwrap();
    assert_eq!(built["exitCode"], 3);
    assert_eq!(run.last()["exitCode"], 127);
    assert_eq!(run.stdout(), "");
}

#[tokio::test]
async fn parts_of_a_batch_may_be_nil_or_absent() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    for opts in [json!({ "exec": "echo ran" }), json!({ "build": null, "exec": "echo ran" })] {
        let run = kernel.run_with("batch", "", opts, &[]).await;
        assert_eq!((run.stdout(), &run.last()["exitCode"]), ("ran\n".to_owned(), &json!(0)));
    }
    for opts in [json!({ "build": "echo built", "exec": null }), json!({})] {
        let run = kernel.run_with("batch", "", opts, &[]).await;
        assert_eq!(run.last()["status"], "finished");
    }
    assert_eq!(kernel.run("print(1)").await.stdout(), "1\n");
}

#[tokio::test]
async fn a_character_cut_in_two_is_put_together() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let exec = r"printf '\342\230'; sleep 0.3; printf '\203 whole, \377 not\n'";
    let run = kernel.run_with("batch", "", json!({ "exec": exec }), &[]).await;
    assert_eq!(run.stdout(), "☃ whole, \u{fffd} not\n");
}

#[tokio::test]
async fn files_that_a_run_made_are_named() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import os\nos.makedirs('/home/work/.output/sub', exist_ok=True)\n\
                for name in ('one.txt', '.hidden', 'sub/two.txt'):\n    \
                open('/home/work/.output/' + name, 'w').write('x')";
    let answer = kernel.run(code).await.last()["files"].clone();
    let mut files = answer.as_array().unwrap().clone();
    files.sort_by_key(|file| file["name"].as_str().unwrap().to_owned());
    let dummy = "#dummy-upload";
    assert_eq!(
        files,
        [json!({ "name": "one.txt", "url": dummy }), json!({ "name": "sub/two.txt", "url": dummy })]
    );
    assert_eq!(kernel.run("print(1)").await.last()["files"], json!([]), "nothing new");
    let again = "open('/home/work/.output/one.txt', 'a').write('more')";
    let files = kernel.run(again).await.last()["files"].clone();
    assert_eq!(files, json!([{ "name": "one.txt", "url": dummy }]), "newer");
    let batch = json!({ "exec": "echo x >.output/three.txt" });
    let files = kernel.run_with("batch", "", batch, &[]).await.last()["files"].clone();
    assert_eq!(files, json!([{ "name": "three.txt", "url": dummy }]));
    let quiet = json!({ "upload_output_files": false });
    let four = "open('/home/work/.output/four.txt', 'w').write('x')";
    assert_eq!(kernel.run_with("query", four, quiet, &[]).await.last()["files"], json!([]));
}
