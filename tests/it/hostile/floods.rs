//! More of something than the agent has room for: creates, runs, unread answers, a Redis that answers without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use backendai_agent::zmtp::hello::{GREETING, ready};
use backendai_agent::zmtp::{Kind, frame};
use bytes::Bytes;
use futures_util::future::join_all;
use rmpv::Value;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::docker::{containers_named, docker, image};
use crate::support::msgpack::{from_json, pack};
use crate::support::rpc::header;
use crate::support::vitals::{heartbeats_were_on_time, longest_wait};
use crate::support::{Agent, Bed, kernel, new_id, secs, until};

/// A call with one long text for an argument.
fn long_ping(id: u32, bytes: usize) -> Bytes {
    let frames = [
        header(id),
        b"ping".to_vec(),
        pack(&from_json(&json!(["x".repeat(bytes)]))),
        pack(&Value::Map(Vec::new())),
    ];
    frame::message(&frames.map(Bytes::from))
}

/// A hundred creates at once: some are made, the others are refused before anything is made of them, and nothing is left.
#[tokio::test]
async fn creates_that_wait_too_long_are_refused_before_anything_is_made() {
    const CREATES: usize = 100;
    const AT_ONCE: usize = 4;
    let bed = Bed::start().await;
    let at_once = AT_ONCE.to_string();
    let agent = bed.agent(&["--creates", &at_once, "--create-deadline", "3"]).await;
    let since = SystemTime::now();
    let rpc = agent.rpc();
    let asked = (0..CREATES).map(|_| async move {
        let mut config = kernel::config(&image::tiny());
        config["limits"]["mem_slot"] = json!(32);
        rpc.call("create_kernel", json!([new_id(), config]), secs(30)).await
    });
    let most = Arc::new(AtomicUsize::new(0));
    let label = format!("label=ai.backend.namespace={}", bed.namespace);
    let watching = async {
        loop {
            let lines = docker(&["ps", "-aq", "--filter", &label]).await;
            most.fetch_max(lines.lines().count(), Ordering::Relaxed);
        }
    };
    let mut answers = Vec::new();
    let storm = async {
        answers = tokio::select! {
            answers = join_all(asked) => answers,
            () = watching => unreachable!(),
        };
    };
    let longest = longest_wait(&agent, storm).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let crowded =
        refused.iter().filter(|answer| answer.as_ref().unwrap_err().text().contains("was not begun"));
    let crowded = crowded.count();
    println!(
        "{} made, {} refused, {crowded} before anything was made; most containers {most:?}; another caller waited {longest:?}",
        made.len(),
        refused.len()
    );
    // Whoever was begun and came too late was one of those at once, a round or two of them.
    assert!(crowded + made.len() + 3 * AT_ONCE >= CREATES, "{refused:?}");
    assert!(longest < secs(2), "another caller waited for {longest:?}");
    assert!(most.load(Ordering::Relaxed) <= made.len() + AT_ONCE, "{most:?} containers, {} made", made.len());
    let what = "the removal of what was undone";
    until(what, secs(10), async || {
        (docker(&["ps", "-aq", "--filter", &label]).await.lines().count() == made.len()).then_some(())
    })
    .await;
    // Room again.
    agent.create_tiny().await;
    heartbeats_were_on_time(&bed, since);
}

