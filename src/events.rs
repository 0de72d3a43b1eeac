//! The one queue to the manager (PROTOCOL section 4, section 12 items 5 and 6).
//!
//! Two lanes go into one PUSH socket: kernel and instance events all wait, in order; of heartbeats only the newest
//! waits. The socket takes a message only while a connection stands, so nothing goes stale inside it.
//!
//! One task (`serve`) owns the socket. Channels: `ordered` (mpsc, unbounded: an event must never be refused, and
//! there are at most a few per kernel), `beat` (watch, the newest heartbeat), `endpoint` (watch, where the manager
//! listens), `waiting` (watch, how many ordered events wait, for metrics and the stop).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ids::InstanceId;
use crate::wire::event::{Event, Heartbeat};
use crate::zmq::{Context, Limits, Multipart, Push};

/// Handle of the queue.
#[derive(Clone)]
pub struct Events {
    ordered: mpsc::UnboundedSender<Queued>,
    beat: watch::Sender<Option<Heartbeat>>,
    /// Counted up by whoever emits and down by the task, so that a close right after an emit waits for it.
    waiting: Arc<watch::Sender<usize>>,
    /// When the last heartbeat left; none has at first.
    last_beat: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
}

struct Queued {
    event: Event,
    /// Told when the event has left.
    left: oneshot::Sender<()>,
}

/// Resolves when the event has left for the manager; an event of a stopped queue never does.
pub struct Left(oneshot::Receiver<()>);

impl Left {
    /// Whether it left; `false` when the queue stopped before.
    pub async fn wait(self) -> bool {
        self.0.await.is_ok()
    }
}

impl Events {
    /// Starts the task. Nothing leaves before `endpoint` holds the manager's address (`tcp://host:port`).
    #[must_use]
    pub fn start(
        context: Context,
        instance: InstanceId,
        endpoint: watch::Receiver<Option<String>>,
        tracker: &TaskTracker,
    ) -> Self {
        let (ordered, ordered_rx) = mpsc::unbounded_channel();
        let (beat, beat_rx) = watch::channel(None);
        let waiting = Arc::new(watch::Sender::new(0));
        let (last_beat_tx, last_beat) = watch::channel(None);
        let stop = CancellationToken::new();
        let server = Server {
            context,
            instance,
            endpoint,
            ordered: ordered_rx,
            beat: beat_rx,
            waiting: waiting.clone(),
            last_beat: last_beat_tx,
            stop: stop.clone(),
            queue: VecDeque::new(),
            push: None,
        };
        tracker.spawn(server.serve());
        Self { ordered, beat, waiting, last_beat, stop }
    }

    /// Queues an event behind all that wait.
    pub fn emit(&self, event: Event) -> Left {
        let (left, rx) = oneshot::channel();
        self.waiting.send_modify(|n| *n += 1);
        if self.ordered.send(Queued { event, left }).is_err() {
            self.waiting.send_modify(|n| *n -= 1);
            tracing::debug!("an event came after the queue was closed");
        }
        Left(rx)
    }

    /// Replaces the heartbeat that waits.
    pub fn beat(&self, heartbeat: Heartbeat) {
        self.beat.send_replace(Some(heartbeat));
    }

    /// Waits until the first heartbeat has left.
    pub async fn first_beat_left(&self) {
        let mut last_beat = self.last_beat.clone();
        if last_beat.wait_for(Option::is_some).await.is_err() {
            // The queue was closed: there is no first heartbeat any more.
            std::future::pending::<()>().await;
        }
    }

    /// How long ago the last heartbeat left.
    #[must_use]
    pub fn last_beat_age(&self) -> Option<Duration> {
        self.last_beat.borrow().map(|at| at.elapsed())
    }

    /// How many ordered events wait.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// Waits until all ordered events have left, at most `limit`, then ends the task. Returns how many did not.
    pub async fn close(&self, limit: Duration) -> usize {
        let mut waiting = self.waiting.subscribe();
        let drained = waiting.wait_for(|n| *n == 0);
        let left = match tokio::time::timeout(limit, drained).await {
            Ok(_) => 0,
            Err(_) => *self.waiting.borrow(),
        };
        self.stop.cancel();
        left
    }
}

/// How long closing the socket may take to hand what libzmq holds to the network.
const FLUSH: Duration = Duration::from_millis(500);

struct Server {
    context: Context,
    /// The second frame of every event.
    instance: InstanceId,
    endpoint: watch::Receiver<Option<String>>,
    ordered: mpsc::UnboundedReceiver<Queued>,
    beat: watch::Receiver<Option<Heartbeat>>,
    waiting: Arc<watch::Sender<usize>>,
    last_beat: watch::Sender<Option<Instant>>,
    stop: CancellationToken,
    /// Events that wait, oldest first.
    queue: VecDeque<Queued>,
    /// The connection to the endpoint; remade when that changes.
    push: Option<Push>,
}

impl Server {
    async fn serve(mut self) {
        self.reconnect();
        let mut beat: Option<Multipart> = None;
        loop {
            let message = match self.queue.front() {
                Some(queued) => Some(queued.event.encode(&self.instance)),
                None => beat.clone(),
            };
            let is_beat = self.queue.is_empty();
            tokio::select! {
                // What comes in is looked at before anything goes out, so that what goes out is the newest.
                biased;
                () = self.stop.cancelled() => break,
                Ok(()) = self.endpoint.changed() => self.reconnect(),
                Some(queued) = self.ordered.recv() => self.queue.push_back(queued),
                Ok(()) = self.beat.changed() => {
                    let newest = self.beat.borrow_and_update().clone();
                    beat = newest.map(|info| Event::Heartbeat(info).encode(&self.instance));
                }
                sent = send(self.push.as_mut(), message) => match sent {
                    Ok(()) if is_beat => {
                        beat = None;
                        self.last_beat.send_replace(Some(Instant::now()));
                    }
                    Ok(()) => self.front_left(),
                    Err(e) => {
                        tracing::error!(error = %e, "the event socket failed; connecting anew");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        self.reconnect();
                    }
                }
            }
        }
        if let Some(push) = self.push.take() {
            push.close(FLUSH).await;
        }
    }

    fn front_left(&mut self) {
        if let Some(queued) = self.queue.pop_front() {
            tracing::debug!(event = queued.event.name(), "event left");
            // Nobody may care; then there is nobody to tell.
            let _ = queued.left.send(());
            self.waiting.send_modify(|n| *n -= 1);
        }
    }

    fn reconnect(&mut self) {
        let Some(endpoint) = self.endpoint.borrow_and_update().clone() else { return };
        match Push::connect(&self.context, &endpoint, Limits::events()) {
            Ok(push) => {
                tracing::info!(to = %endpoint, "sending events to the manager");
                self.push = Some(push);
            }
            Err(e) => tracing::error!(to = %endpoint, error = %e, "can't send events to the manager"),
        }
    }
}

/// Waits for ever when there is nothing to send or nowhere to send it.
async fn send(push: Option<&mut Push>, message: Option<Multipart>) -> Result<(), crate::zmq::ZmqError> {
    match (push, message) {
        (Some(push), Some(message)) => push.send(message).await,
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
