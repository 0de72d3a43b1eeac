//! Cancelled waits: nothing lost, nothing doubled, nothing cut.

use super::*;
use crate::zmq::{Pull, Push};

const COUNT: usize = 2000;

/// Both ends are cancelled as often as they are polled; the queues are so short that both really wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_sends_and_receives_neither_lose_nor_double() {
    let tight = Limits { send_hwm: 2, recv_hwm: 2, ..quick() };
    let context = context();
    let mut pull = Pull::bind(&context, "tcp://127.0.0.1:*", tight).unwrap();
    let mut push = Push::connect(&context, &local(pull.local_port()), tight).unwrap();
    // Larger than a socket's buffers, taken together, or the queue would never fill.
    let body = Bytes::from(vec![3; 20_000]);
    let sender = tokio::spawn(async move {
        let mut cancelled = 0;
        for n in 0..COUNT {
            let mut out = number(n);
            out.push(body.clone());
            if n % 97 == 0 {
                // Lets the receiver run dry, so that it is cancelled too.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            while timeout(Duration::from_micros(50), push.send(out.clone())).await.is_err() {
                cancelled += 1;
            }
        }
        (push, cancelled)
    });
    let mut cancelled = 0;
    within(async {
        for n in 0..COUNT {
            if n % 101 == 100 {
                // Lets the queues fill, so that the sender is cancelled too.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let got = loop {
                match timeout(Duration::from_micros(50), pull.recv()).await {
                    Ok(got) => break got.unwrap(),
                    Err(_) => cancelled += 1,
                }
            };
            assert_eq!((as_number(&got), got.len(), got[2].len()), (n, 3, 20_000));
        }
    })
    .await;
    let (push, cancelled_sends) = within(sender).await.unwrap();
    assert!(cancelled > 0 && cancelled_sends > 0, "{cancelled} and {cancelled_sends}: nothing was tried");
    drop(push);
}
