//! The queue against a manager's PULL socket that comes, goes and moves, and against one that can misbehave.

mod peer;

use tokio::task::JoinHandle;

use self::peer::{Manners, Peer};
use super::*;
use crate::ids::KernelId;
use crate::wire::event::{EndReason, HeardEvent};
use crate::zmtp::Pull;

const LIMIT: Duration = Duration::from_secs(10);

struct Bed {
    address: watch::Sender<Option<HostPort>>,
    events: Events,
}

impl Bed {
    fn new() -> Self {
        let (address, address_rx) = watch::channel(None);
        let events = Events::start(InstanceId::new("i-test"), address_rx, &TaskTracker::new());
        Self { address, events }
    }

    fn listen(&self, port: u16) -> Pull {
        let pull = Pull::bind(&format!("127.0.0.1:{port}")).unwrap();
        self.manager_is_at(pull.local_port());
        pull
    }

    fn manager_is_at(&self, port: u16) {
        self.address.send_replace(Some(HostPort { host: "127.0.0.1".to_owned(), port }));
    }

    fn ended(&self) -> (KernelId, JoinHandle<Option<Sent>>) {
        let kernel = KernelId::random();
        (kernel, self.tell(kernel))
    }

    /// An event that takes its place now and goes in its turn, without a note.
    fn tell(&self, kernel: KernelId) -> JoinHandle<Option<Sent>> {
        let mut place = self.events.queue();
        tokio::spawn(async move {
            loop {
                match place.turn().await?.send(ended(kernel)).await {
                    Sent::Stays => {}
                    sent => return Some(sent),
                }
            }
        })
    }
}

async fn arrived(arrival: JoinHandle<Option<Sent>>) {
    let sent = tokio::time::timeout(LIMIT, arrival).await.expect("no arrival in time").unwrap();
    assert_eq!(sent, Some(Sent::Arrived));
}

fn ended(kernel: KernelId) -> Event {
    Event::KernelTerminated(kernel, EndReason::UserRequested, None)
}

