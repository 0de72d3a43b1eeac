//! A running agent.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use super::process::Process;
use super::{Kernel, RemoteError, Rpc, docker, kernel, secs};

/// An agent process; killed when dropped, its log shown when the test fails.
pub(crate) struct Agent {
    process: Process,
    rpc: Rpc,
}

impl Agent {
    pub(super) fn new(process: Process, rpc: Rpc) -> Self {
        Self { process, rpc }
    }

    /// Its RPC socket.
    pub(crate) fn rpc(&self) -> Rpc {
        self.rpc
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// One RPC call; panics when no answer comes within 10 s.
    pub(crate) async fn call(&self, method: &str, args: Json) -> Result<Json, RemoteError> {
        self.rpc.call(method, args, secs(10)).await
    }

    /// A kernel of `lang` with the usual config.
    pub(crate) async fn create(&self, lang: &str) -> Kernel {
        self.create_with(kernel::config(lang)).await
    }

    /// A kernel that sleeps, for tests that run nothing in it.
    pub(crate) async fn create_tiny(&self) -> Kernel {
        let mut config = kernel::config(&docker::image::tiny());
        config["limits"]["mem_slot"] = json!(64);
        self.create_with(config).await
    }

    /// A kernel with the real Python runner.
    pub(crate) async fn create_python(&self) -> Kernel {
        self.create(&docker::image::python()).await
    }

    /// A kernel with any config.
    pub(crate) async fn create_with(&self, config: Json) -> Kernel {
        let id = super::new_id();
        let created = self.call("create_kernel", json!([id, config])).await.expect("create_kernel");
        Kernel::new(id, config, created, self.rpc)
    }

    /// SIGTERM, and how it ended; panics when that takes longer than 5 s.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.wait(secs(5)).await
    }

    /// The same for a stop that takes its time.
    pub(crate) async fn stop_within(&mut self, limit: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.wait(limit).await
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit).await
    }

    /// Whether the process is there.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: the agent stands still.
    pub(crate) async fn pause(&self) {
        self.process.pause().await;
    }

    /// Ends [`Agent::pause`].
    pub(crate) fn resume(&self) {
        self.process.resume();
    }

    /// What it wrote to standard output and standard error.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// How many file descriptors it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Its resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
