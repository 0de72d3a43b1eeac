//! Runs over two stops and more, and what is asked of a kernel while it isn't known what became of its run.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Value as Json, json};

use super::moments::rounds;
use super::{End, end, follow, text};
use crate::support::docker::docker;
use crate::support::{Bed, Kernel, secs};

/// The run has what its user typed, once, however many agents it has seen.
#[tokio::test]
async fn a_run_that_waits_for_input_over_two_stops_gets_it_once() {
    for how in [End::Stop, End::Kill] {
        let bed = Bed::start().await;
        let mut agent = bed.agent(&["--create-deadline", "9"]).await;
        let kernel = agent.create_python().await.warm().await;
        let code = "one = input('one? ')\ntwo = input('two? ')\nprint(one, two)";
        let mut answer = kernel.execute("r", "query", code, json!({})).await.unwrap();
        for typed in ["first", "second"] {
            for _ in 0..2 {
                end(&mut agent, how).await;
                agent = bed.agent(&["--idle-timeout", "60"]).await;
            }
            while answer["status"] == "continued" {
                answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
            }
            assert_eq!(answer["status"], "waiting-input", "{how:?}: {answer}");
            answer = kernel.execute("r", "input", typed, json!({})).await.unwrap();
        }
        let mut console = answer["console"].as_array_mut().map(std::mem::take).unwrap_or_default();
        if answer["status"] != "finished" {
            console.extend(follow(&kernel, "r", secs(20)).await.expect("the run is known").0);
        }
        assert!(text(&console, "stdout").ends_with("first second\n"), "{how:?}: {console:?}");
        assert_eq!(kernel.run("print('next')").await.stdout(), "next\n", "{how:?}");
    }
}

/// Exit codes of build steps, in the order in which they were told.
fn builds(answers: &[Json]) -> Vec<Json> {
    let built = answers.iter().filter(|answer| answer["status"] == "build-finished");
    built.map(|answer| answer["exitCode"].clone()).collect()
}

/// A batch run is cut off in any moment, by one kill or two, also between its steps: the next has its own build step's end and no other.
#[tokio::test]
async fn no_moment_of_kills_gives_a_batch_run_an_answer_too_many() {
    let (rounds, mut random) = rounds(10);
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let kernel = agent.create_python().await.warm().await;
    for round in 0..rounds {
        let run = format!("cut-{round}");
        let opts = json!({ "build": "sleep 0.05", "exec": "sleep 0.05; echo ran" });
        let kills: Vec<u64> = (0..random.random_range(1..3)).map(|_| random.random_range(0..200)).collect();
        {
            let asked = kernel.execute(&run, "batch", "", opts);
            tokio::select! {
                _ = asked => {}
                () = tokio::time::sleep(Duration::from_millis(kills[0])) => {}
            }
        }
        for (n, wait) in kills.iter().enumerate() {
            if n > 0 {
                tokio::time::sleep(Duration::from_millis(*wait)).await;
            }
            end(&mut agent, End::Kill).await;
            agent = bed.agent(&["--create-deadline", "9"]).await;
        }
        // At once, while answers to questions about the run before may be on their way.
        let opts = json!({ "build": "exit 9", "exec": "echo never" });
        let next = kernel.run_with("batch", "", opts, &[]).await;
        assert_eq!(builds(&next.answers), [json!(9)], "round {round}, {kills:?}: {:?}", next.answers);
        // The runner's answer to a build that failed.
        let last = next.last();
        assert_eq!((&last["status"], &last["exitCode"]), (&json!("finished"), &json!(127)), "round {round}");
    }
}

/// A run that goes on in a container that stands still, and whose agent is a new one: nobody can tell what became of it.
async fn in_doubt(bed: &Bed, agent: &mut crate::support::Agent, kernel: &Kernel, run: &str) {
    let code = "import time\nfor i in range(30):\n  time.sleep(0.1)\nprint('over')";
    let begun = kernel.execute(run, "query", code, json!({})).await.unwrap();
    assert_eq!(begun["status"], "continued");
    end(agent, End::Kill).await;
    docker(&["pause", kernel.container()]).await;
    *agent = bed.agent(&["--create-deadline", "9"]).await;
    let answer = kernel.execute(run, "continue", "", json!({})).await.unwrap();
    assert_eq!(answer["status"], "continued");
}

#[tokio::test]
async fn whatever_is_asked_while_a_run_is_in_doubt_harms_neither_it_nor_the_next() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let kernel = agent.create_python().await.warm().await;
    in_doubt(&bed, &mut agent, &kernel, "r").await;
    let complete = async |text: &str| {
        let opts = json!({ "row": 0, "col": text.len(), "line": text, "post": "" });
        kernel.call("get_completions", json!([text, opts])).await
    };
    assert!(complete("impo").await.is_err(), "a container that stands still answers nothing");
    let next = kernel.run("print('next')");
    let freed = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        docker(&["unpause", kernel.container()]).await;
        follow(&kernel, "r", secs(20)).await.expect("the run is known")
    };
    let (next, (console, last)) = tokio::join!(next, freed);
    assert_eq!((text(&console, "stdout").as_str(), text(&console, "stderr").as_str()), ("over\n", ""));
    assert_eq!(last["exitCode"], 0);
    assert_eq!(next.stdout(), "next\n");
    let found = complete("impo").await.unwrap();
    assert!(found.to_string().contains("import"), "{found}");

    // A restart ends all doubt.
    in_doubt(&bed, &mut agent, &kernel, "q").await;
    kernel.call("restart_kernel", json!([kernel.config])).await.expect("restart_kernel");
    let after = kernel.run("print('fresh')").await;
    assert_eq!((after.stdout().as_str(), after.stderr().as_str()), ("fresh\n", ""));
    let opts = json!({ "build": "exit 9", "exec": "echo built" });
    let batch = kernel.run_with("batch", "", opts, &[]).await;
    assert_eq!(builds(&batch.answers), [json!(9)], "{:?}", batch.answers);
}
