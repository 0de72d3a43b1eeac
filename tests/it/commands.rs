//! The operator's commands, as a person or a script uses them: the real binary beside a running agent.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::support::ports::Port;
use crate::support::{Agent, Bed, docker, kernel, new_id, secs};

/// What a command said, and how it ended.
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
    command.env_clear().args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Runs a command to its end.
async fn said(args: &[&str]) -> Said {
    let output = tokio::time::timeout(secs(60), command(args).output()).await.expect("it hangs").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(output.status.signal(), None, "{args:?}");
    Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
}

/// A command that runs, whose stderr is read line by line.
struct Running {
    child: Child,
    notes: Lines<BufReader<ChildStderr>>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().unwrap();
        let notes = BufReader::new(child.stderr.take().unwrap()).lines();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, notes, output }
    }

    /// Reads stderr up to the line that has `text`.
    async fn note(&mut self, text: &str) -> String {
        let read = async {
            let mut all = Vec::new();
            while let Some(line) = self.notes.next_line().await.unwrap() {
                if line.contains(text) {
                    return line;
                }
                all.push(line);
            }
            panic!("no {text:?} in {all:#?}");
        };
        tokio::time::timeout(secs(20), read).await.unwrap_or_else(|_| panic!("no {text:?} within 20 s"))
    }

    /// The next line of stdout.
    async fn output(&mut self) -> String {
        let line = tokio::time::timeout(secs(20), self.output.next_line()).await.expect("no output");
        line.unwrap().expect("stdout has ended")
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    async fn end(mut self) -> (String, Option<i32>) {
        let mut out = String::new();
        let read = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                out += &line;
                out.push('\n');
            }
            self.child.wait().await.unwrap().code()
        };
        let code = tokio::time::timeout(secs(30), read).await.expect("it hangs");
        (out, code)
    }
}

fn address(agent: &Agent) -> String {
    agent.rpc().address().to_string()
}

/// The id in `[run ID]`.
fn run_id(line: &str) -> String {
    line.trim_start_matches("[run ").trim_end_matches(']').to_owned()
}

#[tokio::test]
async fn a_dead_port_says_so_at_once() {
    let begun = Instant::now();
    let said = said(&["ping", "--agent", "127.0.0.1:9"]).await;
    assert_eq!(said.code, Some(3), "{}", said.err);
    assert!(
        said.err.contains("nothing listens at 127.0.0.1:9 (Connection refused (os error 111)); start"),
        "{}",
        said.err
    );
    assert!(begun.elapsed() < secs(3), "{:?} of 6 s that an answer may take", begun.elapsed());
}

#[tokio::test]
async fn destroy_says_whether_there_was_such_a_kernel() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let at = address(&agent);
    let nobody = said(&["destroy", &new_id(), "--agent", &at]).await;
    assert_eq!(nobody.code, Some(1), "{}", nobody.err);
    assert!(nobody.err.contains("this agent has no kernel "), "{}", nobody.err);
    let known = said(&["destroy", &kernel.id, "--agent", &at]).await;
    assert_eq!(known.code, Some(0), "{}", known.err);
    bed.wait_end(&kernel.id, secs(5)).await;
}

#[tokio::test]
async fn a_second_interrupt_reaches_the_run_and_the_first_does_not() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.1)";
    let mut exec = Running::start(&["exec", &kernel.id, code, "--agent", &address(&agent)]);
    exec.note("[run ").await;
    assert_eq!(exec.output().await, "begun");
    exec.interrupt();
    let told = exec.note("^C again interrupts the run").await;
    assert!(told.contains(&format!("attach {} ", kernel.id)), "{told}");
    exec.interrupt();
    exec.note("[interrupting the run").await;
    exec.note("[finished, exit code").await;
    exec.end().await;
    assert_eq!(kernel.run("print(1)").await.stdout(), "1\n", "the kernel takes code again");
}

