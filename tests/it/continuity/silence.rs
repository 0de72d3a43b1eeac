//! Runs whose runner has no say after the agent's end: code that holds the interpreter's lock lets nobody answer.

use serde_json::json;

use super::{End, end, follow, text};
use crate::support::{Bed, secs};

/// Code that holds the lock for 45 s: `hold` is what it does in one call.
fn holding(hold: &str) -> String {
    format!(
        "import ctypes, itertools, time\nopen('/home/work/held', 'w').close()\n\
         end = time.monotonic() + 45\n{hold}\nprint('over')"
    )
}

/// One that is at work goes on. One that does nothing is taken for ended, and holds up nobody.
#[tokio::test]
async fn a_run_goes_on_in_silence_while_its_kernel_is_at_work_and_else_is_taken_for_ended() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let (busy, still) = (agent.create_python().await.warm().await, agent.create_python().await.warm().await);
    let work = "next(itertools.dropwhile(end.__gt__, iter(time.monotonic, None)))";
    for (kernel, hold) in [(&busy, work), (&still, "ctypes.PyDLL(None).sleep(45)")] {
        let begun = kernel.execute("held", "query", &holding(hold), json!({})).await.unwrap();
        assert_eq!(begun["status"], "continued");
        assert!(bed.home(&kernel.id).join("held").exists());
    }
    end(&mut agent, End::Kill).await;
    let _agent = bed.agent(&[]).await;
    let gone_on = async {
        let (console, last) = follow(&busy, "held", secs(150)).await.expect("the run is known");
        assert_eq!((text(&console, "stdout").as_str(), text(&console, "stderr").as_str()), ("over\n", ""));
        assert_eq!(last["exitCode"], 0);
        assert_eq!(busy.run("print('next')").await.stdout(), "next\n");
    };
    let given_up = async {
        let begun = std::time::Instant::now();
        let (console, last) = follow(&still, "held", secs(40)).await.expect("the run is known");
        println!("given up after {:?}", begun.elapsed());
        assert!(text(&console, "stderr").contains("does not answer any more"), "{console:?}");
        assert!(last["exitCode"].is_null(), "nobody knows it");
        assert_eq!(still.call("interrupt_kernel", json!([])).await, Ok(json!({ "status": "finished" })));
        // Its code waits until the interpreter is free, and nothing of the old run is taken for its own.
        let next = still.run("print('next')").await;
        assert_eq!((next.stdout().as_str(), next.stderr().as_str()), ("next\n", ""));
    };
    tokio::join!(gone_on, given_up);
}
