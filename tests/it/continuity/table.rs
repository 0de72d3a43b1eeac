//! The table of an agent's ends: each way in which it ends against each moment of a kernel's life. Afterwards nothing is wedged,
//! nothing lost and nothing told twice, and the next run works.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::moments::{Marked, Outcome};
use super::{End, end, follow, text};
use crate::support::docker::{self, TestImage, docker, image};
use crate::support::engine::{Engine, Fails};
use crate::support::msgpack::from_json;
use crate::support::{Agent, Bed, Kernel, kernel, new_id, secs, until};

const ENDS: [End; 2] = [End::Stop, End::Kill];

/// What a kernel does when its agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It is warm and nothing runs.
    Idle,
    /// In the middle of a run.
    AmidRun,
    /// Its runner does not listen yet, and a run waits for that.
    FirstSecond,
    /// A run has been asked for this moment.
    RunBegins,
    /// A run ends in this moment.
    RunEnds,
}

const MOMENTS: [Moment; 5] =
    [Moment::Idle, Moment::AmidRun, Moment::FirstSecond, Moment::RunBegins, Moment::RunEnds];

/// Ends the agent in this moment, starts the next one, and checks what that makes of it.
async fn row(bed: &Bed, agent: &mut Agent, how: End, moment: Moment) -> Kernel {
    let (rpc, kernel) = (bed.rpc(), agent.create_python().await);
    let mut ends = async || {
        end(agent, how).await;
        *agent = bed.agent(&["--create-deadline", "9"]).await;
    };
    match moment {
        Moment::Idle => {
            kernel.run("x = 41").await;
            ends().await;
        }
        Moment::AmidRun => {
            let code = "import time\nx = 41\ntime.sleep(0.25)\nfor i in range(8):\n  print('step', i)\n  time.sleep(0.5)";
            let mut first = kernel.execute("long", "query", code, json!({})).await.unwrap();
            assert_eq!(first["status"], "continued");
            ends().await;
            let (more, last) = follow(&kernel, "long", secs(20)).await.expect("the run is known");
            let mut console = first["console"].as_array_mut().map(std::mem::take).unwrap_or_default();
            console.extend(more);
            let whole: Vec<String> = (0..8).map(|i| format!("step {i}")).collect();
            // What was read within 20 ms before a kill may be lost, and here one line comes each 500 ms.
            let stdout = text(&console, "stdout");
            let lines: Vec<&str> = stdout.lines().collect();
            let expected = if how == End::Kill { 7 } else { 8 };
            assert!(
                lines.len() >= expected && lines.iter().all(|line| whole.iter().any(|step| step == line)),
                "{console:?}"
            );
            assert_eq!((last["exitCode"].as_i64(), text(&console, "stderr").as_str()), (Some(0), ""));
        }
        Moment::FirstSecond => {
            let run = Marked::new("early".to_owned());
            let line = run.ask(rpc, &kernel, Duration::ZERO).await;
            let note = bed.scratch().join(format!(".agent/runs/{}.json", kernel.id));
            is_noted(&note, "early").await;
            ends().await;
            assert_eq!(run.outcome(&kernel, line, how).await, Outcome::Whole);
            kernel.run("x = 41").await;
        }
        Moment::RunBegins | Moment::RunEnds => {
            kernel.run("x = 41").await;
            let run = Marked::new("struck".to_owned());
            let is_begin = moment == Moment::RunBegins;
            let pause = Duration::from_millis(if is_begin { 0 } else { 300 });
            let line = run.ask(rpc, &kernel, pause).await;
            if !is_begin {
                let log = bed.home(&kernel.id).join("log");
                // To the millisecond, unlike other waits.
                let is_there = async {
                    while !log.exists() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::time::timeout(secs(60), is_there).await.expect("the run has begun");
            }
            ends().await;
            println!("  {:?}", run.outcome(&kernel, line, how).await);
        }
    }
    assert_eq!(kernel.run("print(x + 1)").await.stdout(), "42\n", "{how:?} {moment:?}");
    assert_eq!(kernel.call("interrupt_kernel", json!([])).await, Ok(json!({ "status": "finished" })));
    assert_eq!(kernel.run("print('free')").await.stdout(), "free\n", "{how:?} {moment:?}");
    kernel
}

#[tokio::test]
async fn an_agent_may_end_in_any_moment_of_a_kernel_s_life() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let mut kernels = Vec::new();
    for how in ENDS {
        for moment in MOMENTS {
            println!("{how:?}, {moment:?}");
            kernels.push(row(&bed, &mut agent, how, moment).await);
        }
    }
    end(&mut agent, End::Stop).await;
    assert!(
        bed.manager.all("kernel_terminated", |_| true).is_empty(),
        "an end was told of kernels that live"
    );
    // Nothing keeps any of them from idling out.
    let agent = bed.agent(&["--idle-timeout", "2"]).await;
    for kernel in &kernels {
        assert_eq!(bed.wait_end(&kernel.id, secs(20)).await.args[1], "idle-timeout");
        docker::gone(&kernel.id).await;
    }
    for kernel in &kernels {
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
}

/// Large imports, a cold disk: the code waits, over both kinds of ends, and nothing is wedged meanwhile.
#[tokio::test]
async fn an_agent_may_end_while_a_runner_takes_15_s_to_listen() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let image = TestImage::late_python(15).await;
    let kernel = agent.create(image.lang()).await;
    let (run, begun) = (Marked::new("early".to_owned()), std::time::Instant::now());
    let line = run.ask(bed.rpc(), &kernel, Duration::ZERO).await;
    let note = bed.scratch().join(format!(".agent/runs/{}.json", kernel.id));
    is_noted(&note, "early").await;
    for how in ENDS {
        end(&mut agent, how).await;
        agent = bed.agent(&["--create-deadline", "9"]).await;
        let answer = kernel.execute("early", "continue", "", json!({})).await.unwrap();
        assert_eq!(answer["status"], "continued", "the runner listens after {:?}", begun.elapsed());
    }
    assert_eq!(run.outcome(&kernel, line, End::Kill).await, Outcome::Whole);
    kernel.destroy().await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

/// Waits until a file holds this text.
async fn is_noted(file: &Path, text: &str) {
    until(&format!("{text} in {}", file.display()), secs(5), async || {
        std::fs::read_to_string(file).is_ok_and(|all| all.contains(text)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_s_death_while_no_agent_runs_is_told_once() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    for how in ENDS {
        let (idle, busy) = (agent.create_tiny().await, agent.create_python().await.warm().await);
        let code = "import time\ntime.sleep(60)";
        assert_eq!(busy.execute("r", "query", code, json!({})).await.unwrap()["status"], "continued");
        end(&mut agent, how).await;
        docker(&["kill", idle.container(), busy.container()]).await;
        agent = bed.agent(&["--create-deadline", "9"]).await;
        for kernel in [&idle, &busy] {
            assert_eq!(bed.wait_end(&kernel.id, secs(15)).await.args[1], "self-terminated");
            docker::gone(&kernel.id).await;
        }
        let error = busy.execute("r", "continue", "", json!({})).await.expect_err("its kernel is over");
        assert!(error.text().contains("not running on this agent"), "{error:?}");
        // And over one more life.
        end(&mut agent, how).await;
        agent = bed.agent(&["--create-deadline", "9"]).await;
        for kernel in [&idle, &busy] {
            assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1, "{how:?}");
        }
        assert_eq!(agent.create_python().await.run("print('next')").await.stdout(), "next\n");
    }
}

/// Docker is at work for the agent, and does its part only after the agent's end.
async fn amid_a_call(
    bed: &Bed,
    engine: &Engine,
    agent: &mut Agent,
    how: End,
    (path, method, args): (&'static str, &str, Json),
) {
    let failed = engine.failed();
    engine.fail("POST", path, Fails::Late, 1);
    let mut line = agent.rpc().connect().await;
    line.request(method, &from_json(&args), &from_json(&json!({}))).await;
    until("Docker's part of it", secs(10), async || (engine.failed() > failed).then_some(())).await;
    end(agent, how).await;
    // A restart that has begun goes on without an answer.
    let answer = line.last_words(secs(1)).await;
    assert!(answer.as_ref().is_none_or(|answer| answer.result.is_err()), "{answer:?}");
    assert!(answer.is_some() || how == End::Kill || path == "/start", "a stop leaves a {method} unanswered");
    *agent = bed
        .agent(&["--docker-host", &engine.host(), "--create-deadline", "9", "--reconcile-interval", "1"])
        .await;
}

#[tokio::test]
async fn an_agent_may_end_amid_a_create_and_each_part_of_a_restart() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = bed
        .agent(&["--docker-host", &engine.host(), "--create-deadline", "9", "--reconcile-interval", "1"])
        .await;
    for how in ENDS {
        for path in ["/containers/create", "/start"] {
            println!("{how:?} amid a create, {path}");
            let id = new_id();
            let create = json!([id, kernel::config(&image::tiny())]);
            amid_a_call(&bed, &engine, &mut agent, how, (path, "create_kernel", create.clone())).await;
            engine.release();
            docker::gone(&id).await;
            until("the end of all traces", secs(10), async || {
                let notes = std::fs::read_dir(bed.scratch().join(".agent/kernels")).unwrap().count();
                (bed.scratch_dirs().is_empty() && notes == 0).then_some(())
            })
            .await;
            // The same id may come again, and is a kernel like any other.
            agent.call("create_kernel", create).await.expect("a second create");
            agent.call("destroy_kernel", json!([id])).await.expect("destroy_kernel");
            bed.wait_end(&id, secs(10)).await;
            docker::gone(&id).await;
            assert_eq!(bed.ends(&agent, &id).await.len(), 1);
        }
        for (path, is_begun) in [("/containers/create", false), ("/start", true)] {
            println!("{how:?} amid a restart, {path}");
            let kernel = agent.create_python().await.warm().await;
            kernel.run("x = 41\nopen('/home/work/kept', 'w').close()").await;
            amid_a_call(&bed, &engine, &mut agent, how, (path, "restart_kernel", json!([kernel.id, {}])))
                .await;
            let code = "import os\nprint(globals().get('x'), os.path.exists('/home/work/kept'))";
            let expected = if is_begun { "None True\n" } else { "41 True\n" };
            assert_eq!(kernel.run(code).await.stdout(), expected);
            engine.release();
            assert_eq!(kernel.run(code).await.stdout(), expected, "after Docker's late part");
            assert!(bed.ends(&agent, &kernel.id).await.is_empty(), "{how:?} {path}");
            kernel.destroy().await;
            docker::gone(&kernel.id).await;
            assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1, "{how:?} {path}");
        }
    }
}