#[tokio::test]
async fn a_run_that_cares_for_nothing_can_be_left_and_followed() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nend, begun = time.time() + 8, False\nwhile True:\n    try:\n\
                \x20       if not begun: begun = True; print('begun', flush=True)\n\
                \x20       while time.time() < end: time.sleep(0.1)\n        break\n\
                \x20   except KeyboardInterrupt: pass\nprint('done')";
    let at = address(&agent);
    let mut exec = Running::start(&["exec", &kernel.id, code, "--agent", &at]);
    let run = run_id(&exec.note("[run ").await);
    assert_eq!(exec.output().await, "begun");
    exec.interrupt();
    exec.note("^C again").await;
    exec.interrupt();
    exec.note("[interrupting the run").await;
    exec.interrupt();
    exec.note("[left; the run may go on").await;
    assert_eq!(exec.end().await.1, Some(130));

    let attached = said(&["attach", &kernel.id, &run, "--agent", &at]).await;
    assert_eq!((attached.out.as_str(), attached.code), ("done\n", Some(0)), "{}", attached.err);
    let unknown = said(&["attach", &kernel.id, &run, "--agent", &at]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("is not known: it has finished"), "{}", unknown.err);
}

#[tokio::test]
async fn a_run_is_followed_over_a_crash_of_the_agent() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nprint('begun', flush=True)\ntime.sleep(6)\nprint('done')";
    let mut exec = Running::start(&["exec", &kernel.id, code, "--agent", &address(&agent)]);
    assert_eq!(exec.output().await, "begun");
    agent.kill9();
    exec.note("[the agent is away").await;
    let _agent = bed.agent(&[]).await;
    exec.note("[the agent is back]").await;
    exec.note("[finished").await;
    let (out, code) = exec.end().await;
    assert!(out.ends_with("done\n"), "{out}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_run_that_asks_for_input_ends_with_standard_input() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "while True: print('got', input())";
    let ended = said(&["exec", &kernel.id, code, "--input", "a", "--agent", &address(&agent)]).await;
    assert!(ended.out.contains("got a"), "{} {}", ended.out, ended.err);
    assert!(ended.err.contains("[standard input has ended]"), "{}", ended.err);
}

#[tokio::test]
async fn an_end_for_want_of_memory_is_called_that() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut config = kernel::config(&docker::image::python());
    config["limits"]["mem_slot"] = json!(128);
    let kernel = agent.create_with(config).await.warm().await;
    let ended = said(&["exec", &kernel.id, "x = bytearray(1 << 30)", "--agent", &address(&agent)]).await;
    assert_ne!(ended.code, Some(0));
    assert!(ended.err.contains("memory"), "{} {}", ended.out, ended.err);
}

#[tokio::test]
async fn a_closed_pipe_ends_a_command_quietly() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "for i in range(20000): print('x' * 100)";
    let mut exec = command(&["exec", &kernel.id, code, "--agent", &address(&agent)]).spawn().unwrap();
    drop(exec.stdout.take());
    let mut err = String::new();
    exec.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    let code = tokio::time::timeout(secs(20), exec.wait()).await.expect("it hangs").unwrap().code();
    assert_eq!(code, Some(141), "{err}");
    assert!(!err.contains("panic"), "{err}");
    // Whoever reads notes may have gone as well.
    let mut exec = command(&["destroy", "nobody"]).spawn().unwrap();
    drop((exec.stdout.take(), exec.stderr.take()));
    assert_eq!(exec.wait().await.unwrap().code(), Some(2));
}

/// Starts a command whose output nobody reads; its exit code, and what it said beside the output.
async fn unread(args: &[&str]) -> (Option<i32>, String) {
    let mut child = command(args).spawn().unwrap();
    drop(child.stdout.take());
    // Before the limits after which a command gives up by itself.
    let ended = tokio::time::timeout(secs(4), child.wait()).await;
    let code = ended.unwrap_or_else(|_| panic!("{args:?} goes on for nobody")).unwrap().code();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    (code, err)
}

