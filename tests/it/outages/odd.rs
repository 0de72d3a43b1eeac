//! A kernel that can't be taken back after a crash: left alone, as PROTOCOL section 12, item 20 says, until the
//! manager wants its end or it ends by itself.

use serde_json::json;

use crate::support::docker;
use crate::support::{Agent, Bed, Kernel, secs, until};

const ARGS: [&str; 4] = ["--reconcile-interval", "1", "--create-deadline", "9"];

/// A running kernel whose scratch directory was deleted while no agent ran, and the agent that found it so.
async fn odd_kernel(bed: &Bed) -> (Agent, Kernel) {
    let mut first = bed.agent(&ARGS).await;
    let kernel = first.create_tiny().await;
    first.kill9();
    drop(first);
    std::fs::remove_dir_all(bed.scratch().join(&kernel.id)).unwrap();
    let agent = bed.agent(&ARGS).await;
    until("a word about the odd kernel", secs(5), async || {
        agent.output().contains("left alone: can't take back").then_some(())
    })
    .await;
    (agent, kernel)
}

#[tokio::test]
async fn an_odd_kernel_keeps_running_until_its_end_is_wanted() {
    let bed = Bed::start().await;
    let (agent, kernel) = odd_kernel(&bed).await;
    // Longer than two comparisons with Docker's list.
    bed.manager.wait("instance_heartbeat", 4, |_| true, secs(10)).await;
    assert_eq!(docker::inspect(kernel.container()).await["State"]["Running"], true);
    for (method, args) in [("get_logs", json!([])), ("restart_kernel", json!([{}]))] {
        let why = kernel.call(method, args).await.unwrap_err();
        assert!(why.text().contains("left alone") && why.text().contains("no scratch directory"), "{why:?}");
    }
    kernel.destroy().await;
    assert_eq!(bed.wait_end(&kernel.id, secs(5)).await.args[1], "user-requested");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn the_death_of_an_odd_kernel_is_told() {
    let bed = Bed::start().await;
    let (agent, kernel) = odd_kernel(&bed).await;
    docker::docker(&["kill", kernel.container()]).await;
    assert_eq!(bed.wait_end(&kernel.id, secs(5)).await.args[1], "self-terminated");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}
