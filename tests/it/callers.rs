//! Callers of the RPC port: many at once, of every manner, and such as no library would be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backendai_agent::zmtp::hello::{GREETING, ready};
use backendai_agent::zmtp::{Caps, Connection, Event, KeepAlive, Kind, frame};
use bytes::Bytes;
use futures_util::future::join_all;
use rmpv::Value;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::msgpack::{from_json, pack};
use crate::support::rpc::header;
use crate::support::vitals::Vitals;
use crate::support::{Agent, Bed, new_id, secs, until};

const MORE: u8 = 1;
const LONG: u8 = 2;

fn nothing() -> Value {
    Value::Map(Vec::new())
}

fn ping(id: u32, text: &str) -> Bytes {
    let frames = [header(id), b"ping".to_vec(), pack(&from_json(&json!([text]))), pack(&nothing())];
    frame::message(&frames.map(Bytes::from))
}

async fn answers_a_ping(agent: &Agent) -> Duration {
    let began = Instant::now();
    assert_eq!(agent.call("ping", json!(["still there"])).await.unwrap(), "still there");
    began.elapsed()
}

/// A caller's connection past its handshake, all of whose bytes are ours from there on; READY may be any.
async fn raw(agent: &Agent, ready: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(agent.rpc().address()).await.unwrap();
    stream.write_all(&[&GREETING[..], ready].concat()).await.unwrap();
    let mut head = [0; 64 + 2];
    stream.read_exact(&mut head).await.unwrap();
    stream.read_exact(&mut vec![0; usize::from(head[65])]).await.unwrap();
    stream
}

async fn connect(agent: &Agent) -> Connection {
    let keep = KeepAlive::default();
    Connection::open(agent.rpc().address(), Kind::Dealer, Caps::calls(1 << 30), keep).await.unwrap()
}

/// Opens `count` descriptors' worth of room for this process.
fn make_room(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most > count), "this test needs {count} open files");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// The id that an answer is for.
fn id_of(answer: &[Bytes]) -> u32 {
    assert_eq!((answer.len(), answer[0].len()), (2, 17));
    u32::from_ne_bytes(answer[0][4..8].try_into().unwrap())
}

#[tokio::test]
async fn one_connection_for_ten_thousand_calls_loses_no_answer() {
    const CALLS: u32 = 10_000;
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut connection = connect(&agent).await;
    let text = "x".repeat(500);
    let calls: Vec<Bytes> = (0..CALLS).map(|id| ping(id, &text)).collect();
    connection.put(calls.concat().into());
    let mut answered = BTreeSet::new();
    let all = async {
        while answered.len() < CALLS as usize {
            if let Event::Message(answer) = connection.next(true).await.unwrap() {
                assert!(answered.insert(id_of(&answer.frames)), "answered twice");
            }
        }
    };
    tokio::time::timeout(secs(60), all).await.expect("answers are missing");
}

/// The sixty-fifth answer to a caller that does not read was dropped once, and a create that loses its answer is
/// undone.
#[tokio::test]
async fn answers_wait_for_a_caller_that_does_not_read() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut slow = connect(&agent).await;
    let text = "x".repeat(100_000);
    for id in 0..300 {
        slow.put(ping(id, &text));
        // Reads nothing; what the agent does not take now waits here.
        let _ = tokio::time::timeout(Duration::from_millis(5), slow.flush()).await;
        if id % 100 == 0 {
            answers_a_ping(&agent).await;
        }
    }
    let mut answered = BTreeSet::new();
    let all = async {
        while answered.len() < 300 {
            if let Event::Message(answer) = slow.next(true).await.unwrap() {
                answered.insert(id_of(&answer.frames));
            }
        }
    };
    tokio::time::timeout(secs(30), all).await.expect("answers are missing");
}

#[tokio::test]
async fn ten_thousand_connections_in_sequence_leave_nothing_behind() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    for _ in 0..500 {
        answers_a_ping(&agent).await;
    }
    let (files, memory) = (agent.open_files(), agent.memory_kib());
    for _ in 0..9_500 {
        answers_a_ping(&agent).await;
    }
    until("the end of closed connections", secs(3), async || (agent.open_files() <= files + 2).then_some(()))
        .await;
    let grown = agent.memory_kib().saturating_sub(memory);
    assert!(grown < 8 << 10, "{grown} KiB more after 9,500 connections");
}

