//! The one queue to the manager (PROTOCOL section 4, section 12 items 5 and 6).
//!
//! Two lanes go over one [`line`]: kernel and instance events all wait, in order; of heartbeats only the newest
//! waits. One message is under way at a time, and leaves the queue when it has arrived, so that nothing goes stale on the
//! way and nothing is lost with a connection.
//!
//! One task (`serve`) owns the line. Channels: `ordered` (mpsc, unbounded: an event must never be refused, and
//! there are at most a few per kernel), `beat` (watch, the newest heartbeat), `address` (watch, where the manager
//! listens), `waiting` (watch, how many ordered events wait, for metrics and the stop).

mod line;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::line::Line;
use crate::address::HostPort;
use crate::ids::InstanceId;
use crate::wire::event::{Event, Heartbeat};
use crate::zmtp::Trouble;

/// How long an event waits for its departure to be noted; a disk that hangs must not keep the manager uninformed.
const NOTE_LIMIT: Duration = Duration::from_secs(1);

/// How long what was sent to a manager that has moved meanwhile is waited for.
const MOVE_LIMIT: Duration = Duration::from_secs(1);

/// Handle of the queue.
#[derive(Clone)]
pub struct Events {
    ordered: mpsc::UnboundedSender<Queued>,
    beat: watch::Sender<Option<Heartbeat>>,
    /// Counted up by whoever emits and down by the task, so that a close right after an emit waits for it.
    waiting: Arc<watch::Sender<usize>>,
    /// When the last heartbeat arrived; none has at first.
    last_beat: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
}

/// Notes how far an event is, for the next life of the agent; both methods block for a small write.
///
/// A crash between the two leaves open whether the event has arrived. That is only ever so while it is under way:
/// an event that waits for a connection has not left.
pub trait Departure: Send + Sync + 'static {
    /// It is about to leave.
    fn leaves(&self);
    /// It did not arrive, and waits again.
    fn stays(&self);
}

struct Queued {
    event: Event,
    /// Told when the event has arrived.
    arrived: oneshot::Sender<()>,
    departure: Option<Arc<dyn Departure>>,
}

/// Resolves when the event has arrived at the manager; an event of a stopped queue never does.
pub struct Arrival(oneshot::Receiver<()>);

impl Arrival {
    /// Whether it arrived; `false` when the queue stopped before.
    pub async fn wait(self) -> bool {
        self.0.await.is_ok()
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
        let stop = CancellationToken::new();
        let server = Server {
            instance,
            address,
            ordered: ordered_rx,
            beat: beat_rx,
            waiting: waiting.clone(),
            last_beat: last_beat_tx,
            front: None,
            failures: 0,
        };
        let stopped = stop.clone();
        tracker.spawn(async move { stopped.run_until_cancelled(server.serve()).await });
        Self { ordered, beat, waiting, last_beat, stop }
    }

    /// Queues an event behind all that wait.
    pub fn emit(&self, event: Event) -> Arrival {
        self.queue(event, None)
    }

    /// The same, with a note of its departure.
    pub fn emit_noted(&self, event: Event, departure: Arc<dyn Departure>) -> Arrival {
        self.queue(event, Some(departure))
    }

    fn queue(&self, event: Event, departure: Option<Arc<dyn Departure>>) -> Arrival {
        let (arrived, rx) = oneshot::channel();
        self.waiting.send_modify(|n| *n += 1);
        if self.ordered.send(Queued { event, arrived, departure }).is_err() {
            self.waiting.send_modify(|n| *n -= 1);
            tracing::debug!("an event came after the queue was closed");
        }
        Arrival(rx)
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

    /// How long ago the last heartbeat arrived.
    #[must_use]
    pub fn last_beat_age(&self) -> Option<Duration> {
        self.last_beat.borrow().map(|at| at.elapsed())
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
    /// The oldest event that has not arrived.
    front: Option<Front>,
    /// How often in a row there was no connection, or one over which nothing arrived.
    failures: u32,
}

struct Front {
    queued: Queued,
    noted: Noted,
}

/// Whether an event's departure is noted.
enum Noted {
    No,
    /// A thread does it.
    Begun(JoinHandle<()>),
    Done,
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
            if let Some(front) = &mut self.front {
                front.stay().await;
            }
        }
    }

