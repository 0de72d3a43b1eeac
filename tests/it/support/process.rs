//! A child process that never outlives its test: killed by pid when dropped, and by the system when the test
//! process itself is killed (`setpriv --pdeathsig`). Its output goes to a file that is shown when the test fails.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::wait::until;

/// A running or ended child, the leader of a process group of its own.
pub(crate) struct Process {
    /// What to call it in messages.
    name: String,
    child: Child,
    /// The group's id; equal to the child's pid.
    group: Pid,
    /// Standard output and standard error, both.
    log: PathBuf,
    /// Shown on failure; off for services, whose logs say little.
    talkative: bool,
}

impl Process {
    /// Starts `command` (program and arguments) with `env` added; output is appended to `log`.
    pub(crate) fn spawn(name: &str, command: &[String], env: &[(&str, &str)], log: &Path) -> Self {
        let output = OpenOptions::new().create(true).append(true).open(log).unwrap();
        Self::spawn_to(name, command, env, log, output)
    }

    fn spawn_to(name: &str, command: &[String], env: &[(&str, &str)], log: &Path, output: File) -> Self {
        let mut started = Command::new("setpriv");
        started.args(["--pdeathsig", "KILL"]).args(command);
        for (variable, _) in std::env::vars_os() {
            if is_setting(&variable.to_string_lossy()) {
                started.env_remove(variable);
            }
        }
        started.envs(env.iter().copied()).stdin(Stdio::null());
        started.stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
        let child = started.spawn().unwrap_or_else(|e| panic!("could not start {name} ({command:?}): {e}"));
        let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        Self { name: name.to_owned(), child, group, log: log.to_owned(), talkative: false }
    }

    /// From now on the end of the log is shown when the test fails.
    pub(crate) fn talkative(mut self) -> Self {
        self.talkative = true;
        self
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the whole group; a group that is gone is not an error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// SIGSTOP to the whole group, then [`Process::stands_still`].
    pub(crate) async fn pause(&self) {
        self.signal(Signal::STOP);
        self.stands_still().await;
    }

    /// Waits until every thread of the child is stopped: the signal is only on its way when `kill` returns, and a thread
    /// that is on a processor goes on until the signal meets it.
    pub(crate) async fn stands_still(&self) {
        let tasks = format!("/proc/{}/task", self.pid());
        until("threads that stand still", Duration::from_secs(10), async || {
            all_stopped(&tasks).then_some(())
        })
        .await;
    }

    /// Ends [`Process::pause`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end; panics after `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        until(&what, limit, async || self.ended()).await
    }

    /// Kills the group at once and collects the child.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Everything it has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// Settings of the agent and its libraries: a test's agent takes none of them from whoever runs the tests.
fn is_setting(variable: &str) -> bool {
    const PREFIXES: [&str; 6] = ["BACKEND_", "AWS_", "DATADOG_", "ETCDCTL_", "RAVEN_", "RUST_LOG"];
    variable == "DEBUG_KERNEL" || PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if self.talkative && std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines[lines.len().saturating_sub(120)..].join("\n");
            eprintln!("--- the end of what {} wrote ---\n{tail}\n---", self.name);
        }
    }
}

/// Whether every thread of a process is in state T: the first field after the name, which is in parentheses. A thread
/// that ended since the list was read stands still, too.
fn all_stopped(tasks: &str) -> bool {
    std::fs::read_dir(tasks).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
        stat.is_ok_and(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
    })
}