#[tokio::test]
async fn two_thousand_idle_connections_cost_little_and_hold_up_nobody() {
    make_room(2_500);
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    answers_a_ping(&agent).await;
    let before = agent.memory_kib();
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.extend(join_all((0..100).map(|_| connect(&agent))).await);
    }
    answers_a_ping(&agent).await;
    let each = agent.memory_kib().saturating_sub(before) * 1024 / 2_000;
    assert!(each < 16 << 10, "{each} bytes an idle connection");
    // They are as good as new.
    for connection in &mut idle[..20] {
        connection.put(ping(7, "awake"));
        assert_eq!(id_of(&connection.recv().await.unwrap().frames), 7);
    }
}

#[tokio::test]
async fn handshakes_that_stop_half_way_are_closed_after_the_limit() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let files = agent.open_files();
    let hello = [&GREETING[..], &ready(Kind::Dealer)].concat();
    let mut half = Vec::new();
    for length in [0, 1, 12, 63, 64, 66, hello.len() - 1] {
        let mut stream = TcpStream::connect(agent.rpc().address()).await.unwrap();
        stream.write_all(&hello[..length]).await.unwrap();
        half.push(stream);
    }
    let closed = join_all(half.iter_mut().map(|stream| async {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
    }));
    let waits = async {
        tokio::select! {
            _ = closed => {}
            () = async {
                loop {
                    answers_a_ping(&agent).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            } => {}
        }
    };
    tokio::time::timeout(secs(20), waits).await.expect("a half-open handshake stays");
    until("their end", secs(3), async || (agent.open_files() <= files + 1).then_some(())).await;
}

/// Peers that are too old are named in the log by the version that they speak.
#[tokio::test]
async fn old_peers_are_refused_by_name() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    for (bytes, name) in [
        (&b"\x01\0"[..], "ZMTP 1.0 (libzmq 2)"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\0\0", "ZMTP 2.0 (libzmq 3)"),
    ] {
        let mut stream = TcpStream::connect(agent.rpc().address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        let _ = tokio::time::timeout(secs(5), stream.read_to_end(&mut said)).await.expect("not closed");
        until("a log line", secs(3), async || agent.output().contains(name).then_some(())).await;
    }
}

/// Two that claim one name get their own answers and nothing of each other's, in either order.
#[tokio::test]
async fn a_shared_name_leaks_nothing() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let named = b"\x04\x2d\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x04same";
    let (mut first, mut second) = (raw(&agent, named).await, raw(&agent, named).await);
    for round in 0..20_u32 {
        let [a, b] = [2 * round, 2 * round + 1];
        first.write_all(&ping(a, "first's secret")).await.unwrap();
        second.write_all(&ping(b, "second's secret")).await.unwrap();
        for (stream, id, text) in [(&mut first, a, "first's secret"), (&mut second, b, "second's secret")] {
            let body = pack(&text.into());
            let mut answer = vec![0; 2 + 17 + 2 + body.len()];
            tokio::time::timeout(secs(5), stream.read_exact(&mut answer)).await.expect("no answer").unwrap();
            assert_eq!(answer[2 + 4..2 + 8], id.to_ne_bytes());
            assert_eq!(answer[2 + 17 + 2..], body);
        }
    }
    drop(first);
    second.write_all(&ping(99, "x")).await.unwrap();
    let mut answer = [0; 2 + 17 + 2 + 2];
    tokio::time::timeout(secs(5), second.read_exact(&mut answer)).await.expect("no answer").unwrap();
}

