//! The one queue to the manager (PROTOCOL section 4, section 12 items 5 and 6).
//!
//! Two lanes go over one [`line`]: kernel and instance events all wait, in order; of heartbeats only the newest
//! waits. One message is under way at a time, and leaves the queue when it has arrived, so that nothing goes stale on the
//! way and nothing is lost with a connection.
//!
//! An event whose departure has to be noted takes three steps, in the order in which its sender reads them: a
//! [`Place`] in the lane ([`Events::queue`]), its [`Turn`] once the place is the first and there is a connection
//! ([`Place::turn`]), and the sending ([`Turn::send`]). What the sender does between them is its own affair: heartbeats
//! go meanwhile, other events wait.
//!
//! One task (`serve`) owns the line. Channels: `ordered` (mpsc, unbounded: an event must never be refused, and
//! there are at most a few per kernel), `beat` (watch, the newest heartbeat), `address` (watch, where the manager
//! listens), `waiting` (watch, how many ordered events wait, for metrics and the stop), `told` (broadcast, what has
//! arrived).

mod line;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::line::Line;
use crate::address::HostPort;
use crate::figures::{self, table};
use crate::ids::InstanceId;
use crate::patience::{Backoff, Outage};
use crate::wire::event::{Event, Heartbeat};
use crate::zmtp::Trouble;

/// The pauses between attempts to connect.
const RETRIES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// How long what was sent to a manager that has moved meanwhile is waited for.
const MOVE_LIMIT: Duration = Duration::from_secs(1);

/// How many events a listener may be behind; whoever is slower misses some.
const TOLD: usize = 256;

/// Handle of the queue.
#[derive(Clone)]
pub struct Events {
    ordered: mpsc::UnboundedSender<Queued>,
    beat: watch::Sender<Option<Heartbeat>>,
    /// Counted up by whoever queues and down by the task, so that a close right after an emit waits for it.
    waiting: Arc<watch::Sender<usize>>,
    /// When the last heartbeat arrived; none has at first.
    last_beat: watch::Receiver<Option<Instant>>,
    /// Why nothing leaves, as far as that is known.
    trouble: watch::Receiver<Option<String>>,
    /// What has arrived, for whoever listens now.
    told: broadcast::Sender<Event>,
    stop: CancellationToken,
}

/// What waits in the lane of ordered events.
enum Queued {
    /// Goes as soon as it is the first.
    Event(Event),
    /// A place; its sender asks for the turn through the channel, and gives the place up by dropping the other end.
    Place(mpsc::Receiver<Ask>),
}

/// The wish for the turn: the way to hand the event over is sent through it.
type Ask = oneshot::Sender<oneshot::Sender<Handed>>;

/// An event handed over in its turn.
struct Handed {
    event: Event,
    outcome: oneshot::Sender<Sent>,
}

/// A place among the ordered events; dropping it gives it up.
pub struct Place(mpsc::Sender<Ask>);

/// The place is the first of the lane, and there is a connection. Dropped without a send, the place waits again.
pub struct Turn(oneshot::Sender<Handed>);

/// What became of an event that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The event has arrived at the manager.
    Arrived,
    /// The connection broke: it did not arrive, and its place waits for another turn.
    Stays,
    /// The queue was closed while the event was under way: nobody knows whether it has arrived.
    Unknown,
}

impl Place {
    /// Waits until the place is the first and there is a connection. `None`: the queue is closed. May be cancelled and
    /// called again.
    pub async fn turn(&mut self) -> Option<Turn> {
        let (ask, granted) = oneshot::channel();
        self.0.send(ask).await.ok()?;
        granted.await.ok().map(Turn)
    }
}

impl Turn {
    /// Sends the event and waits until it has arrived.
    pub async fn send(self, event: Event) -> Sent {
        let (outcome, heard) = oneshot::channel();
        if self.0.send(Handed { event, outcome }).is_err() {
            return Sent::Stays;
        }
        // Dropped without a word, it never left.
        heard.await.unwrap_or(Sent::Stays)
    }
}

