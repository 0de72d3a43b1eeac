//! Connections to a runner that break while the agent lives: what was on its way is lost, and the kernel is neither wedged nor is its
//! next run.

use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{follow, text};
use crate::support::{Bed, secs};

/// The run's code replaces its runner by a new one, in the same process: whoever is connected loses that.
const ANEW: &str = "import os, sys\n\
    args = open('/proc/self/cmdline').read().split('\\0')[:-1]\n\
    os.execv(sys.executable, args)";

#[tokio::test]
async fn a_runner_that_starts_anew_ends_its_run_and_takes_the_next() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    for round in 0..3 {
        let run = format!("r{round}");
        let first = kernel.execute(&run, "query", ANEW, json!({})).await.unwrap();
        let (console, last) = if first["status"] == "finished" {
            (first["console"].as_array().unwrap().clone(), first)
        } else {
            follow(&kernel, &run, secs(20)).await.expect("the run is known")
        };
        assert!(text(&console, "stderr").contains("connection to the kernel's runner broke"), "{console:?}");
        assert_eq!(last["exitCode"], Json::Null, "nobody knows it");
        let next = timeout(secs(20), kernel.run("print('next')")).await.expect("the kernel is wedged");
        assert_eq!((next.stdout().as_str(), next.statuses().last()), ("next\n", Some(&"finished")));
        assert_eq!(next.statuses().iter().filter(|status| **status == "build-finished").count(), 0);
    }
}
