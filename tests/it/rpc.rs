//! The RPC transport: frames, headers, parameters and what does not fit (PROTOCOL section 2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rmpv::Value;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeromq::{Socket, SocketRecv, SocketSend};

use crate::support::msgpack::{from_json, pack};
use crate::support::rpc::{Line, header, is_msgpack};
use crate::support::{Agent, Bed, RemoteError, new_id, secs, until};

const NOT_FOUND: &str = "aiozmq.rpc.base.NotFoundError";
const PARAMETERS: &str = "aiozmq.rpc.base.ParametersError";

fn nothing() -> Value {
    Value::Map(Vec::new())
}

/// A call that must be refused.
async fn refused(agent: &Agent, method: &str, args: &Json) -> RemoteError {
    match agent.call(method, args.clone()).await {
        Ok(answer) => panic!("{method}{args} was answered: {answer}"),
        Err(error) => error,
    }
}

async fn answers_pings(line: &mut Line) {
    let id = line.request("ping", &from_json(&json!(["still there"])), &nothing()).await;
    let answer = line.answer(secs(3)).await.expect("an answer to the ping");
    assert_eq!((answer.header.id, answer.result), (id, Ok("still there".into())));
}

#[tokio::test]
async fn ping_answers_the_same_text() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let long = "0123456789".repeat(20_000);
    for text in ["hello", "", "héllo ☃ 한글", "\u{0}\n", &long] {
        assert_eq!(agent.call("ping", json!([text])).await.unwrap(), text);
    }
    let kwargs = from_json(&json!({ "msg": "by name" }));
    let answer = agent.rpc().call_with("ping", Value::Array(vec![]), kwargs, secs(3)).await;
    assert_eq!(answer, Ok("by name".into()));
}

#[tokio::test]
async fn wrong_arities_are_parameter_errors_in_every_method() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let arities = [
        ("ping", 1_usize, 1),
        ("create_kernel", 2, 2),
        ("destroy_kernel", 1, 1),
        ("interrupt_kernel", 1, 1),
        ("get_completions", 3, 4),
        ("get_logs", 1, 1),
        ("restart_kernel", 2, 2),
        ("execute", 6, 6),
        ("upload_file", 3, 3),
        ("reset", 0, 0),
    ];
    for (method, least, most) in arities {
        let mut wrong = vec![most + 1];
        wrong.extend(least.checked_sub(1));
        for count in wrong {
            let error = refused(&agent, method, &json!(vec!["x"; count])).await;
            assert_eq!(error.name, PARAMETERS, "{method} with {count}: {error:?}");
            assert_eq!(error.args.len(), 1);
            assert!(!error.text().is_empty() && !error.repr.is_empty());
        }
        let kwargs = from_json(&json!({ "no_such_parameter": 1 }));
        let args = from_json(&json!(vec!["x"; least]));
        let error = agent.rpc().call_with(method, args, kwargs, secs(3)).await.unwrap_err();
        assert_eq!(error.name, PARAMETERS, "{method} with a name too many: {error:?}");
        assert!(error.text().contains("no_such_parameter"), "{error:?}");
    }
    let twice = from_json(&json!({ "msg": "b" }));
    let error = agent.rpc().call_with("ping", from_json(&json!(["a"])), twice, secs(3)).await.unwrap_err();
    assert_eq!(error.name, PARAMETERS, "one parameter given twice: {error:?}");
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty(), "a refused call did something");
}

#[tokio::test]
async fn wrong_types_are_parameter_errors_that_name_the_parameter() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let id = new_id();
    let calls = [
        ("ping", json!([123]), "msg"),
        ("ping", json!([null]), "msg"),
        ("ping", json!([["a"]]), "msg"),
        ("create_kernel", json!([1, {}]), "kernel_id"),
        ("create_kernel", json!([id, 5]), "config"),
        ("create_kernel", json!([id, null]), "config"),
        ("destroy_kernel", json!([null]), "kernel_id"),
        ("execute", json!(["x", id, "r", "query", "1", {}]), "api_version"),
        ("execute", json!([2, id, 7, "query", "1", {}]), "run_id"),
        ("execute", json!([2, id, "r", 1, "1", {}]), "mode"),
        ("execute", json!([2, id, "r", "query", 1, {}]), "code"),
        ("execute", json!([2, id, "r", "query", "1", [1]]), "opts"),
        ("upload_file", json!([id, "x.txt", "text, not bytes"]), "filedata"),
        ("upload_file", json!([id, "x.txt", 3]), "filedata"),
    ];
    for (method, args, parameter) in calls {
        let error = refused(&agent, method, &args).await;
        assert_eq!(error.name, PARAMETERS, "{method}{args}: {error:?}");
        assert!(error.text().contains(parameter), "{method}{args} does not name {parameter}: {error:?}");
    }
}

#[tokio::test]
async fn unknown_methods_are_not_found_by_their_name() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    for name in ["no_such_method", "_execute", "__class__", "Ping", "a.ping", "ping ", "heartbeat", ""] {
        let error = refused(&agent, name, &json!([1])).await;
        assert_eq!((error.name.as_str(), error.args), (NOT_FOUND, vec![json!(name)]));
    }
}

#[tokio::test]
async fn pickles_are_bad_parameters_and_never_opened() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    // What pickle.dumps(datetime.date(2018, 4, 1), 0) gives.
    let pickle = b"cdatetime\ndate\np0\n(V\\u07e2\\u0004\\u0001\np1\ntp2\nRp3\n.".to_vec();
    for kind in 123..=127 {
        let ext = Value::Ext(kind, pickle.clone());
        let deep = Value::Array(vec![new_id().into(), Value::Map(vec![("lang".into(), ext.clone())])]);
        for (method, args) in [("ping", Value::Array(vec![ext])), ("create_kernel", deep)] {
            let error = agent.rpc().call_with(method, args, nothing(), secs(3)).await.unwrap_err();
            assert_eq!(error.name, PARAMETERS, "{method} with ext type {kind}: {error:?}");
        }
    }
    assert!(bed.scratch_dirs().is_empty());
}