impl Events {
    /// Starts the task. Nothing leaves before `address` holds where the manager listens.
    #[must_use]
    pub fn start(
        instance: InstanceId,
        address: watch::Receiver<Option<HostPort>>,
        tracker: &TaskTracker,
    ) -> Self {
        let (ordered, ordered_rx) = mpsc::unbounded_channel();
        let (beat, beat_rx) = watch::channel(None);
        let waiting = Arc::new(watch::Sender::new(0));
        let (last_beat_tx, last_beat) = watch::channel(None);
        let (trouble_tx, trouble) = watch::channel(None);
        let (told, _) = broadcast::channel(TOLD);
        let stop = CancellationToken::new();
        let server = Server {
            instance,
            address,
            ordered: ordered_rx,
            beat: beat_rx,
            waiting: waiting.clone(),
            last_beat: last_beat_tx,
            told: told.clone(),
            front: Front::None,
            outage: Outage::default(),
            trouble: trouble_tx,
            reached: None,
        };
        let stopped = stop.clone();
        tracker.spawn(async move { stopped.run_until_cancelled(server.serve()).await });
        Self { ordered, beat, waiting, last_beat, trouble, told, stop }
    }

    /// Queues an event behind all that wait.
    pub fn emit(&self, event: Event) {
        self.push(Queued::Event(event));
    }

    /// Takes a place behind all that wait, for an event that is sent in its turn.
    #[must_use]
    pub fn queue(&self) -> Place {
        let (asks, asked) = mpsc::channel(1);
        self.push(Queued::Place(asked));
        Place(asks)
    }

    fn push(&self, queued: Queued) {
        self.waiting.send_modify(|n| *n += 1);
        if self.ordered.send(queued).is_err() {
            self.waiting.send_modify(|n| *n -= 1);
            tracing::debug!("an event came after the queue was closed");
        }
    }

    /// Replaces the heartbeat that waits.
    pub fn beat(&self, heartbeat: Heartbeat) {
        self.beat.send_replace(Some(heartbeat));
    }

    /// Waits until the first heartbeat has arrived.
    pub async fn first_beat_arrived(&self) {
        let mut last_beat = self.last_beat.clone();
        if last_beat.wait_for(Option::is_some).await.is_err() {
            // The queue was closed: there is no first heartbeat any more.
            std::future::pending::<()>().await;
        }
    }

    /// When the last heartbeat arrived; none has at first.
    #[must_use]
    pub fn last_beat(&self) -> watch::Receiver<Option<Instant>> {
        self.last_beat.clone()
    }

    /// Why nothing leaves, in one line for an operator; `None` while all is well, or nothing is known.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// How long ago the last heartbeat arrived.
    #[must_use]
    pub fn last_beat_age(&self) -> Option<Duration> {
        self.last_beat.borrow().map(|at| at.elapsed())
    }

    /// Everything that arrives at the manager from now on, heartbeats included.
    #[must_use]
    pub fn told(&self) -> broadcast::Receiver<Event> {
        self.told.subscribe()
    }

    /// How many ordered events wait.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// Waits until all ordered events have arrived, at most `limit`, then ends the task. Returns how many did not.
    pub async fn close(&self, limit: Duration) -> usize {
        let mut waiting = self.waiting.subscribe();
        let drained = waiting.wait_for(|n| *n == 0);
        let left = match timeout(limit, drained).await {
            Ok(_) => 0,
            Err(_) => *self.waiting.borrow(),
        };
        self.stop.cancel();
        left
    }
}

struct Server {
    /// The second frame of every event.
    instance: InstanceId,
    address: watch::Receiver<Option<HostPort>>,
    ordered: mpsc::UnboundedReceiver<Queued>,
    beat: watch::Receiver<Option<Heartbeat>>,
    waiting: Arc<watch::Sender<usize>>,
    last_beat: watch::Sender<Option<Instant>>,
    /// What has arrived.
    told: broadcast::Sender<Event>,
    /// The oldest of the ordered events.
    front: Front,
    /// There was no connection, or one over which nothing arrived.
    outage: Outage,
    /// Why, for others.
    trouble: watch::Sender<Option<String>>,
    /// Where the last event arrived.
    reached: Option<String>,
}

