//! Runs over stops of the agent (PROTOCOL section 12, item 21): after any stop a kernel runs the run that its user follows,
//! or is free for the next, and nothing that the agent had read is lost by a stop in order. [`table`] has every kind of stop
//! against every moment of a kernel's life, [`moments`] the milliseconds around a run's begin and end,
//! [`twice`] several stops in a row.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::timeout;

use crate::support::docker::docker;
use crate::support::{Agent, Bed, Kernel, secs, until};

mod broken;
mod moments;
mod silence;
mod table;
mod twice;

/// How an agent's life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

async fn end(agent: &mut Agent, how: End) {
    match how {
        End::Kill => agent.kill9(),
        End::Stop => assert!(agent.stop().await.success(), "{}", agent.output()),
    }
}

/// A run followed to its end by `continue`: its console, and how it ended; `None` where the agent knows of no such run.
async fn follow(kernel: &Kernel, run: &str, limit: Duration) -> Option<(Vec<Json>, Json)> {
    let mut console = Vec::new();
    let followed = async {
        loop {
            let mut answer = match kernel.execute(run, "continue", "", json!({})).await {
                Ok(answer) => answer,
                Err(error) if error.text().contains("not known") => return None,
                Err(error) => panic!("{error:?}"),
            };
            if let Some(items) = answer["console"].as_array_mut() {
                console.append(items);
            }
            if answer["status"] == "finished" {
                return Some((console, answer));
            }
            assert_eq!(answer["status"], "continued", "{answer}");
        }
    };
    timeout(limit, followed).await.unwrap_or_else(|_| panic!("run {run} has no end"))
}

fn text(console: &[Json], kind: &str) -> String {
    console.iter().filter(|item| item[0] == kind).map(|item| item[1].as_str().unwrap()).collect()
}

/// Freezes the runner before it listens, as if it took long to start.
async fn slow_kernel(agent: &Agent) -> Kernel {
    let kernel = agent.create_python().await;
    docker(&["pause", kernel.container()]).await;
    kernel
}

async fn code_waits_for_the_next_agent(how: End) {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = slow_kernel(&agent).await;
    let code = "open('/home/work/ran', 'a').write('x')\nprint('ran')";
    assert_eq!(kernel.execute("r", "query", code, json!({})).await.unwrap()["status"], "continued");
    end(&mut agent, how).await;

    let mut agent = bed.agent(&[]).await;
    assert_eq!(kernel.execute("r", "continue", "", json!({})).await.unwrap()["status"], "continued");
    // And once more: what waits is kept over any number of lives.
    end(&mut agent, how).await;
    let _agent = bed.agent(&[]).await;
    docker(&["unpause", kernel.container()]).await;
    let (console, _) = follow(&kernel, "r", secs(20)).await.expect("the run is known");
    assert_eq!(text(&console, "stdout"), "ran\n");
    assert_eq!(kernel.run("print(len(open('/home/work/ran').read()))").await.stdout(), "1\n", "it ran once");
}

#[tokio::test]
async fn code_that_had_not_left_at_a_kill_runs_once_under_the_next_agent() {
    code_waits_for_the_next_agent(End::Kill).await;
}

#[tokio::test]
async fn code_that_had_not_left_at_a_stop_runs_once_under_the_next_agent() {
    code_waits_for_the_next_agent(End::Stop).await;
}

/// The end of a run was on its way when the agent died: the next agent finds out that the run is over.
#[tokio::test]
async fn a_run_whose_end_was_lost_is_answered_as_ended() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nopen('/home/work/begun', 'w').close()\ntime.sleep(0.5)\nprint('over')";
    let marker = bed.home(&kernel.id).join("begun");
    {
        let call = kernel.execute("r", "query", code, json!({}));
        let begun = until("the run's begin", secs(10), async || marker.exists().then_some(()));
        tokio::select! {
            answer = call => panic!("too early: {answer:?}"),
            () = begun => {}
        }
    }
    // It stands still while the run ends: what the runner sends gets as far as the agent's socket, and dies with it.
    agent.pause().await;
    tokio::time::sleep(secs(1)).await;
    agent.kill9();
    let _agent = bed.agent(&["--idle-timeout", "20"]).await;
    let (console, last) = follow(&kernel, "r", secs(20)).await.expect("the run is known");
    assert!(text(&console, "stderr").contains("restarted"), "{console:?}");
    assert_eq!(last["exitCode"], Json::Null, "nobody knows it");
    assert_eq!(kernel.run("print('next')").await.stdout(), "next\n");
    let end = bed.wait_end(&kernel.id, secs(60)).await;
    assert_eq!(end.args[1], "idle-timeout");
}

/// As after a Python agent, which notes nothing: whether a run goes on, and of what id, is found out.
#[tokio::test]
async fn without_a_note_a_run_goes_on_and_one_that_is_over_holds_nobody_up() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let forget = || {
        let notes = bed.scratch().join(".agent");
        std::fs::remove_file(notes.join(format!("kernels/{}.json", kernel.id))).unwrap();
        std::fs::remove_file(notes.join(format!("runs/{}.json", kernel.id))).unwrap();
    };
    end(&mut agent, End::Kill).await;
    forget();
    let mut agent = bed.agent(&[]).await;
    let (console, answer) =
        follow(&kernel, "lost", secs(20)).await.expect("taken for the one that may go on");
    assert!(text(&console, "stderr").contains("not known") && answer["exitCode"].is_null(), "{console:?}");
    assert_eq!(kernel.run("print('free')").await.stdout(), "free\n");

    let code = "import time\ntime.sleep(3)\nprint('over')";
    assert_eq!(kernel.execute("long", "query", code, json!({})).await.unwrap()["status"], "continued");
    end(&mut agent, End::Kill).await;
    forget();
    let _agent = bed.agent(&[]).await;
    let next = async { kernel.run("print('next')").await.stdout() };
    let (went_on, next) = tokio::join!(follow(&kernel, "long", secs(20)), next);
    assert_eq!(text(&went_on.unwrap().0, "stdout"), "over\n");
    assert_eq!(next, "next\n");
}