async fn hear(pull: &mut Pull) -> HeardEvent {
    let message = tokio::time::timeout(LIMIT, pull.recv()).await.expect("no event in time");
    HeardEvent::decode(&message.frames).unwrap()
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

fn slots(heard: &HeardEvent) -> Option<u64> {
    crate::wire::value::get(&heard.args[0], "cpu_slots")?.as_u64()
}

#[tokio::test]
async fn kernel_events_wait_in_order_and_only_the_newest_heartbeat_does() {
    let bed = Bed::new();
    let (first, second) = (KernelId::random(), KernelId::random());
    bed.events.emit(ended(first));
    bed.events.emit(ended(second));
    for n in 0..100 {
        bed.events.beat(beat(n));
    }
    assert_eq!(*bed.events.waiting().borrow(), 2);
    let mut pull = bed.listen(0);
    assert_eq!(hear(&mut pull).await.args[0], first.to_string().into());
    assert_eq!(hear(&mut pull).await.args[0], second.to_string().into());
    assert_eq!(slots(&hear(&mut pull).await), Some(99), "a stale heartbeat went out");
    let (third, _) = bed.ended();
    assert_eq!(hear(&mut pull).await.args[0], third.to_string().into(), "a heartbeat went out twice");
}

#[tokio::test]
async fn events_follow_the_manager_to_another_address() {
    let bed = Bed::new();
    let mut old = bed.listen(0);
    let (first, arrival) = bed.ended();
    assert_eq!(hear(&mut old).await.args[0], first.to_string().into());
    arrived(arrival).await;
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
    let (_, arrival) = bed.ended();
    assert_eq!(bed.events.close(Duration::from_millis(50)).await, 1, "nobody listens");
    assert_eq!(arrival.await.unwrap(), None);
}

/// What libzmq's PUSH would lose: a manager whose machine takes bytes and whose process dies before it reads them.
#[tokio::test]
async fn an_event_that_was_written_and_not_read_stays_and_goes_in_its_next_turn() {
    let bed = Bed::new();
    let deaf = Peer::listen(Manners::Deaf).await;
    bed.manager_is_at(deaf.port());
    let (mut place, kernel) = (bed.events.queue(), KernelId::random());
    let (behind, _) = bed.ended();
    let turn = place.turn().await.unwrap();
    let sending = tokio::spawn(turn.send(ended(kernel)));
    deaf.was_sent(b"kernel_terminated").await;
    let port = deaf.die().await;
    assert_eq!(sending.await.unwrap(), Sent::Stays);
    let mut pull = bed.listen(port);
    let turn = place.turn().await.unwrap();
    let sending = tokio::spawn(turn.send(ended(kernel)));
    assert_eq!(hear(&mut pull).await.args[0], kernel.to_string().into(), "it kept its place");
    assert_eq!(sending.await.unwrap(), Sent::Arrived);
    assert_eq!(hear(&mut pull).await.args[0], behind.to_string().into());
}

/// The sender notes that its event leaves: there must be a connection then, and none before.
#[tokio::test]
async fn a_turn_needs_a_connection_and_ends_with_it() {
    let bed = Bed::new();
    let mut place = bed.events.queue();
    assert!(tokio::time::timeout(Duration::from_millis(50), place.turn()).await.is_err(), "nobody listens");
    let pull = bed.listen(0);
    let turn = tokio::time::timeout(LIMIT, place.turn()).await.unwrap().unwrap();
    drop(pull);
    let mut pull = bed.listen(0);
    // Over the new connection it has to be asked for anew.
    bed.events.beat(beat(1));
    assert_eq!(slots(&hear(&mut pull).await), Some(1));
    assert_eq!(turn.send(ended(KernelId::random())).await, Sent::Stays);
    drop(place);
    let (next, arrival) = bed.ended();
    assert_eq!(
        hear(&mut pull).await.args[0],
        next.to_string().into(),
        "a place that was given up is passed over"
    );
    arrived(arrival).await;
    assert_eq!(*bed.events.waiting().borrow(), 0);
}

#[tokio::test]
async fn a_close_in_the_middle_leaves_it_open_whether_an_event_arrived() {
    let bed = Bed::new();
    let deaf = Peer::listen(Manners::Deaf).await;
    bed.manager_is_at(deaf.port());
    let mut place = bed.events.queue();
    let sending = tokio::spawn(place.turn().await.unwrap().send(ended(KernelId::random())));
    let mut behind = bed.events.queue();
    deaf.was_sent(b"kernel_terminated").await;
    assert_eq!(bed.events.close(Duration::from_millis(50)).await, 2);
    assert_eq!(sending.await.unwrap(), Sent::Unknown);
    assert!(behind.turn().await.is_none(), "the queue is closed");
}

/// A manager that stands still reads what it was sent when it goes on; sending it again would tell it twice.
#[tokio::test]
async fn a_manager_that_stands_still_is_waited_for() {
    let bed = Bed::new();
    let peer = Peer::listen(Manners::Deaf).await;
    bed.manager_is_at(peer.port());
    let (_, arrival) = bed.ended();
    peer.was_sent(b"kernel_terminated").await;
    for n in 0..50 {
        bed.events.beat(beat(n));
    }
    assert_eq!(bed.events.last_beat_age(), None, "behind an event that may not have arrived");
    peer.hear_again();
    arrived(arrival).await;
    bed.events.first_beat_arrived().await;
    assert_eq!(peer.connections(), 1);
    assert_eq!(peer.times_sent(b"kernel_terminated"), 1);
    assert!(peer.times_sent(b"instance_heartbeat") <= 2, "of heartbeats only the newest waits");
}

/// libzmq 4.1 takes a PING for a message, and the manager's receiver would die of it.
#[tokio::test]
async fn a_peer_that_knows_no_pings_sees_none_that_is_a_whole_message() {
    for manners in [Manners::Old, Manners::HangsUpAtPings] {
        let bed = Bed::new();
        let peer = Peer::listen(manners).await;
        bed.manager_is_at(peer.port());
        let (_, arrival) = bed.ended();
        arrived(arrival).await;
        bed.events.beat(beat(1));
        bed.events.first_beat_arrived().await;
        peer.was_sent(b"instance_heartbeat").await;
        assert_eq!(peer.times_sent(b"\x04\x07\x04PING"), 0, "{manners:?}");
        assert_eq!(peer.times_sent(b"\x05\x07\x04PING"), 1, "{manners:?}: only the beginning of a message");
        assert_eq!(peer.connections(), 2, "{manners:?}: that beginning went with its connection");
        assert_eq!(peer.times_sent(b"kernel_terminated"), 1, "{manners:?}");
    }
}

/// libzmq 4.2 greets as 4.1 does, and its machine may be slow.
#[tokio::test]
async fn a_peer_whose_first_pong_is_late_confirms_from_then_on() {
    const PING: &[u8] = b"\x04\x07\x04PING";
    let bed = Bed::new();
    let peer = Peer::listen(Manners::Late).await;
    bed.manager_is_at(peer.port());
    let (_, arrival) = bed.ended();
    arrived(arrival).await;
    assert_eq!((peer.times_sent(PING), peer.connections()), (0, 2));
    peer.hear_again();
    let asked = async {
        for n in 0.. {
            bed.events.beat(beat(n));
            if tokio::time::timeout(Duration::from_millis(10), peer.was_sent(PING)).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, asked).await.expect("events go on without PINGs");
    let (_, arrival) = bed.ended();
    arrived(arrival).await;
    assert_eq!((peer.times_sent(b"kernel_terminated"), peer.connections()), (2, 2));
}

/// Whatever the sender of an event does in its turn delays no heartbeat (section 12, item 5).
#[tokio::test]
async fn heartbeats_go_on_while_somebody_has_the_turn() {
    let bed = Bed::new();
    let mut pull = bed.listen(0);
    let (mut place, kernel) = (bed.events.queue(), KernelId::random());
    let turn = place.turn().await.unwrap();
    for n in [7, 8] {
        bed.events.beat(beat(n));
        assert_eq!(slots(&hear(&mut pull).await), Some(n));
    }
    let sending = tokio::spawn(turn.send(ended(kernel)));
    assert_eq!(hear(&mut pull).await.args[0], kernel.to_string().into());
    assert_eq!(sending.await.unwrap(), Sent::Arrived);
}