/// How far the first of the lane is.
enum Front {
    /// The lane is empty, as far as it was looked at.
    None,
    /// The event can go.
    Event(Event),
    /// The event's sender has not asked for the turn.
    Place(mpsc::Receiver<Ask>),
    /// The event's sender has the turn, over the connection that there is now.
    Turn(mpsc::Receiver<Ask>, oneshot::Receiver<Handed>),
    /// The event's sender has handed the event over.
    Handed(mpsc::Receiver<Ask>, Event, UnderWay),
}

/// Tells the sender of an event what became of it.
struct UnderWay(Option<oneshot::Sender<Sent>>);

impl UnderWay {
    fn tell(mut self, sent: Sent) {
        self.say(sent);
    }

    fn say(&mut self, sent: Sent) {
        if let Some(outcome) = self.0.take() {
            // The sender may have gone; then there is nobody to tell.
            let _ = outcome.send(sent);
        }
    }
}

impl Drop for UnderWay {
    /// The task ends while the event may be under way.
    fn drop(&mut self) {
        self.say(Sent::Unknown);
    }
}

/// What goes out next.
enum Outgoing {
    Front,
    Beat(Heartbeat),
}

impl Server {
    async fn serve(mut self) {
        loop {
            let mut line = self.connect().await;
            self.send_over(&mut line).await;
            // Whatever was under way waits again.
            self.beat.mark_changed();
            self.front = match std::mem::replace(&mut self.front, Front::None) {
                Front::Turn(place, _) => Front::Place(place),
                Front::Handed(place, _, under_way) => {
                    under_way.tell(Sent::Stays);
                    Front::Place(place)
                }
                front => front,
            };
        }
    }

    /// Until there is a connection; follows the manager to another address.
    async fn connect(&mut self) -> Line {
        loop {
            let Some(address) = self.address.borrow_and_update().clone() else {
                changed(&mut self.address).await;
                continue;
            };
            if self.outage.failures() > 0 {
                tokio::select! {
                    () = changed(&mut self.address) => {
                        self.outage = Outage::default();
                        continue;
                    }
                    () = sleep(RETRIES.pause(self.outage.failures())) => {}
                }
            }
            tokio::select! {
                biased;
                () = changed(&mut self.address) => self.outage = Outage::default(),
                opened = Line::open(&address) => match opened {
                    Ok(line) => return line,
                    Err(error) => self.failed(&error),
                },
            }
        }
    }

    /// One of several failures in a row, which the next message that arrives ends. Whoever waits for heartbeats tells of them.
    fn failed(&mut self, error: &Trouble) {
        let to = self.address.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        let _: bool = self.outage.failed(Instant::now());
        tracing::debug!(to, %error, failures = self.outage.failures(), "can't send events to the manager");
        self.trouble.send_replace(Some(format!("can't send events to {to}: {error}")));
    }