    /// Until there is a connection; follows the manager to another address.
    async fn connect(&mut self) -> Line {
        loop {
            let Some(address) = self.address.borrow_and_update().clone() else {
                changed(&mut self.address).await;
                continue;
            };
            if self.failures > 0 {
                tokio::select! {
                    () = changed(&mut self.address) => {
                        self.failures = 0;
                        continue;
                    }
                    () = sleep(pause(self.failures)) => {}
                }
            }
            tokio::select! {
                biased;
                () = changed(&mut self.address) => self.failures = 0,
                opened = Line::open(&address) => match opened {
                    Ok(line) => return line,
                    Err(error) => self.failed(&error),
                },
            }
        }
    }

    /// Logs the first of several failures in a row; the next message that arrives ends the row.
    fn failed(&mut self, error: &Trouble) {
        let to = self.address.borrow().as_ref().map(ToString::to_string);
        if self.failures == 0 {
            tracing::warn!(to, %error, "can't send events to the manager; trying until it works");
        } else {
            tracing::debug!(to, %error, failures = self.failures, "still can't send events");
        }
        self.failures += 1;
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
                (Outgoing::Front, Some(front)) => front.queued.event.encode(&self.instance),
                (Outgoing::Front, None) => continue,
            };
            let mut has_moved = false;
            let delivered = {
                let mut delivery = std::pin::pin!(line.deliver(&frames));
                tokio::select! {
                    biased;
                    delivered = &mut delivery => delivered,
                    () = changed(&mut address) => {
                        has_moved = true;
                        // It may just have been read where the manager was; told at both places it would be told twice.
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
                tracing::info!(to, confirmed = line.confirms(), "events reach the manager");
                self.failures = 0;
            }
            match outgoing {
                Outgoing::Beat(_) => drop(self.last_beat.send_replace(Some(Instant::now()))),
                Outgoing::Front => self.front_arrived(),
            }
            if has_moved {
                return;
            }
        }
    }

    /// Kernel events go before heartbeats; but a heartbeat does not wait for a disk. May be cancelled.
    async fn next(&mut self) -> Outgoing {
        loop {
            if self.front.as_ref().is_some_and(|front| matches!(front.noted, Noted::Done)) {
                return Outgoing::Front;
            }
            tokio::select! {
                biased;
                () = note(&mut self.front), if self.front.is_some() => {}
                Some(queued) = self.ordered.recv(), if self.front.is_none() => {
                    self.front = Some(Front { queued, noted: Noted::No });
                }
                Ok(()) = self.beat.changed() => {
                    if let Some(newest) = self.beat.borrow_and_update().clone() {
                        return Outgoing::Beat(newest);
                    }
                }
                // Both senders are gone: there is nothing to send any more.
                else => std::future::pending().await,
            }
        }
    }

    fn front_arrived(&mut self) {
        if let Some(Front { queued, .. }) = self.front.take() {
            tracing::debug!(event = queued.event.name(), "event arrived");
            // Nobody may care; then there is nobody to tell.
            let _ = queued.arrived.send(());
            self.waiting.send_modify(|n| *n -= 1);
        }
    }
}

impl Front {
    /// It did not arrive, or did not even leave.
    async fn stay(&mut self) {
        let was_noted = !matches!(self.noted, Noted::No);
        self.noted = Noted::No;
        if let Some(departure) = self.queued.departure.clone().filter(|_| was_noted) {
            let noted = tokio::task::spawn_blocking(move || departure.stays());
            if timeout(NOTE_LIMIT, noted).await.is_err() {
                tracing::warn!("a note of an event that waits is slow to be written; check the disk");
            }
        }
    }
}

/// Notes that the front event leaves. May be cancelled and called again.
async fn note(front: &mut Option<Front>) {
    let Some(front) = front else { return };
    if let Noted::No = front.noted {
        front.noted = match front.queued.departure.clone() {
            Some(departure) => Noted::Begun(tokio::task::spawn_blocking(move || departure.leaves())),
            None => Noted::Done,
        };
    }
    if let Noted::Begun(writing) = &mut front.noted {
        if timeout(NOTE_LIMIT, writing).await.is_err() {
            tracing::warn!("a note of an event that leaves is slow to be written; check the disk");
        }
        front.noted = Noted::Done;
    }
}

/// Waits for another value; for ever when there will be none.
async fn changed<T>(watch: &mut watch::Receiver<T>) {
    if watch.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The pause after so many failures in a row: 0.1 s, doubling to 2 s.
fn pause(failures: u32) -> Duration {
    Duration::from_millis(50 * 2u64.pow(failures.min(6))).min(Duration::from_secs(2))
}

#[cfg(test)]
mod tests;