#[tokio::test]
async fn what_only_shows_something_ends_at_once_with_its_reader() {
    // They take connections and never answer.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let _local = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let remote = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (socket, remote) = (socket.to_str().unwrap(), remote.local_addr().unwrap().to_string());
    let (kernel, bind) = (new_id(), Port::lease());
    let bind = format!("127.0.0.1:{}", bind.number());
    for args in [
        &["status", "--socket", socket][..],
        &["ps", "--socket", socket],
        &["top", "--socket", socket],
        &["events", "--socket", socket],
        &["events", "--bind", &bind],
        &["logs", &kernel, "--socket", socket],
        &["logs", &kernel, "--agent", &remote],
        &["attach", &kernel, "r-1", "--agent", &remote],
        &["exec", &kernel, "1", "--agent", &remote],
    ] {
        let (code, err) = unread(args).await;
        assert_eq!(code, Some(141), "{args:?}: {err}");
    }
}

#[tokio::test]
async fn code_from_a_terminal_that_nobody_ends_keeps_no_command_without_a_reader() {
    let mut exec = command(&["exec", &new_id(), "-", "--agent", "127.0.0.1:9"]);
    let mut exec = exec.stdin(Stdio::piped()).spawn().unwrap();
    let input = exec.stdin.take();
    drop(exec.stdout.take());
    let ended = tokio::time::timeout(secs(4), exec.wait()).await.expect("it waits for nobody's code");
    assert_eq!(ended.unwrap().code(), Some(141));
    drop(input);
}

#[tokio::test]
async fn a_silent_run_whose_reader_has_gone_goes_on_without_exec() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import os, time\nprint('begun', flush=True)\n\
                while not os.path.exists('go'): time.sleep(0.1)\nprint('done')";
    let at = address(&agent);
    let mut exec = Running::start(&["exec", &kernel.id, code, "--agent", &at]);
    let run = run_id(&exec.note("[run ").await);
    assert_eq!(exec.output().await, "begun");
    drop(exec.output);
    let ended = tokio::time::timeout(secs(4), exec.child.wait()).await.expect("it goes on for nobody");
    assert_eq!(ended.unwrap().code(), Some(141));

    std::fs::write(bed.home(&kernel.id).join("go"), "").unwrap();
    let attached = said(&["attach", &kernel.id, &run, "--agent", &at]).await;
    assert_eq!((attached.out.as_str(), attached.code), ("done\n", Some(0)), "{}", attached.err);
}

#[tokio::test]
async fn what_changes_something_is_done_though_nobody_reads() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--create-deadline", "9"]).await;
    let (at, kernel) = (address(&agent), new_id());
    let create = ["create", "--lang", &docker::image::tiny(), "--kernel-id", &kernel, "--agent", &at];
    let mut create = command(&create).spawn().unwrap();
    drop(create.stdout.take());
    let ended = tokio::time::timeout(secs(20), create.wait()).await.expect("it hangs").unwrap();
    assert_eq!(ended.code(), Some(141));
    let known = said(&["destroy", &kernel, "--agent", &at]).await;
    assert_eq!(known.code, Some(0), "{}", known.err);
}

