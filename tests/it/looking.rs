//! The operator's commands over the local socket, the page, and the drain.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::http::get;
use crate::support::ports::Port;
use crate::support::{Agent, Bed, docker, kernel, new_id, secs, until};

fn socket(bed: &Bed) -> PathBuf {
    bed.outside().join("agent.sock")
}

fn command(bed: &Bed, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
    command.args(args).arg("--socket").arg(socket(bed)).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(bed: &Bed, args: &[&str]) -> Output {
    tokio::time::timeout(secs(30), command(bed, args).output()).await.unwrap().unwrap()
}

async fn said(bed: &Bed, args: &[&str]) -> String {
    let output = run(bed, args).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn status(bed: &Bed) -> Json {
    serde_json::from_str(&said(bed, &["status", "--json"]).await).unwrap()
}

async fn ready(bed: &Bed) {
    until("a ready agent", secs(10), async || (status(bed).await["ready"] == true).then_some(())).await;
}

/// The slots of the newest heartbeat that came after now.
async fn slots(bed: &Bed) -> Json {
    let before = bed.manager.all("instance_heartbeat", |_| true).len();
    let beats = bed.manager.wait("instance_heartbeat", before + 2, |_| true, secs(10)).await;
    let info = &beats.last().unwrap().args[0];
    json!([info["mem_slots"], info["cpu_slots"]])
}

#[tokio::test]
async fn the_commands_show_a_running_agent_over_its_socket() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--stats-interval", "500ms", "--create-deadline", "9"]).await;
    let mode = std::fs::metadata(socket(&bed)).unwrap().permissions().mode() & 0o007;
    assert_eq!(mode, 0, "others reach the socket");
    ready(&bed).await;
    let kernel = agent.create_python().await;
    kernel.run("print(1)").await;
    let idle = until("the kernel's figures", secs(10), async || {
        let status = status(&bed).await;
        (status["kernels"][0]["used"] != Json::Null).then_some(status)
    })
    .await;
    let shown = &idle["kernels"][0];
    assert_eq!(
        (&shown["id"], &shown["state"], &shown["run"]),
        (&json!(kernel.id), &json!("running"), &Json::Null)
    );
    assert_eq!(
        (&shown["memory_limit"], &shown["cores"]),
        (&json!(256 << 20), &kernel.created["cpu_set"]),
        "{idle}"
    );
    assert!(shown["idle_for"].as_f64().is_some_and(|idle| idle < 30.0), "{idle}");
    assert!(shown["created"].as_f64().unwrap() > 1.6e9, "{idle}");
    assert_eq!((&idle["instance"], &idle["pid"]), (&json!(bed.instance), &json!(agent.pid())));
    let given: u64 =
        idle["node"]["cores"].as_array().unwrap().iter().map(|core| core[1].as_u64().unwrap()).sum();
    assert_eq!(given, 1, "{idle}");
    assert!(idle["conditions"].as_array().unwrap().iter().all(|need| need["ok"] == true), "{idle}");

    let run_id = new_id();
    let begun = kernel.execute(&run_id, "query", "import time\ntime.sleep(30)", json!({})).await.unwrap();
    assert_eq!(begun["status"], "continued");
    let ps = said(&bed, &["ps"]).await;
    assert!(ps.contains(&kernel.id) && ps.contains(&format!("run {run_id} for ")), "{ps}");
    let top = said(&bed, &["top", "--count", "2", "--every", "600ms"]).await;
    assert!(top.matches(&kernel.id).count() == 2 && top.contains(": ready, up "), "{top}");
    let text = said(&bed, &["status"]).await;
    assert!(text.contains("undrained") && text.contains("; 1 kernel;"), "{text}");
    // No code, no environment, wherever it is looked.
    let all = said(&bed, &["status", "--json"]).await;
    assert!(!all.contains("time.sleep"), "{all}");
}

#[tokio::test]
async fn the_log_of_a_kernel_is_shown_over_the_socket_and_over_the_port() {
    let bed = Bed::start().await;
    let metrics = Port::lease();
    let address = format!("127.0.0.1:{}", metrics.number());
    let agent = bed.agent(&["--create-deadline", "9", "--metrics-addr", &address]).await;
    ready(&bed).await;
    let kernel = agent.create_tiny().await;
    let script = "for i in 1 2 3; do echo \"line $i\" >/proc/1/fd/1; done";
    docker::docker(&["exec", kernel.container(), "/bin/sh", "-c", script]).await;
    assert_eq!(said(&bed, &["logs", &kernel.id]).await, "line 1\nline 2\nline 3\n");
    let last = "line 3";
    assert_eq!(said(&bed, &["logs", &kernel.id, "--tail", "1"]).await.trim_end(), last);
    let json: Json =
        serde_json::from_str(&said(&bed, &["logs", &kernel.id, "--tail", "1", "--json"]).await).unwrap();
    assert_eq!(json, json!({ "logs": last }));
    // As a manager would, and from elsewhere.
    let over_the_port = Command::new(env!("CARGO_BIN_EXE_backendai-agent"))
        .args(["logs", &kernel.id, "--tail", "1", "--agent", &agent.rpc().address().to_string()])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&over_the_port.stdout).trim_end(), last);
    // What users' code prints is nothing for whoever reaches the port of the figures.
    assert_eq!(get(metrics.number(), &format!("/logs/{}", kernel.id)).await.unwrap().0, 404);
    let unknown = run(&bed, &["logs", &new_id()]).await;
    assert_eq!(unknown.status.code(), Some(1));
    let why = String::from_utf8_lossy(&unknown.stderr);
    assert!(why.contains("is not running on this agent"), "{why}");
}

