//! SIGHUP: settings that change under running kernels.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::elsewhere::{Elsewhere, is_heard};
use crate::support::{Agent, Bed, docker, secs, until};

/// A file of settings, and where it lies.
struct Settings {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Settings {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Self { _dir: dir, path }
    }

    fn path(&self) -> &str {
        Path::to_str(&self.path).unwrap()
    }

    /// Writes other settings and has them read; waits for the line that says so.
    async fn change(&self, agent: &Agent, text: &str, line: &str) {
        std::fs::write(&self.path, text).unwrap();
        hang_up(agent, line).await;
    }
}

/// Sends the signal, and waits until one more of the lines with this text is there.
async fn hang_up(agent: &Agent, text: &str) {
    let lines = || agent.output().matches(text).count();
    let before = lines();
    kill_process(Pid::from_raw(agent.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    until(text, secs(5), async || (lines() > before).then_some(())).await;
}

#[tokio::test]
async fn a_hangup_changes_the_idle_timeout_of_kernels_that_run() {
    let bed = Bed::start().await;
    let settings = Settings::new("idle-timeout = \"1h\"\n");
    let agent = bed.agent(&["--config", settings.path()]).await;
    let kernel = agent.create_tiny().await;
    hang_up(&agent, "SIGHUP: no setting has changed").await;
    assert_eq!(docker::containers_named(&kernel.id).await.len(), 1);

    settings
        .change(
            &agent,
            "idle-timeout = \"500ms\"\n",
            "SIGHUP: changed, and in effect settings=\"idle-timeout\"",
        )
        .await;
    let id = kernel.id.clone();
    bed.wait_event("kernel_terminated", |event| event.args[0] == id.as_str(), secs(10)).await;
    assert!(agent.output().contains("nobody used the kernel for the idle timeout"));
}

#[tokio::test]
async fn a_hangup_changes_levels_and_says_what_it_can_not_change() {
    let bed = Bed::start().await;
    let settings = Settings::new("");
    let mut agent = bed.agent(&["--config", settings.path()]).await;
    let answers = async || assert_eq!(agent.call("ping", json!(["there"])).await.unwrap(), "there");
    answers().await;
    assert!(!agent.output().contains("DEBUG"), "{}", agent.output());

    settings
        .change(&agent, "debug = true\nregion = \"x\"\n", "SIGHUP: changed, and in effect settings=\"debug\"")
        .await;
    until("a detail", secs(5), async || {
        answers().await;
        agent.output().contains("DEBUG").then_some(())
    })
    .await;
    let restart = "SIGHUP: changed, and in effect after a restart of the agent settings=\"region\"";
    assert_eq!(agent.output().matches(restart).count(), 1, "{}", agent.output());
    // It waits for a restart still.
    hang_up(&agent, restart).await;

    settings.change(&agent, "debug = false\nnonsense = 1\n", "SIGHUP: the settings stay as they are").await;
    assert!(agent.output().contains("nonsense (line 2 of "), "{}", agent.output());
    // What a flag says, no file can change.
    settings.change(&agent, "debug = true\nnamespace = \"other\"\nregion = \"x\"\n", restart).await;
    answers().await;
    assert!(agent.stop().await.success());
}

#[tokio::test]
async fn a_hangup_changes_who_may_call() {
    let bed = Bed::start().await;
    let [first, second] = [Elsewhere::new(), Elsewhere::new()];
    let settings = Settings::new(&format!("trusted-peers = [\"{}\"]\n", first.ip()));
    let agent = bed.agent(&["--config", settings.path()]).await;
    let rpc = agent.rpc().address();
    let calls = async |from: &Elsewhere| is_heard(from.connect(rpc).await).await;
    assert!(calls(&first).await && !calls(&second).await);

    settings
        .change(
            &agent,
            &format!("trusted-peers = [\"{}/32\"]\n", second.ip()),
            "SIGHUP: changed, and in effect settings=\"trusted-peers\"",
        )
        .await;
    until("the new one to be let in", secs(5), async || calls(&second).await.then_some(())).await;
    assert!(!calls(&first).await, "nobody trusts it any more");
}
