//! Other implementations of ZeroMQ as the agent's peers: libzmq of the versions that managers and kernel images bring,
//! and the `zeromq` crate. `manager_client` has the manager's own RPC client.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backendai_agent::zmtp::hello::{GREETING, ready};
use backendai_agent::zmtp::{Caps, Connection, KeepAlive, Kind, frame};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use zeromq::Socket;

use crate::support::{Bed, secs};

/// The versions of libzmq, and where their libraries are.
fn versions() -> Vec<(&'static str, PathBuf)> {
    let dir = |variable: &str| {
        let value = std::env::var_os(variable);
        PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set; scripts/test makes it")))
    };
    let python = std::fs::read_dir(dir("BACKENDAI_TEST_VENV").join("lib")).unwrap().next().unwrap().unwrap();
    let mut found = vec![("4.3", python.path().join("site-packages/pyzmq.libs"))];
    // PyPI has no old wheels for other machines.
    if cfg!(target_arch = "x86_64") {
        let old = dir("BACKENDAI_TEST_OLD_ZMQ");
        found.extend(["4.1", "4.2"].map(|version| (version, old.join(version))));
    }
    found
}

/// A process that speaks through a libzmq.
struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    async fn start(version: &str, library: &Path, role: &[&str]) -> Self {
        let venv = PathBuf::from(std::env::var_os("BACKENDAI_TEST_VENV").unwrap());
        let mut python = Command::new(venv.join("bin/python"));
        python
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/libzmq.py"))
            .arg(library)
            .args(role);
        let mut child =
            python.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut peer = Self { child, lines };
        let found = peer.line().await;
        assert!(found.starts_with(version), "libzmq {found} instead of {version}");
        peer
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(secs(20), self.lines.next_line()).await;
        line.expect("the peer says nothing").unwrap().expect("the peer has ended, see above")
    }

    async fn end(mut self) {
        self.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn callers_of_every_libzmq_are_answered() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let address = agent.rpc().address().to_string();
    for (version, library) in versions() {
        let mut peer = Peer::start(version, &library, &["caller", &address]).await;
        assert_eq!(peer.line().await, "20 pings answered", "libzmq {version}");
    }
}

/// Managers on libzmq 4.1 must never see a PING: it would be a message of one frame, of which their receiver dies.
#[tokio::test]
async fn managers_on_every_libzmq_get_events_of_three_frames() {
    let mut bed = Bed::start().await;
    let agent = bed.agent(&["--heartbeat-interval", "0.2", "--debug"]).await;
    bed.manager.down();
    for (version, library) in versions() {
        let before = agent.output().len();
        let mut peer = Peer::start(version, &library, &["pull", &bed.manager.address()]).await;
        assert_eq!(peer.line().await, "listening");
        for _ in 0..10 {
            let line = peer.line().await;
            assert_eq!(line.split(' ').count(), 3, "libzmq {version}: {line}");
        }
        let confirmed = if version == "4.1" { "confirmed=false" } else { "confirmed=true" };
        let said = agent.output().split_off(before);
        assert!(said.contains(confirmed), "libzmq {version}: {said}");
        peer.end().await;
    }
    bed.manager.up();
}

/// Kernel images of 2018 bring libzmq 4.1 and 4.2. With heartbeats, where there are any, a peer that answers no PINGs
/// would lose its connection.
#[tokio::test]
async fn runners_on_every_libzmq_are_understood() {
    const RECORDS: Caps = Caps::records(1 << 20);
    for (version, library) in versions() {
        for heartbeat in ["0", "20"] {
            if version == "4.1" && heartbeat != "0" {
                continue;
            }
            let mut peer = Peer::start(version, &library, &["runner", heartbeat]).await;
            let ports = peer.line().await;
            let [input, output] = [0, 1].map(|at| ports.split(' ').nth(at).unwrap().parse::<u16>().unwrap());
            let open =
                |port, own, caps| Connection::open(("127.0.0.1", port), own, caps, KeepAlive::default());
            let mut outlet = open(input, Kind::Push, Caps::commands()).await.unwrap();
            let mut intake = open(output, Kind::Pull, RECORDS).await.unwrap();
            for round in 0..3 {
                for size in [0, 1, 255, 256, 100_000] {
                    let message = [Bytes::from(format!("{version} {round}")), Bytes::from(vec![b'x'; size])];
                    outlet.put(frame::message(&message));
                    outlet.flush().await.unwrap();
                    let got = tokio::time::timeout(secs(10), intake.recv()).await.expect("no echo");
                    assert_eq!(got.unwrap().frames, message, "libzmq {version}");
                }
                // Longer than a peer with heartbeats waits for a PONG.
                let silence = async { tokio::join!(intake.recv(), outlet.recv()) };
                let silent = tokio::time::timeout(Duration::from_millis(400), silence).await;
                assert!(silent.is_err(), "libzmq {version}: {silent:?}");
            }
            peer.end().await;
        }
    }
}

/// Why `zeromq` is in the tests and not in the agent; ARCHITECTURE.md says what a release must bring to change that.
/// Delete this, and look again, when it fails.
#[test]
fn the_zeromq_crate_aborts_the_process_on_one_frame_header() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "peers::a_zeromq_socket_meets_that_header", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("memory allocation of"), "{:?}: {said}", child.status);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{said}");
}

#[tokio::test]
#[ignore = "ends its process; the test above runs it in one of its own"]
async fn a_zeromq_socket_meets_that_header() {
    let mut socket = zeromq::PullSocket::new();
    let bound = socket.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
    let mut peer = tokio::net::TcpStream::connect(bound.trim_start_matches("tcp://")).await.unwrap();
    let header = b"\x02\x00\x00\x7f\xff\xff\xff\xff\xff";
    peer.write_all(&[&GREETING[..], &ready(Kind::Push), header].concat()).await.unwrap();
    let _ = tokio::time::timeout(secs(10), zeromq::SocketRecv::recv(&mut socket)).await;
}