#[tokio::test]
async fn events_are_followed_as_the_manager_hears_them() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--create-deadline", "9"]).await;
    let mut listener = command(&bed, &["events", "--no-heartbeats", "--count", "2"]);
    let mut listener = listener.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    // A listener of heartbeats says when listening works.
    assert!(said(&bed, &["events", "--count", "1"]).await.starts_with("instance_heartbeat "));
    let kernel = agent.create_tiny().await;
    kernel.destroy().await;
    let mut next =
        async || tokio::time::timeout(secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, format!("kernel_creating {} \"{}\"", bed.instance, kernel.id));
    assert!(
        next()
            .await
            .starts_with(&format!("kernel_terminated {} \"{}\" \"user-requested\"", bed.instance, kernel.id))
    );
    assert!(tokio::time::timeout(secs(5), listener.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_drained_node_takes_nothing_until_it_is_resumed_also_over_a_restart() {
    let bed = Bed::start().await;
    let pace = ["--heartbeat-interval", "300ms", "--create-deadline", "9"];
    let mut agent = bed.agent(&pace).await;
    ready(&bed).await;
    let kernel = agent.create_tiny().await;
    assert_ne!(slots(&bed).await, json!([0, 0]));
    assert!(said(&bed, &["drain"]).await.contains("drained; 1 kernel is left"));
    assert_eq!(slots(&bed).await, json!([0, 0]));
    // What an operator wants is nothing to be woken for.
    let log = agent.output();
    assert!(log.contains("INFO no slots until this is over condition=\"undrained\""), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    let refused = agent.call("create_kernel", json!([new_id(), tiny()])).await.unwrap_err();
    assert!(refused.repr.contains("an operator has drained this node"), "{refused:?}");
    let late = run(&bed, &["drain", "--wait", "--timeout", "1s"]).await;
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&late.stderr).contains("waiting for 1 kernel to end"));

    agent.kill9();
    let again = bed.agent(&pace).await;
    assert_eq!(slots(&bed).await, json!([0, 0]), "the restart forgot the drain");
    let status = status(&bed).await;
    assert_eq!((&status["offers_slots"], &status["ready"]), (&json!(false), &json!(false)));
    let ended = said(&bed, &["drain", "--end", "--wait", "--timeout", "20s"]).await;
    assert!(ended.contains("drained; 0 kernels are left"), "{ended}");
    assert_eq!(bed.wait_end(&kernel.id, secs(5)).await.args[1], "agent-reset");
    said(&bed, &["resume"]).await;
    assert_ne!(slots(&bed).await, json!([0, 0]));
    again.create_tiny().await.destroy().await;
}

fn tiny() -> Json {
    let mut config = kernel::config(&crate::support::docker::image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config
}

#[tokio::test]
async fn what_follows_an_agent_goes_on_over_its_restart() {
    let bed = Bed::start().await;
    let pace = ["--heartbeat-interval", "300ms"];
    let mut agent = bed.agent(&pace).await;
    ready(&bed).await;
    let mut following = Vec::new();
    for args in [&["top", "--every", "200ms"][..], &["events"]] {
        let mut command = command(&bed, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let notes = BufReader::new(child.stderr.take().unwrap()).lines();
        following.push((args[0], child, output, notes));
    }
    for (what, _, output, _) in &mut following {
        let first = tokio::time::timeout(secs(10), output.next_line()).await;
        assert!(first.is_ok_and(|line| line.unwrap().is_some()), "{what} shows nothing");
    }
    agent.kill9();
    for (what, _, _, notes) in &mut following {
        let note = tokio::time::timeout(secs(10), notes.next_line()).await.expect(what).unwrap();
        assert_eq!(note.as_deref(), Some("[the agent is away; waiting for it]"), "{what}");
    }
    let agent = bed.agent(&pace).await;
    for (what, _, output, notes) in &mut following {
        let note = tokio::time::timeout(secs(10), notes.next_line()).await.expect(what).unwrap();
        assert_eq!(note.as_deref(), Some("[the agent is back]"), "{what}");
        let next = tokio::time::timeout(secs(10), output.next_line()).await;
        assert!(next.is_ok_and(|line| line.unwrap().is_some()), "{what} shows nothing more");
    }
    drop(agent);
}

#[tokio::test]
async fn nobody_at_the_socket_is_said_at_once() {
    let bed = Bed::without_manager().await;
    let output = run(&bed, &["ps"]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no agent at ") && text.contains("is it running"), "{text}");
}

/// The page in a real browser, where there is one (Debian: chromium); without, it is only fetched.
#[tokio::test]
async fn the_page_shows_the_node_and_its_kernels() {
    let bed = Bed::start().await;
    let port = Port::lease();
    let address = format!("127.0.0.1:{}", port.number());
    let agent =
        bed.agent(&["--metrics-addr", &address, "--stats-interval", "500ms", "--create-deadline", "9"]).await;
    let kernel = agent.create_tiny().await;
    let (code, html) = get(port.number(), "/").await.unwrap();
    assert!(code == 200 && html.contains("<script nonce=\"") && !html.contains("{{"), "{html}");
    let (code, document) = get(port.number(), "/status").await.unwrap();
    assert!(code == 200 && document.contains(&kernel.id), "{document}");
    for (path, expected) in [("/events", 404), ("/drain", 404)] {
        assert_eq!(get(port.number(), path).await.unwrap().0, expected, "{path} is for the socket");
    }
    let Some(dom) = in_chromium(&bed, &agent, &format!("http://{address}/")).await else {
        return eprintln!("chromium is not installed");
    };
    for part in [
        &*kernel.id,
        &bed.instance,
        "Kernels (1)",
        "class=\"core\"",
        "undrained",
        "<polyline",
        "events wait for the manager",
    ] {
        assert!(dom.contains(part), "{part} is missing: {dom}");
    }
}

async fn in_chromium(bed: &Bed, agent: &Agent, url: &str) -> Option<String> {
    let mut chromium = Command::new("chromium");
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    chromium.arg(format!("--user-data-dir={}", bed.outside().join("chromium").display()));
    // The page's own clock is ahead of ours: several updates take no time.
    chromium.args(["--virtual-time-budget=6000", "--dump-dom", url]).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(path) = std::env::var_os("BACKENDAI_TEST_SCREENSHOT") {
        let mut shot = Command::new("chromium");
        shot.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1200,760",
            "--virtual-time-budget=6000",
        ]);
        shot.arg(format!("--screenshot={}", path.display())).arg(url).stdin(Stdio::null());
        shot.output().await.ok();
    }
    let Ok(ended) = tokio::time::timeout(secs(60), chromium.output()).await else {
        panic!("chromium hangs; the agent wrote {}", agent.output());
    };
    let output = ended.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