    /// Until the connection breaks or the manager is elsewhere.
    async fn send_over(&mut self, line: &mut Line) {
        let mut is_first = true;
        let mut address = self.address.clone();
        loop {
            let outgoing = tokio::select! {
                biased;
                () = changed(&mut address) => return,
                error = line.idle() => return self.failed(&error),
                outgoing = self.next() => outgoing,
            };
            let frames = match (&outgoing, &self.front) {
                (Outgoing::Beat(info), _) => Event::Heartbeat(info.clone()).encode(&self.instance),
                (_, Front::Event(event) | Front::Handed(_, event, _)) => event.encode(&self.instance),
                _ => continue,
            };
            let mut has_moved = false;
            let delivered = {
                let mut delivery = std::pin::pin!(line.deliver(&frames));
                tokio::select! {
                    biased;
                    delivered = &mut delivery => delivered,
                    () = changed(&mut address) => {
                        has_moved = true;
                        // The event may just have been read where the manager was; sent to both places it would be told twice.
                        match timeout(MOVE_LIMIT, delivery).await {
                            Ok(delivered) => delivered,
                            Err(_) => return,
                        }
                    }
                }
            };
            if let Err(error) = delivered {
                return self.failed(&error);
            }
            if std::mem::take(&mut is_first) {
                let to = address.borrow().as_ref().map(ToString::to_string);
                let confirmed = line.confirms();
                self.trouble.send_replace(None);
                let past = self.outage.worked(Instant::now());
                if self.reached == to {
                    let seconds = past.map(|past| past.seconds());
                    tracing::debug!(to, confirmed, seconds, "events reach the manager again");
                } else {
                    tracing::info!(to, confirmed, "events reach the manager");
                    self.reached = to;
                }
            }
            match outgoing {
                Outgoing::Beat(info) => {
                    self.last_beat.send_replace(Some(Instant::now()));
                    self.tell(Event::Heartbeat(info));
                }
                Outgoing::Front => self.front_arrived(),
            }
            if has_moved {
                return;
            }
        }
    }

    /// Ordered events go before heartbeats; but a heartbeat does not wait for the sender of one. May be cancelled.
    async fn next(&mut self) -> Outgoing {
        loop {
            if matches!(self.front, Front::Event(_) | Front::Handed(..)) {
                return Outgoing::Front;
            }
            tokio::select! {
                biased;
                () = advance(&mut self.front, &mut self.ordered, &self.waiting) => {}
                Ok(()) = self.beat.changed() => {
                    if let Some(newest) = self.beat.borrow_and_update().clone() {
                        return Outgoing::Beat(newest);
                    }
                }
            }
        }
    }

    /// Whoever listens hears it; nobody has to.
    fn tell(&self, event: Event) {
        let _ = self.told.send(event);
    }

    fn front_arrived(&mut self) {
        let event = match std::mem::replace(&mut self.front, Front::None) {
            Front::Event(event) => event,
            Front::Handed(_, event, under_way) => {
                under_way.tell(Sent::Arrived);
                event
            }
            // What goes out as the front is one of the two.
            Front::None | Front::Place(_) | Front::Turn(..) => return,
        };
        figures::count(&table::EVENTS_SENT, &[]);
        self.tell(event.clone());
        tracing::debug!(event = event.name(), "event arrived");
        self.waiting.send_modify(|n| *n -= 1);
    }
}

/// One step of the lane's front towards an event that can go. May be cancelled and called again; waits for ever when
/// nothing can come any more.
async fn advance(
    front: &mut Front,
    ordered: &mut mpsc::UnboundedReceiver<Queued>,
    waiting: &watch::Sender<usize>,
) {
    match front {
        Front::Event(_) | Front::Handed(..) => {}
        Front::None => match ordered.recv().await {
            Some(Queued::Event(event)) => *front = Front::Event(event),
            Some(Queued::Place(place)) => *front = Front::Place(place),
            None => std::future::pending().await,
        },
        Front::Place(place) => {
            let Some(ask) = place.recv().await else {
                *front = Front::None;
                waiting.send_modify(|n| *n -= 1);
                return;
            };
            let (hand_over, handed) = oneshot::channel();
            // Refused by a sender that has stopped waiting; it asks again, or drops its place.
            if ask.send(hand_over).is_ok()
                && let Front::Place(place) = std::mem::replace(front, Front::None)
            {
                *front = Front::Turn(place, handed);
            }
        }
        Front::Turn(_, handed) => {
            let handed = handed.await;
            if let Front::Turn(place, _) = std::mem::replace(front, Front::None) {
                *front = match handed {
                    Ok(Handed { event, outcome }) => Front::Handed(place, event, UnderWay(Some(outcome))),
                    Err(_) => Front::Place(place),
                };
            }
        }
    }
}

/// Waits for another value; for ever when there will be none.
async fn changed<T>(watch: &mut watch::Receiver<T>) {
    if watch.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
