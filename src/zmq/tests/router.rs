//! The router: answers, peers that leave, peers that read nothing, and the hunt for lost wake-ups.

use std::net::TcpListener;

use tokio::sync::mpsc;
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend};

use super::*;
use crate::zmq::{Dealer, Delivery, Heard, Router, ZmqError};

fn router(limits: Limits) -> Router {
    Router::bind(&context(), "tcp://127.0.0.1:*", limits).unwrap()
}

#[tokio::test]
async fn a_foreign_dealer_gets_its_answer() {
    let mut router = Router::bind(&context(), "tcp://*:*", quick()).unwrap();
    let mut dealer = DealerSocket::new();
    within(dealer.connect(&local(router.local_port()))).await.unwrap();
    within(dealer.send(foreign(&["head", "", "args"]))).await.unwrap();
    let mut request = within(router.recv()).await.unwrap();
    assert_eq!(request[1..], message(&["head", "", "args"]));
    request.truncate(1);
    request.extend(message(&["head", "body"]));
    assert_eq!(within(router.send(request)).await.unwrap(), Delivery::Sent);
    assert_eq!(within(dealer.recv()).await.unwrap().into_vec(), message(&["head", "body"]));
}

#[tokio::test]
async fn peers_that_left_or_never_were_are_reported() {
    let mut router = router(quick());
    assert_eq!(within(router.send(message(&["nobody", "x"]))).await.unwrap(), Delivery::PeerGone);
    assert!(matches!(router.send(message(&["only an id"])).await, Err(ZmqError::TooFewFrames { .. })));

    let mut dealer = Dealer::connect(&context(), &local(router.local_port()), quick()).unwrap();
    dealer.send(message(&["hello"])).await.unwrap();
    let id = within(router.recv()).await.unwrap().swap_remove(0);
    drop(dealer);
    within(async {
        while router.send(vec![id.clone(), "x".into()]).await.unwrap() == Delivery::Sent {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_reads_nothing_holds_up_nobody() {
    let mut router = router(Limits { send_hwm: 2, ..quick() });
    let endpoint = local(router.local_port());
    let context = context();
    let mut lazy = Dealer::connect(&context, &endpoint, Limits { recv_hwm: 1, ..quick() }).unwrap();
    lazy.send(message(&["hello"])).await.unwrap();
    let lazy_id = within(router.recv()).await.unwrap().swap_remove(0);
    let large = Bytes::from(vec![0; 1 << 20]);
    let mut sent = 0;
    while within(router.send(vec![lazy_id.clone(), large.clone()])).await.unwrap() == Delivery::Sent {
        sent += 1;
        assert!(sent < 1000, "a gigabyte went to a peer that reads nothing");
    }

    let mut eager = Dealer::connect(&context, &endpoint, quick()).unwrap();
    for n in 0..10 {
        eager.send(number(n)).await.unwrap();
        let request = within(router.recv()).await.unwrap();
        assert_eq!(within(router.send(request)).await.unwrap(), Delivery::Sent);
        assert_eq!(within(eager.recv()).await.unwrap(), number(n));
    }
    drop(lazy);
}

/// Both ends receive and send in one task each, so that every send may swallow the edge that a cancelled
/// receive was waiting for, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_with_traffic_both_ways() {
    const COUNT: usize = 2000;
    let mut router = router(quick());
    let mut dealer = Dealer::connect(&context(), &local(router.local_port()), quick()).unwrap();
    dealer.send(message(&["hello"])).await.unwrap();
    let id = within(router.recv()).await.unwrap().swap_remove(0);

    let mut to_router = counting(COUNT);
    let client = tokio::spawn(async move {
        let mut received = 0;
        let mut open = true;
        while received < COUNT || open {
            tokio::select! {
                got = dealer.recv() => {
                    assert_eq!(as_number(&got.unwrap()), received);
                    received += 1;
                }
                next = to_router.recv(), if open => match next {
                    Some(n) => dealer.send(number(n)).await.unwrap(),
                    None => open = false,
                },
            }
        }
        dealer
    });
    let mut to_client = counting(COUNT);
    within(async {
        let mut received = 0;
        let mut open = true;
        while received < COUNT || open {
            tokio::select! {
                got = router.recv() => {
                    assert_eq!(as_number(&got.unwrap()[1..]), received);
                    received += 1;
                }
                next = to_client.recv(), if open => match next {
                    Some(n) => {
                        let mut out = vec![id.clone()];
                        out.extend(number(n));
                        assert_eq!(router.send(out).await.unwrap(), Delivery::Sent);
                    }
                    None => open = false,
                },
            }
        }
    })
    .await;
    drop(within(client).await.unwrap());
}

/// Numbers from another task, one at a time, so that both branches of a select are ready at odd moments.
fn counting(count: usize) -> mpsc::Receiver<usize> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for n in 0..count {
            sender.send(n).await.unwrap();
        }
    });
    receiver
}

