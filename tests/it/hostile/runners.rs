//! Code in a kernel that takes the place of its runner and sends what no runner would.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::support::vitals::{heartbeats_were_on_time, longest_wait};
use crate::support::{Bed, Kernel, new_id, secs};

/// Closes the runner's own sockets and serves their ports: what `act` sends goes out of 2001 without end.
const SERVE: &str = r#"
import gc, socket, struct, threading, time, zmq
for found in gc.get_objects():
    try:
        if isinstance(found, zmq.Socket): found.close(0)
    except Exception: pass
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
def ready(kind):
    body = b"\x05READY\x0bSocket-Type" + struct.pack("!I", len(kind)) + kind
    return b"\x04" + bytes([len(body)]) + body
def serve(port, kind, act):
    def one(c):
        try:
            c.sendall(GREETING); c.recv(64, socket.MSG_WAITALL); c.sendall(ready(kind)); c.recv(1000); act(c)
        except Exception: pass
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for _ in range(200):
        try: s.bind(("0.0.0.0", port)); break
        except OSError: time.sleep(0.05)
    s.listen(50)
    def loop():
        while True:
            c, _ = s.accept(); threading.Thread(target=one, args=(c,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()
def frame(b, more=False, cmd=False): return bytes([(1 if more else 0) | 2 | (4 if cmd else 0)]) + struct.pack("!Q", len(b)) + b
def record(kind, data): return frame(kind, True) + frame(data)
BLOCK = ATTACK
def flood(c):
    while True: c.sendall(BLOCK)
serve(2000, b"PULL", lambda c: time.sleep(1000))
serve(2001, b"PUSH", flood)
"#;

async fn attack(name: &str, block: &str) {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let (hostile, other) =
        (agent.create_python().await.warm().await, agent.create_python().await.warm().await);
    let (before, since) = (agent.memory_kib(), SystemTime::now());
    // Its own answer is whatever it is.
    let _ = hostile.execute("hostile", "query", &SERVE.replace("ATTACK", block), json!({})).await;
    let floods = async {
        let asks = async {
            loop {
                // Somebody goes on asking, so that the agent goes on reading.
                let _ = hostile.execute("hostile", "continue", "", json!({})).await;
                let _ = hostile.execute(&new_id(), "continue", "", json!({})).await;
            }
        };
        let _ = tokio::time::timeout(secs(5), asks).await;
    };
    let sessions = async {
        // Another session meanwhile.
        let mut longest = Duration::ZERO;
        for _ in 0..3 {
            longest = longest.max(runs(&other).await);
        }
        longest
    };
    let (waited, ran) = tokio::join!(longest_wait(&agent, floods), sessions);
    let grown = agent.memory_kib().saturating_sub(before);
    println!(
        "{name}: {grown} KiB more; the longest ping {waited:?}, the longest run of another session {ran:?}"
    );
    assert!(grown < 150 << 10, "{name}: {grown} KiB more");
    assert!(waited < secs(1) && ran < secs(5), "{name}: ping {waited:?}, run {ran:?}");
    hostile.call("destroy_kernel", json!([])).await.unwrap();
    heartbeats_were_on_time(&bed, since);
}

async fn runs(kernel: &Kernel) -> Duration {
    let began = std::time::Instant::now();
    assert_eq!(kernel.run("print(6 * 7)").await.stdout(), "42\n");
    began.elapsed()
}

#[tokio::test]
async fn messages_without_end() {
    attack("frames with MORE", r#"frame(b"x" * (1 << 20), True)"#).await;
}

#[tokio::test]
async fn frames_of_nothing() {
    attack("empty frames with MORE", r#"b"\x01\x00" * 65536"#).await;
}

#[tokio::test]
async fn a_frame_as_large_as_can_be_said() {
    attack("2^62 bytes", r#"b"\x02" + struct.pack("!Q", 1 << 62) + b"x" * 100000"#).await;
}

#[tokio::test]
async fn records_of_no_kind() {
    attack("nonsense", r#"record(b"nonsense", b"x") * 4000"#).await;
}

#[tokio::test]
async fn commands_without_end() {
    attack("PINGs", r#"frame(b"\x04PING\0\0" + b"c" * 4000, cmd=True) * 50"#).await;
}

#[tokio::test]
async fn ends_of_runs_without_end() {
    attack("finished", r#"record(b"finished", b"{}") * 4000"#).await;
}
