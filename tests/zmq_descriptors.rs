//! Many ZeroMQ sockets at once, and what they leave behind. A test program of its own, because it counts the
//! descriptors of the whole process.

use std::time::Duration;

use backendai_agent::zmq::{Context, Limits, Pull, Push};
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::{sleep, timeout};

const PAIRS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_pairs_work_at_once_and_leave_no_descriptor_behind() {
    let open_descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let before = open_descriptors();

    let context = Context::new().unwrap();
    let mut pairs = Vec::new();
    for n in 0..PAIRS {
        let pull = Pull::bind(&context, "tcp://127.0.0.1:*", Limits::client()).unwrap();
        let endpoint = format!("tcp://127.0.0.1:{}", pull.local_port());
        let push = Push::connect(&context, &endpoint, Limits::runner()).unwrap();
        pairs.push((n, push, pull));
    }
    let tasks: Vec<_> = pairs
        .into_iter()
        .map(|(n, mut push, mut pull)| {
            tokio::spawn(async move {
                for round in 0..5 {
                    let message = vec![Bytes::from(n.to_string()), Bytes::from(round.to_string())];
                    push.send(message.clone()).await.unwrap();
                    assert_eq!(pull.recv().await.unwrap(), message);
                }
                (push, pull)
            })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        held.push(timeout(Duration::from_secs(60), task).await.expect("a pair hangs").unwrap());
    }
    // Three at least: two connected sockets and a listener.
    assert!(open_descriptors() >= before + 3 * PAIRS);

    drop(held);
    drop(context);
    timeout(Duration::from_secs(30), async {
        // libzmq closes descriptors in its own thread, after the call.
        while open_descriptors() > before {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} descriptors before, {} after", before, open_descriptors()));
}