/// The flags that lead to this bed's servers.
fn flags(bed: &Bed, port: &str) -> Vec<String> {
    let flags = [
        ("--config", "/dev/null".to_owned()),
        ("--namespace", bed.namespace.clone()),
        ("--etcd-addr", format!("127.0.0.1:{}", bed.etcd.port())),
        ("--agent-port", port.to_owned()),
        ("--scratch-root", bed.scratch().display().to_string()),
        ("--agent-host-override", "127.0.0.1".to_owned()),
    ];
    flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

async fn check(flags: &[String]) -> (Json, Option<i32>) {
    let args: Vec<&str> = ["check", "--json"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let said = said(&args).await;
    let json = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{} {}", said.out, said.err));
    (json, said.code)
}

/// The verdict of the first finding of this name.
fn verdict(json: &Json, what: &str) -> String {
    let findings = json["findings"].as_array().unwrap();
    let found = findings.iter().find(|found| found["what"] == what);
    found.unwrap_or_else(|| panic!("no {what} in {json:#}"))["verdict"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn check_speaks_to_all_that_is_there() {
    let bed = Bed::start().await;
    let page = Port::lease();
    let page = format!("127.0.0.1:{}", page.number());
    let agent = bed.agent(&["--metrics-addr", &page]).await;
    let port = agent.rpc().address().port().to_string();
    let mut flags = flags(&bed, &port);
    flags.extend(["--metrics-addr".to_owned(), page.clone()]);
    let (json, code) = check(&flags).await;
    assert_eq!(verdict(&json, "port for monitoring"), "ok", "the agent has it: {json:#}");
    for what in
        ["settings", "Docker", "images", "etcd", "manager", "Redis", "events", "published address", "clock"]
    {
        assert_eq!(verdict(&json, what), "ok", "{what}: {json:#}");
    }
    for what in [
        "live-restore",
        "control groups",
        "cores and memory",
        "GPUs",
        "scratch root",
        "scratch space",
        "scratch inodes",
        "scratch mount",
        "scratch file system",
        "firewall",
        "name",
    ] {
        assert_ne!(verdict(&json, what), "fail", "{what}: {json:#}");
    }
    assert_eq!((verdict(&json, "RPC port").as_str(), code), ("ok", Some(0)), "the agent has it: {json:#}");
    // Nothing was changed, and nobody was told of anything.
    assert_eq!(bed.presence().await.len(), 4, "keys and values of the one agent");

    drop(agent);
    let stranger = std::net::TcpListener::bind(("0.0.0.0", port.parse().unwrap())).unwrap();
    let (json, code) = check(&flags).await;
    assert_eq!((verdict(&json, "RPC port").as_str(), code), ("fail", Some(1)), "another has it: {json:#}");
    assert_eq!(json["verdict"], "fail");
    drop(stranger);
    flags.extend(["--scratch-quota".to_owned(), "100".to_owned()]);
    let (json, code) = check(&flags).await;
    assert_eq!((verdict(&json, "RPC port").as_str(), code), ("ok", Some(0)), "{json:#}");
    assert_ne!(verdict(&json, "scratch quota"), "fail", "kernels are made without: {json:#}");
    flags.push("--strict".to_owned());
    let (json, code) = check(&flags).await;
    assert_eq!(code, Some(i32::from(json["verdict"] != "ok")), "{json:#}");
}

#[tokio::test]
async fn check_tells_what_is_missing_and_what_to_do() {
    let bed = Bed::without_manager().await;
    let flags = flags(&bed, "16001");
    let (json, _) = check(&flags).await;
    assert_eq!(verdict(&json, "etcd"), "ok", "{json:#}");
    assert_eq!(verdict(&json, "manager"), "warn", "{json:#}");
    let manager =
        json["findings"].as_array().unwrap().iter().find(|found| found["what"] == "manager").unwrap();
    assert!(manager["found"].as_str().unwrap().contains("missing: nodes/"), "{manager}");

    bed.publish(&["nodes/redis", "nodes/manager/event_addr", "nodes/manager"]).await;
    let etcd = bed.etcd.port();
    // Redis and the manager's socket are named, and not there.
    for key in ["nodes/redis", "nodes/manager/event_addr"] {
        bed.etcd.etcdctl(&["put", &bed.key(key), "127.0.0.1:9"]).await;
    }
    let begun = Instant::now();
    let (json, code) = check(&flags).await;
    assert_eq!(
        (verdict(&json, "Redis").as_str(), verdict(&json, "events").as_str()),
        ("warn", "fail"),
        "{json:#}"
    );
    assert_eq!(code, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(20), "etcd at {etcd}: {:?}", begun.elapsed());
}
