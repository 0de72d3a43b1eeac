//! PUSH and PULL: peers that come, go and come back, and closing without losing anything.

use std::time::Instant;

use zeromq::{PullSocket, PushSocket, Socket, SocketRecv, SocketSend};

use super::*;
use crate::zmq::{Pull, Push};

#[tokio::test]
async fn a_foreign_push_reaches_a_pull_of_either_direction() {
    let mut push = PushSocket::new();
    let bound = within(push.bind("tcp://127.0.0.1:0")).await.unwrap().to_string();
    let mut pull = Pull::connect(&context(), &bound, quick()).unwrap();
    push_until_taken(&mut push, &foreign(&["stdout", "hello"])).await;
    assert_eq!(within(pull.recv()).await.unwrap(), message(&["stdout", "hello"]));

    let mut pull = Pull::bind(&context(), "tcp://127.0.0.1:*", quick()).unwrap();
    let mut push = PushSocket::new();
    within(push.connect(&local(pull.local_port()))).await.unwrap();
    // Larger than what is copied, so libzmq's own memory is lent out; and an empty frame.
    let large = Bytes::from((0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let sent = vec![large.clone(), Bytes::new()];
    push_until_taken(&mut push, &sent.clone().try_into().unwrap()).await;
    let got = within(pull.recv()).await.unwrap();
    drop(pull);
    assert_eq!(got, sent);
}

/// The other implementation's PUSH fails instead of waiting for its first peer.
async fn push_until_taken(push: &mut PushSocket, message: &zeromq::ZmqMessage) {
    within(async {
        while push.send(message.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_push_finds_a_manager_that_comes_back_on_the_same_port() {
    let endpoint = local(free_port());
    let mut push = Push::connect(&context(), &endpoint, Limits { immediate: true, ..quick() }).unwrap();
    for life in 0..3 {
        let mut manager = tokio::task::spawn_blocking({
            let endpoint = endpoint.clone();
            move || one_life_of_a_manager(&endpoint)
        });
        // What was accepted when the last manager died may be lost with it, so this sends until one arrives.
        let mut n = 0;
        let got = within(async {
            loop {
                tokio::select! {
                    got = &mut manager => break got.unwrap(),
                    sent = push.send(message(&["beat", &format!("{life} {n}")])) => {
                        sent.unwrap();
                        n += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        })
        .await;
        assert!(got[1].starts_with(format!("{life} ").as_bytes()), "{got:?} is from an earlier life");
    }
}

/// Receives one message. It has a runtime of its own, because a dropped socket of the other implementation
/// keeps its connections open until its runtime ends.
fn one_life_of_a_manager(endpoint: &str) -> Multipart {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut manager = PullSocket::new();
        bind_again(&mut manager, endpoint).await;
        within(manager.recv()).await.unwrap().into_vec()
    })
}

/// The port of a socket that was just dropped may take a moment to become free.
async fn bind_again(socket: &mut impl Socket, endpoint: &str) {
    within(async {
        while socket.bind(endpoint).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_pull_finds_a_runner_that_comes_back_on_the_same_port() {
    let endpoint = local(free_port());
    let mut pull = Pull::connect(&context(), &endpoint, quick()).unwrap();
    for life in ["first", "second", "third"] {
        let mut runner = PushSocket::new();
        bind_again(&mut runner, &endpoint).await;
        push_until_taken(&mut runner, &foreign(&["log", life])).await;
        assert_eq!(within(pull.recv()).await.unwrap(), message(&["log", life]));
        runner.unbind_all().await;
    }
}

#[tokio::test]
async fn an_immediate_push_waits_for_a_peer_and_what_was_cancelled_is_not_sent() {
    let endpoint = local(free_port());
    let context = context();
    let mut push = Push::connect(&context, &endpoint, Limits { immediate: true, ..quick() }).unwrap();
    for n in 0..3 {
        assert!(timeout(Duration::from_millis(50), push.send(number(n))).await.is_err());
    }
    let waiting = tokio::spawn(async move {
        push.send(number(7)).await.unwrap();
        push
    });
    let mut pull = Pull::bind(&context, &endpoint, quick()).unwrap();
    assert_eq!(as_number(&within(pull.recv()).await.unwrap()), 7);
    drop(within(waiting).await.unwrap());
}

#[tokio::test]
async fn a_patient_push_keeps_what_is_sent_before_its_peer_is_there() {
    let endpoint = local(free_port());
    let mut push = Push::connect(&context(), &endpoint, quick()).unwrap();
    for n in 0..20 {
        within(push.send(number(n))).await.unwrap();
    }
    let mut pull = PullSocket::new();
    within(pull.bind(&endpoint)).await.unwrap();
    for n in 0..20 {
        assert_eq!(as_number(&within(pull.recv()).await.unwrap().into_vec()), n);
    }
}

#[tokio::test]
async fn closing_delivers_what_is_queued_and_returns_when_it_has() {
    const COUNT: usize = 300;
    let context = context();
    // The receiver's short queue keeps megabytes in the sender's.
    let mut pull = Pull::bind(&context, "tcp://127.0.0.1:*", Limits { recv_hwm: 1, ..quick() }).unwrap();
    let mut push = Push::connect(&context, &local(pull.local_port()), quick()).unwrap();
    let body = Bytes::from(vec![1; 100_000]);
    for n in 0..COUNT {
        let mut large = number(n);
        large.push(body.clone());
        push.send(large).await.unwrap();
    }
    // The last handles go while messages are still queued, so this also ends a libzmq context in use.
    drop(context);
    let closing = tokio::spawn(async move {
        let start = Instant::now();
        push.close(Duration::from_secs(60)).await;
        start.elapsed()
    });
    for n in 0..COUNT {
        assert_eq!(as_number(&within(pull.recv()).await.unwrap()), n);
    }
    let took = within(closing).await.unwrap();
    assert!(took < Duration::from_secs(30), "{took:?} although all was delivered");
}

#[tokio::test]
async fn closing_gives_up_after_its_limit_and_does_not_block_the_runtime() {
    let mut push = Push::connect(&context(), &local(free_port()), quick()).unwrap();
    push.send(number(0)).await.unwrap();
    let start = Instant::now();
    let mut ticks = 0;
    let closing = push.close(Duration::from_millis(400));
    tokio::pin!(closing);
    within(async {
        loop {
            tokio::select! {
                () = &mut closing => break,
                () = tokio::time::sleep(Duration::from_millis(10)) => ticks += 1,
            }
        }
    })
    .await;
    assert!(start.elapsed() >= Duration::from_millis(350), "gave up after {:?}", start.elapsed());
    // On one thread: these can only have happened between two polls of the closing.
    assert!(ticks > 3, "{ticks} ticks");
}

#[test]
fn dropping_everything_while_it_lingers_does_not_block() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = Instant::now();
    runtime.block_on(async {
        let lingering = Limits { linger: Duration::from_secs(60), ..quick() };
        let mut push = Push::connect(&context(), &local(free_port()), lingering).unwrap();
        push.send(number(0)).await.unwrap();
    });
    drop(runtime);
    assert!(start.elapsed() < Duration::from_secs(30));
}