/// Measured with libzmq and a decoder without a bound: 20 million nils took 840 MB, and everybody else's ping 7.9 s.
#[tokio::test]
async fn a_call_of_ten_million_values_is_refused_and_holds_up_nobody() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    answers_a_ping(&agent).await;
    let before = agent.memory_kib();
    let nils = [&b"\xdd\x00\x98\x96\x80"[..], &vec![0xc0; 10_000_000]].concat();
    let mut line = agent.rpc().connect().await;
    let refusals = async {
        for id in 0..10 {
            line.send(&[header(id), b"ping".to_vec(), nils.clone(), pack(&nothing())]).await;
            let error = line.answer(secs(10)).await.expect("an answer").result.unwrap_err();
            assert_eq!(error.name, "aiozmq.rpc.base.ParametersError");
            assert!(error.text().contains("10000 values"), "{error:?}");
        }
    };
    let mut took = Vec::new();
    let others = async {
        loop {
            took.push(answers_a_ping(&agent).await);
        }
    };
    tokio::select! {
        () = refusals => {}
        () = others => {}
    }
    took.sort();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{} pings beside 10 such calls: median {median:?}, longest {most:?}", took.len());
    assert!(median < Duration::from_millis(50) && most < Duration::from_millis(500), "{median:?} {most:?}");
    let grown = agent.memory_kib().saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn an_upload_of_100_mb_beside_64_callers_is_ordinary() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let pings = async {
        let callers = (0..64).map(|_| async {
            for _ in 0..20 {
                answers_a_ping(&agent).await;
            }
        });
        join_all(callers).await
    };
    tokio::join!(upload_is_read(&agent), pings);
}

async fn upload_is_read(agent: &Agent) {
    let file = Value::Array(vec![new_id().into(), "large.bin".into(), vec![7_u8; 100_000_000].into()]);
    let refused = agent.rpc().call_with("upload_file", file, nothing(), secs(30)).await;
    // Nobody knows such a kernel; what matters is that all of it was read.
    assert!(refused.unwrap_err().name.starts_with("builtins."));
}

#[tokio::test]
async fn frames_of_500_mib_on_seven_connections_take_no_memory_and_no_turn() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    answers_a_ping(&agent).await;
    let before = agent.memory_kib();
    let mut greedy = Vec::new();
    for _ in 0..7 {
        let mut stream = raw(&agent, &ready(Kind::Dealer)).await;
        // 500 MiB announced, 1 MiB sent.
        stream.write_all(&[LONG | MORE, 0, 0, 0, 0, 0x1f, 0x40, 0, 0]).await.unwrap();
        let _ = tokio::time::timeout(secs(1), stream.write_all(&vec![0; 1 << 20])).await;
        greedy.push(stream);
    }
    for _ in 0..20 {
        answers_a_ping(&agent).await;
    }
    let grown = agent.memory_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    upload_is_read(&agent).await;
}

#[tokio::test]
async fn messages_without_end_cost_their_connection() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    answers_a_ping(&agent).await;
    let before = agent.memory_kib();
    let frames: [&[u8]; 4] = [
        b"\x01\x04more",
        b"\x01\x00",
        // Larger than a call may be.
        b"\x02\x00\x00\x00\x00\x40\x00\x00\x00",
        b"\x03\x00\x00\x7f\xff\xff\xff\xff\xff",
    ];
    for frame in frames {
        let mut stream = raw(&agent, &ready(Kind::Dealer)).await;
        let flood = frame.repeat(1 << 16);
        let mut sent = 0;
        let closed = async {
            while stream.write_all(&flood).await.is_ok() {
                sent += flood.len();
            }
        };
        tokio::time::timeout(secs(10), closed).await.expect("the connection stays");
        // What the two sockets' buffers took.
        assert!(sent < 32 << 20, "{sent} bytes of {frame:?}");
        answers_a_ping(&agent).await;
    }
    let grown = agent.memory_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn an_agent_without_descriptors_waits_and_says_so_once() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    answers_a_ping(&agent).await;
    let pid = Pid::from_raw(agent.pid().try_into().unwrap());
    let few = Some(agent.open_files() as u64 + 5);
    let old = prlimit(pid, Resource::Nofile, Rlimit { current: few, ..getrlimit(Resource::Nofile) }).unwrap();
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(TcpStream::connect(agent.rpc().address()).await.unwrap());
    }
    let said = "can't take connections";
    until("a log line", secs(5), async || agent.output().contains(said).then_some(())).await;
    let vitals = Vitals::of(&agent);
    tokio::time::sleep(secs(2)).await;
    vitals.check(&agent, 10);
    assert_eq!(agent.output().matches(said).count(), 1);
    drop(held);
    until("the end of that", secs(15), async || {
        answers_a_ping(&agent).await;
        agent.output().contains("connections can be taken again").then_some(())
    })
    .await;
    assert_eq!(agent.output().matches(said).count(), 1);
    prlimit(pid, Resource::Nofile, old).unwrap();
    answers_a_ping(&agent).await;
}