/// Lock step: each side sleeps for every single message, so one lost edge hangs the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_in_lock_step_with_a_foreign_peer() {
    let mut router = router(quick());
    let endpoint = local(router.local_port());
    let client = tokio::spawn(async move {
        let mut dealer = DealerSocket::new();
        dealer.connect(&endpoint).await.unwrap();
        for n in 0..2000 {
            dealer.send(number(n).try_into().unwrap()).await.unwrap();
            assert_eq!(as_number(&dealer.recv().await.unwrap().into_vec()), n);
        }
    });
    within(async {
        for _ in 0..2000 {
            let request = router.recv().await.unwrap();
            // A look that is cancelled before the answer goes out.
            tokio::select! {
                biased;
                _ = router.recv() => panic!("a message from nowhere"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(router.send(request).await.unwrap(), Delivery::Sent);
        }
    })
    .await;
    within(client).await.unwrap();
}

#[tokio::test]
async fn ports_in_use_and_foreign_addresses_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = local(taken.local_addr().unwrap().port());
    let error = Router::bind(&context(), &endpoint, quick()).err().unwrap();
    assert!(matches!(error, ZmqError::AddressInUse { .. }));
    assert!(error.to_string().contains(&endpoint), "{error}");
    // TEST-NET-1, which no machine has.
    let error = Router::bind(&context(), "tcp://192.0.2.1:6001", quick()).err().unwrap();
    assert!(matches!(error, ZmqError::AddressNotHere { .. }), "{error}");
    let error = Router::bind(&context(), "tcp://no-such-interface:6001", quick()).err().unwrap();
    assert!(matches!(error, ZmqError::AddressNotHere { .. }), "{error}");
    let error = Router::bind(&context(), "udp://x", quick()).err().unwrap();
    assert!(matches!(error, ZmqError::Endpoint { .. }), "{error}");
}

#[tokio::test]
async fn ipv6_addresses_work_where_the_machine_has_them() {
    let mut router = match Router::bind(&context(), "tcp://[::1]:*", quick()) {
        Ok(router) => router,
        Err(error) => {
            assert!(TcpListener::bind("[::1]:0").is_err(), "IPv6 works here, but not for us: {error}");
            return;
        }
    };
    let endpoint = format!("tcp://[::1]:{}", router.local_port());
    let mut dealer = Dealer::connect(&context(), &endpoint, quick()).unwrap();
    dealer.send(message(&["six"])).await.unwrap();
    assert_eq!(within(router.recv()).await.unwrap()[1], "six");
}

#[tokio::test]
async fn a_departure_names_the_connection_that_the_message_came_through() {
    let mut router = Router::bind(&context(), "tcp://127.0.0.1:*", quick()).unwrap();
    let endpoint = local(router.local_port());
    let mut seen = Vec::new();
    for round in 0..20 {
        // Descriptors are used again, connections are not.
        let mut stays = Dealer::connect(&context(), &endpoint, quick()).unwrap();
        let mut leaves = Dealer::connect(&context(), &endpoint, quick()).unwrap();
        leaves.send(message(&["bye"])).await.unwrap();
        let Heard::Message(_, Some(leaving)) = within(router.hear()).await.unwrap() else {
            panic!("round {round}")
        };
        stays.send(message(&["here"])).await.unwrap();
        let Heard::Message(_, staying) = within(router.hear()).await.unwrap() else {
            panic!("round {round}")
        };
        drop(leaves);
        let Heard::Departed(gone) = within(router.hear()).await.unwrap() else { panic!("round {round}") };
        assert_eq!(gone, leaving, "round {round}");
        assert_ne!(Some(gone), staying);
        drop(stays);
        assert!(matches!(within(router.hear()).await.unwrap(), Heard::Departed(p) if Some(p) == staying));
        assert!(!seen.contains(&gone), "a connection's number came twice");
        seen.push(gone);
    }
}
