//! The agent's end falls into the milliseconds around a run's begin and end.
//!
//! `BACKENDAI_TEST_KILLS` makes the tests longer than CI has time for, `BACKENDAI_TEST_SEED` repeats their moments (the
//! machine's own timing stays its own).

use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout};

use super::{End, end, follow, text};
use crate::support::msgpack::{from_json, to_json};
use crate::support::rpc::Line;
use crate::support::{Bed, Kernel, Rpc, secs};

/// How long an agent listens on at its stop, in microseconds, and somewhat more.
const ENDING: u64 = 60_000;

/// A run that leaves a mark in its kernel's file `log`, prints a line, and ends.
pub(super) struct Marked {
    /// Its id and its mark.
    name: String,
}

/// What came of one, as far as its caller could hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its code never ran, and the agent knows nothing of it.
    NeverBegun,
    /// It was answered as ended, and the agent says that it isn't sure of more.
    Unsure,
    /// It ran and ended; what was read in the last moment before a kill is missing.
    Cut,
    /// It ran and ended, with all of its output.
    Whole,
}

impl Marked {
    pub(super) fn new(name: String) -> Self {
        Self { name }
    }

    /// Asks for the run, which waits for so long before it leaves its mark; its answer comes on the line.
    pub(super) async fn ask(&self, rpc: Rpc, kernel: &Kernel, pause: Duration) -> Line {
        let (name, pause) = (&self.name, pause.as_secs_f64());
        let code = format!(
            "import time\ntime.sleep({pause})\nopen('/home/work/log', 'a').write('{name} ')\nprint('of {name}')"
        );
        let mut line = rpc.connect().await;
        let args = from_json(&json!([2, kernel.id, name, "query", code, {}]));
        line.request("execute", &args, &from_json(&json!({}))).await;
        line
    }

    /// After an end of the agent and the start of the next one: what came of it, and that the kernel is free now.
    pub(super) async fn outcome(&self, kernel: &Kernel, mut line: Line, how: End) -> Outcome {
        let begun = Instant::now();
        // What the agent had answered is in this end of the connection.
        let before = line.last_words(secs(1)).await.map(|answer| to_json(&answer.result.expect("no error")));
        let after = follow(kernel, &self.name, secs(20)).await;
        let ended_before = before.as_ref().is_some_and(|answer| answer["status"] == "finished");
        let answers = before.iter().filter_map(|answer| answer["console"].as_array()).flatten();
        let mut console: Vec<Json> = answers.cloned().collect();
        if !ended_before && let Some((more, _)) = &after {
            console.extend(more.iter().cloned());
        }
        let log = self.log(kernel).await;
        let times = log.split(' ').filter(|mark| *mark == self.name).count();
        assert!(times <= 1, "{} ran {times} times: {log}", self.name);
        assert!(begun.elapsed() < secs(15), "{}: {:?}", self.name, begun.elapsed());
        if !ended_before && after.is_none() {
            assert_eq!(times, 0, "{} ran, and nobody knows", self.name);
            return Outcome::NeverBegun;
        }
        if text(&console, "stderr").contains("restarted") {
            return Outcome::Unsure;
        }
        assert_eq!(times, 1, "{} never ran: {console:?}", self.name);
        let (stdout, whole) = (text(&console, "stdout"), format!("of {}\n", self.name));
        if stdout == whole {
            return Outcome::Whole;
        }
        // What was read in the last moment before a kill may be missing; a stop loses nothing.
        assert!(how == End::Kill && is_part(&stdout, &whole), "{}: {console:?}", self.name);
        Outcome::Cut
    }

    /// All marks of the kernel, by a run of its own.
    async fn log(&self, kernel: &Kernel) -> String {
        let code =
            "import os\nprint(open('/home/work/log').read() if os.path.exists('/home/work/log') else '')";
        let next = timeout(secs(20), kernel.run(code)).await;
        next.unwrap_or_else(|_| panic!("{}: the kernel is wedged", self.name)).stdout()
    }
}

/// Whether leaving something out of `whole` makes `part`.
fn is_part(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|wanted| rest.any(|found| found == wanted))
}

/// How many rounds to do, `usual` if nobody says, and what tells their moments.
pub(super) fn rounds(usual: u64) -> (u64, StdRng) {
    let said = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let rounds = said("BACKENDAI_TEST_KILLS").unwrap_or(usual);
    let seed = said("BACKENDAI_TEST_SEED").unwrap_or_else(rand::random);
    println!("BACKENDAI_TEST_SEED={seed} BACKENDAI_TEST_KILLS={rounds}");
    (rounds, StdRng::seed_from_u64(seed))
}

