//! PUSH and PULL: peers that come, go and come back.

use std::time::Instant;

use zeromq::{PullSocket, PushSocket, Socket, SocketRecv, SocketSend};

use super::*;
use crate::zmq::{Pull, Push};

#[tokio::test]
async fn a_foreign_push_reaches_a_pull() {
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
async fn a_push_finds_a_runner_that_comes_back_on_the_same_port() {
    let endpoint = local(free_port());
    let mut push = Push::connect(&context(), &endpoint, quick()).unwrap();
    for life in 0..3 {
        let mut runner = tokio::task::spawn_blocking({
            let endpoint = endpoint.clone();
            move || one_life_of_a_runner(&endpoint)
        });
        // What was accepted when the last runner died may be lost with it, so this sends until one arrives.
        let got = within(async {
            loop {
                tokio::select! {
                    got = &mut runner => break got.unwrap(),
                    sent = push.send(message(&["code", &life.to_string()])) => {
                        sent.unwrap();
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        })
        .await;
        assert_eq!(got[0], "code");
    }
}

/// Receives one message. It has a runtime of its own, because a dropped socket of the other implementation
/// keeps its connections open until its runtime ends.
fn one_life_of_a_runner(endpoint: &str) -> Multipart {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut runner = PullSocket::new();
        bind_again(&mut runner, endpoint).await;
        within(runner.recv()).await.unwrap().into_vec()
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