/// Whoever interrupts before the runner listens gets the run's end, and the code never runs.
#[tokio::test]
async fn an_interrupt_before_the_runner_listens_cancels_the_run() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = slow_kernel(&agent).await;
    let code = "open('/home/work/ran', 'w').close()";
    assert_eq!(kernel.execute("r", "query", code, json!({})).await.unwrap()["status"], "continued");
    let answer = kernel.call("interrupt_kernel", json!([])).await;
    assert_eq!(answer, Ok(json!({ "status": "finished" })));
    let (console, _) = follow(&kernel, "r", secs(5)).await.expect("the run is known");
    assert!(text(&console, "stderr").contains("Interrupted"), "{console:?}");
    docker(&["unpause", kernel.container()]).await;
    let next = kernel.run("import os\nprint(os.path.exists('/home/work/ran'))").await;
    assert_eq!((next.stdout(), next.stderr()), ("False\n".to_owned(), String::new()));
}

const LINES: usize = 20_000;

/// A run prints with nobody attached; returns once all of it was written.
async fn print_unattended(bed: &Bed, kernel: &Kernel) {
    let code = format!(
        "import sys, time\ntime.sleep(3)\nfor i in range(0, {LINES}, 100):\n  \
         sys.stdout.write(''.join(f'line {{n}}\\n' for n in range(i, i + 100)))\n  time.sleep(0.001)\n\
         open('/home/work/printed', 'w').close()"
    );
    assert_eq!(kernel.execute("r", "query", &code, json!({})).await.unwrap()["status"], "continued");
    let marker = bed.home(&kernel.id).join("printed");
    until("the last line", secs(20), async || marker.exists().then_some(())).await;
}

fn all_lines() -> String {
    (0..LINES).fold(String::new(), |all, n| all + &format!("line {n}\n"))
}

#[tokio::test]
async fn output_that_nobody_fetched_outlives_a_stop_whole() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    print_unattended(&bed, &kernel).await;
    end(&mut agent, End::Stop).await;
    let mut agent = bed.agent(&[]).await;
    // A second stop, with nobody having asked in between.
    end(&mut agent, End::Stop).await;
    let _agent = bed.agent(&[]).await;
    let (console, last) = follow(&kernel, "r", secs(20)).await.expect("the run is known");
    assert!(text(&console, "stdout") == all_lines(), "{} bytes came", text(&console, "stdout").len());
    assert_eq!(last["exitCode"], 0);
    assert_eq!(text(&console, "stderr"), "");
}

/// What was answered is not answered again by the next agent, even if the kill comes right behind the answer.
#[tokio::test]
async fn output_that_was_answered_is_not_answered_again_after_a_kill() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import sys, time\nfor i in range(300):\n  sys.stdout.write(f'{i} ')\n  time.sleep(0.02)";
    let mut first = kernel.execute("r", "query", code, json!({})).await.unwrap();
    let mut console = first["console"].as_array_mut().map(std::mem::take).unwrap_or_default();
    for _ in 0..2 {
        end(&mut agent, End::Kill).await;
        agent = bed.agent(&[]).await;
        let mut more = kernel.execute("r", "continue", "", json!({})).await.unwrap();
        console.extend(more["console"].as_array_mut().map(std::mem::take).unwrap_or_default());
    }
    console.extend(follow(&kernel, "r", secs(20)).await.map(|(more, _)| more).unwrap_or_default());
    let stdout = text(&console, "stdout");
    let numbers: Vec<u32> =
        stdout.split_whitespace().map(|word| word.parse().expect("a whole word")).collect();
    assert!(numbers.is_sorted_by(|before, after| before < after), "{stdout}");
    // Each kill may cost what was read in the 20 ms before it.
    assert!(numbers.len() >= 290, "{stdout}");
}

/// What was read less than a moment before a kill may not be on the disk yet; everything before is.
#[tokio::test]
async fn output_that_nobody_fetched_outlives_a_kill() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    print_unattended(&bed, &kernel).await;
    let kept = bed.scratch().join(format!(".agent/runs/{}.output", kernel.id));
    let last = format!("line {}\n", LINES - 1);
    until("the last line on the disk", secs(10), async || {
        let files = std::fs::read_dir(&kept).ok()?.flatten();
        let mut texts = files.filter_map(|file| std::fs::read(file.path()).ok());
        texts.any(|text| String::from_utf8_lossy(&text).contains(&last)).then_some(())
    })
    .await;
    end(&mut agent, End::Kill).await;
    let _agent = bed.agent(&[]).await;
    let (console, _) = follow(&kernel, "r", secs(20)).await.expect("the run is known");
    assert!(text(&console, "stdout") == all_lines(), "{} bytes came", text(&console, "stdout").len());
}