async fn no_moment_wedges_a_kernel(how: End) {
    let (rounds, mut random) = rounds(12);
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let kernel = agent.create_python().await.warm().await;
    let usual = Instant::now();
    kernel.run("print('usual')").await;
    // From before a run's begin until after its end, on this machine.
    let window = u64::try_from(usual.elapsed().as_micros()).unwrap() * 3 / 2;
    let mut outcomes = Vec::new();
    for round in 0..rounds {
        let run = Marked::new(format!("round-{round}"));
        // Every other run goes on for longer, and ends while the agent does.
        let pause = Duration::from_micros(if round % 2 == 0 { 0 } else { random.random_range(0..ENDING) });
        let wait = Duration::from_micros(random.random_range(0..window));
        let line = run.ask(bed.rpc(), &kernel, pause).await;
        tokio::time::sleep(wait).await;
        end(&mut agent, how).await;
        agent = bed.agent(&["--create-deadline", "9"]).await;
        let outcome = run.outcome(&kernel, line, how).await;
        println!("round {round} of {pause:?}, after {wait:?}: {outcome:?}");
        outcomes.push(outcome);
    }
    for kind in [Outcome::NeverBegun, Outcome::Unsure, Outcome::Cut, Outcome::Whole] {
        println!("{kind:?}: {}", outcomes.iter().filter(|outcome| **outcome == kind).count());
    }
    assert_eq!(kernel.run("print('free')").await.stdout(), "free\n");
}

#[tokio::test]
async fn no_moment_of_a_kill_wedges_a_kernel() {
    no_moment_wedges_a_kernel(End::Kill).await;
}

#[tokio::test]
async fn no_moment_of_a_stop_wedges_a_kernel() {
    no_moment_wedges_a_kernel(End::Stop).await;
}

/// Each agent that takes the run over is killed, too, while it finds out what became of it.
#[tokio::test]
async fn no_moment_of_kills_in_a_row_wedges_a_kernel() {
    let (rounds, mut random) = rounds(6);
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let kernel = agent.create_python().await.warm().await;
    for round in 0..rounds {
        let run = Marked::new(format!("round-{round}"));
        let pause = Duration::from_millis(random.random_range(0..400));
        let line = run.ask(bed.rpc(), &kernel, pause).await;
        let waits: Vec<u64> = (0..random.random_range(2..4)).map(|_| random.random_range(0..200)).collect();
        for wait in &waits {
            tokio::time::sleep(Duration::from_millis(*wait)).await;
            end(&mut agent, End::Kill).await;
            agent = bed.agent(&["--create-deadline", "9"]).await;
        }
        let outcome = run.outcome(&kernel, line, End::Kill).await;
        println!("round {round} of {pause:?}, kills after {waits:?} ms: {outcome:?}");
    }
    assert_eq!(kernel.run("print('free')").await.stdout(), "free\n");
}

/// A run that prints a line each millisecond over stops: no line comes twice or out of order, and what a stop loses is what the
/// runner hands to its ZeroMQ while that notices the end of the connection.
#[tokio::test]
async fn a_run_that_prints_goes_on_over_stops() {
    let (rounds, mut random) = rounds(6);
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let kernel = agent.create_python().await.warm().await;
    // Each write is one record.
    let code = "import os, sys, time\nn = 0\nwhile not os.path.exists('/home/work/enough'):\n    sys.stdout.write(f'{n}\\n')\n    n += 1\n    time.sleep(0.001)";
    assert_eq!(kernel.execute("r", "query", code, json!({})).await.unwrap()["status"], "continued");
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        end(&mut agent, End::Stop).await;
        agent = bed.agent(&["--create-deadline", "9"]).await;
    }
    std::fs::write(bed.home(&kernel.id).join("enough"), "").unwrap();
    let (console, _) = follow(&kernel, "r", secs(60)).await.expect("the run is known");
    let lines: Vec<u64> = text(&console, "stdout").lines().map(|line| line.parse().unwrap()).collect();
    let gaps: Vec<u64> = lines.windows(2).map(|two| two[1].checked_sub(two[0] + 1).expect("twice")).collect();
    let lost: u64 = gaps.iter().sum();
    let gaps = gaps.into_iter().filter(|gap| *gap > 0).count();
    println!("{rounds} stops, {} lines, {lost} lost in {gaps} gaps", lines.len());
    assert!(lost <= 5 * rounds, "{lost} of {} lines are lost", lines.len());
}