#[tokio::test]
async fn an_answer_has_the_header_that_aiozmq_reads() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut seen = Vec::new();
    for id in [1, 0xdead_beef, u32::MAX] {
        let mut line = agent.rpc().connect().await;
        for (method, flag) in [("ping", 0), ("no_such_method", 1)] {
            line.send(&[header(id), method.into(), pack(&from_json(&json!(["x"]))), pack(&nothing())]).await;
            let frames = line.frames(secs(3)).await.expect("an answer");
            assert_eq!(frames.len(), 2);
            let head = &frames[0];
            assert_eq!(head.len(), 17);
            assert_eq!(head[4..8], id.to_ne_bytes());
            let time = f64::from_ne_bytes(head[8..16].try_into().unwrap());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            assert!((now - time).abs() < 5.0, "{time} is not now");
            assert_eq!(head[16], flag);
            seen.push(head[..4].to_vec());
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "pid and random number are fixed for a process: {seen:?}");
}

#[tokio::test]
async fn a_slow_call_does_not_hold_up_a_quick_one() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let mut line = agent.rpc().connect().await;
    // Nothing in this kernel answers, so the call ends when its two seconds are over.
    let execute = json!([2, kernel.id, "r", "query", "1", {}]);
    let slow = line.request("execute", &from_json(&execute), &nothing()).await;
    let quick = line.request("ping", &from_json(&json!(["quick"])), &nothing()).await;
    let first = line.answer(secs(1)).await.expect("the ping's answer at once");
    assert_eq!((first.header.id, first.result), (quick, Ok("quick".into())));
    let second = line.answer(secs(4)).await.expect("the answer to execute");
    assert_eq!(second.header.id, slow);
    assert_eq!(second.result.unwrap()["status"], "continued".into());
}

#[tokio::test]
async fn frames_that_make_no_sense_are_dropped_without_harm() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let mut line = agent.rpc().connect().await;
    let (args, kwargs) = (pack(&from_json(&json!(["x"]))), pack(&nothing()));
    let ping = || b"ping".to_vec();
    let broken = vec![0xd9, 5, b'a'];
    assert!(!is_msgpack(&broken));
    let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
    let huge = vec![0xdd, 0xff, 0xff, 0xff, 0xff];
    let cases: Vec<Vec<Vec<u8>>> = vec![
        vec![vec![]],
        vec![header(1)],
        vec![header(1), ping()],
        vec![header(1), ping(), args.clone()],
        vec![header(1), ping(), args.clone(), kwargs.clone(), vec![]],
        vec![vec![], ping(), args.clone(), kwargs.clone()],
        vec![header(1)[..15].to_vec(), ping(), args.clone(), kwargs.clone()],
        vec![[header(1), vec![0]].concat(), ping(), args.clone(), kwargs.clone()],
        vec![header(1), vec![0xff, 0xfe], args.clone(), kwargs.clone()],
        vec![header(1), ping(), broken.clone(), kwargs.clone()],
        vec![header(1), ping(), args.clone(), broken],
        vec![header(1), ping(), vec![], kwargs.clone()],
        vec![header(1), ping(), huge, kwargs.clone()],
        vec![header(1), ping(), deep, kwargs],
    ];
    for case in cases {
        line.send(&case).await;
        // Had the agent answered, that answer would come before the ping's.
        answers_pings(&mut line).await;
    }
    assert!(agent.is_alive());
}

/// Bytes that are no ZMTP at all, or a frame that claims to be larger than any memory.
#[tokio::test]
async fn connections_that_are_not_zeromq_do_no_harm() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let mut greeting = [0_u8; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    let ready = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER";
    assert_eq!(ready.len() - 2, 0x1c);
    let claim = [&greeting[..], ready, &[2, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n"[..], &[0xff; 4096], &greeting[..20], &claim] {
        let mut stream = TcpStream::connect(agent.rpc().address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        // Read what it says until it hangs up or says nothing more; both are fine.
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
        assert!(agent.is_alive());
        answers_pings(&mut agent.rpc().connect().await).await;
    }
    assert!(agent.memory_kib() < 400 << 10, "{} KiB", agent.memory_kib());
}

#[tokio::test]
async fn connections_leave_nothing_behind() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    assert_eq!(agent.call("ping", json!(["warm"])).await.unwrap(), "warm");
    let before = agent.open_files();
    for _ in 0..200 {
        assert_eq!(agent.call("ping", json!(["x"])).await.unwrap(), "x");
    }
    until("the end of closed connections", secs(3), async || {
        (agent.open_files() <= before + 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_zeromq_implementation_is_served() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut dealer = zeromq::DealerSocket::new();
    dealer.connect(&format!("tcp://{}", agent.rpc().address())).await.unwrap();
    let frames = [header(9), b"ping".to_vec(), pack(&from_json(&json!(["hello"]))), pack(&nothing())];
    let frames: Vec<bytes::Bytes> = frames.into_iter().map(Into::into).collect();
    dealer.send(zeromq::ZmqMessage::try_from(frames).unwrap()).await.unwrap();
    let answer = tokio::time::timeout(secs(3), dealer.recv()).await.expect("an answer").unwrap();
    assert_eq!(answer.len(), 2);
    assert_eq!(answer.get(0).unwrap()[4..8], 9_u32.to_ne_bytes());
    assert_eq!(answer.get(1).unwrap()[..], pack(&"hello".into())[..]);
}