#[tokio::test]
async fn a_kernel_s_queue_has_an_end_and_holds_up_nobody() {
    const CALLS: usize = 400;
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let since = SystemTime::now();
    kernel.execute("first", "query", "import time\ntime.sleep(60)", json!({})).await.unwrap();
    let mut line = agent.rpc().connect().await;
    let queued = async {
        for n in 0..CALLS {
            let args = json!([2, kernel.id, format!("r{n}"), "query", "1", {}]);
            line.request("execute", &from_json(&args), &Value::Map(Vec::new())).await;
        }
        let mut refused = 0;
        while refused < CALLS - 256 {
            let error = line.answer(secs(10)).await.expect("an answer").result.unwrap_err();
            assert!(error.text().starts_with("256 runs of this kernel wait"), "{error:?}");
            refused += 1;
        }
    };
    let longest = longest_wait(&agent, queued).await;
    assert!(longest < secs(1), "another caller waited for {longest:?}");
    let began = Instant::now();
    kernel.call("destroy_kernel", json!([])).await.unwrap();
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    until("its container's end", secs(5), async || {
        containers_named(&kernel.id).await.is_empty().then_some(())
    })
    .await;
    heartbeats_were_on_time(&bed, since);
}

/// Callers that send and never read: what they leave unread has a bound for all of them together.
#[tokio::test]
async fn unread_answers_of_many_callers_cost_their_connections_and_not_memory() {
    let bed = Bed::start().await;
    // What is received of calls has a bound of its own, which this test is not about.
    let agent = bed.agent(&["--rpc-memory", "64"]).await;
    let since = SystemTime::now();
    let (before, most) = (agent.memory_kib(), AtomicU64::new(0));
    let (call, rpc) = (long_ping(1, 1 << 20), agent.rpc().address());
    let floods = join_all((0..16).map(|_| async {
        let mut stream = TcpStream::connect(rpc).await.unwrap();
        stream.write_all(&hello()).await.unwrap();
        // Until it is closed.
        while stream.write_all(&call).await.is_ok() {}
    }));
    let watching = async {
        loop {
            most.fetch_max(agent.memory_kib().saturating_sub(before), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = "the end of callers that read nothing";
    let ended =
        until(closed, secs(30), async || agent.output().contains("does not take its answers").then_some(()));
    let attack = async {
        tokio::select! {
            () = ended => {}
            () = watching => unreachable!(),
            // All of them are closed.
            _ = floods => {}
        }
    };
    let longest = longest_wait(&agent, attack).await;
    println!("{most:?} KiB more at most; the longest wait of another caller {longest:?}");
    assert!(agent.output().contains("does not take its answers"));
    // Twice 256 MiB, the 64 of the calls, and what the allocator takes besides.
    assert!(most.load(Ordering::Relaxed) <= 800 << 10, "{most:?} KiB");
    assert!(longest < secs(5), "{longest:?}");
    is_there(&agent).await;
    // All of it would stay with the C library's heaps.
    until("most of the memory to go back", secs(10), async || {
        let more = agent.memory_kib().saturating_sub(before);
        (more < 48 << 10).then(|| println!("{more} KiB more in the end"))
    })
    .await;
    heartbeats_were_on_time(&bed, since);
}

fn hello() -> Vec<u8> {
    [&GREETING[..], &ready(Kind::Dealer)].concat()
}

/// A Redis that answers anything by a text without end costs its connection.
#[tokio::test]
async fn a_redis_that_answers_without_end_takes_no_memory() {
    let bed = Bed::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let agent = bed.agent(&["--stats-interval", "500ms"]).await;
    let _kernel = agent.create_tiny().await;
    let (before, since) = (agent.memory_kib(), SystemTime::now());
    bed.etcd.etcdctl(&["put", &bed.key("nodes/redis"), &at]).await;
    let attack = async {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"$400000000\r\n").await;
            let mut sent = 0;
            let text = vec![b'x'; 1 << 16];
            while stream.write_all(&text).await.is_ok() {
                sent += 1 << 16;
            }
            // What the two sockets' buffers took.
            assert!(sent < 32 << 20, "{sent} bytes were taken");
        }
    };
    tokio::time::timeout(secs(30), attack).await.expect("the agent reads on");
    let grown = agent.memory_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    is_there(&agent).await;
    heartbeats_were_on_time(&bed, since);
}

async fn is_there(agent: &Agent) {
    assert_eq!(agent.call("ping", json!(["there"])).await.unwrap(), "there");
}
