//! The queue against a manager's PULL socket that comes, goes and moves.

use super::*;
use crate::ids::KernelId;
use crate::wire::event::{EndReason, Heard};
use crate::zmq::Pull;

const LIMIT: Duration = Duration::from_secs(10);

struct Bed {
    context: Context,
    endpoint: watch::Sender<Option<String>>,
    events: Events,
}

impl Bed {
    fn new() -> Self {
        let context = Context::new().unwrap();
        let (endpoint, endpoint_rx) = watch::channel(None);
        let events =
            Events::start(context.clone(), InstanceId::new("i-test"), endpoint_rx, &TaskTracker::new());
        Self { context, endpoint, events }
    }

    fn listen(&self, port: u16) -> Pull {
        let pull = Pull::bind(&self.context, &format!("tcp://127.0.0.1:{port}"), Limits::client()).unwrap();
        self.endpoint.send_replace(Some(format!("tcp://127.0.0.1:{}", pull.local_port())));
        pull
    }

    fn ended(&self) -> (KernelId, Left) {
        let kernel = KernelId::random();
        (kernel, self.events.emit(Event::KernelTerminated(kernel, EndReason::UserRequested, None)))
    }
}

async fn hear(pull: &mut Pull) -> Heard {
    let frames = tokio::time::timeout(LIMIT, pull.recv()).await.expect("no event in time").unwrap();
    Heard::decode(&frames).unwrap()
}

fn beat(cpu_slots: u64) -> Heartbeat {
    let text = String::new;
    Heartbeat {
        ip: text(),
        region: text(),
        addr: text(),
        mem_slots: 0,
        cpu_slots,
        gpu_slots: 0,
        images: vec![].into(),
    }
}

fn slots(heard: &Heard) -> Option<u64> {
    crate::wire::value::get(&heard.args[0], "cpu_slots")?.as_u64()
}

#[tokio::test]
async fn kernel_events_wait_in_order_and_only_the_newest_heartbeat_does() {
    let bed = Bed::new();
    let (first, left) = bed.ended();
    let (second, _) = bed.ended();
    for n in 0..100 {
        bed.events.beat(beat(n));
    }
    assert_eq!(*bed.events.waiting().borrow(), 2);
    let mut pull = bed.listen(0);
    assert_eq!(hear(&mut pull).await.args[0], first.to_string().into());
    assert_eq!(hear(&mut pull).await.args[0], second.to_string().into());
    assert!(left.wait().await);
    assert_eq!(slots(&hear(&mut pull).await), Some(99), "a stale heartbeat went out");
    let (third, _) = bed.ended();
    assert_eq!(hear(&mut pull).await.args[0], third.to_string().into(), "a heartbeat went out twice");
}

#[tokio::test]
async fn events_follow_the_manager_to_another_address() {
    let bed = Bed::new();
    let mut old = bed.listen(0);
    let (first, left) = bed.ended();
    assert_eq!(hear(&mut old).await.args[0], first.to_string().into());
    assert!(left.wait().await);
    drop(old);
    // Nobody listens there any more; an event that waits goes to the new place.
    let mut new = bed.listen(0);
    let (second, _) = bed.ended();
    assert_eq!(hear(&mut new).await.args[0], second.to_string().into());
}

#[tokio::test]
async fn a_close_waits_for_what_was_emitted_just_before_and_no_longer_than_told() {
    let bed = Bed::new();
    let mut pull = bed.listen(0);
    let (kernel, _) = bed.ended();
    assert_eq!(bed.events.close(LIMIT).await, 0);
    assert_eq!(hear(&mut pull).await.args[0], kernel.to_string().into());

    let bed = Bed::new();
    let (_, left) = bed.ended();
    assert_eq!(bed.events.close(Duration::from_millis(50)).await, 1, "nobody listens");
    assert!(!left.wait().await);
}
