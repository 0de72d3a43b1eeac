//! One caller's connection, from its handshake to its end.
//!
//! One task reads its calls and writes its answers. What it waits for, room for a call or for its bytes, keeps it from
//! reading and nobody else; its calls under way and their answers go on.

use std::collections::VecDeque;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::calls::{Outgoing, Places, carry_out};
use super::shared::{Shared, more};
use super::unread::{OwnUnread, Pressure};
use crate::figures::{self, table};
use crate::zmtp::{Caps, Connection, Event, Held, Incoming, Kind, Message, Trouble};

/// How long a peer may stand still in the middle of a large call, whose bytes others wait for, or of an answer.
const STALLED: Duration = Duration::from_secs(120);

/// While all unread answers are too many, whoever has some has to take [`PRESSED_BYTES`] in each of these times.
const PRESSED: Duration = Duration::from_secs(2);
const PRESSED_BYTES: u64 = 1024 * 1024;

/// How long the last answers may take to leave at a stop.
const FINISH: Duration = Duration::from_millis(200);

/// Serves one connection until it closes, or until `stop` and its last answer.
pub(super) async fn serve(incoming: Incoming, shared: Arc<Shared>, stop: CancellationToken) {
    let from = incoming.from;
    let greeting = incoming.greet(Kind::Router, Caps::calls(shared.limits.call));
    let trouble = match stop.run_until_cancelled(greeting).await {
        None => return,
        Some(Ok(connection)) => Session::new(connection, shared.clone()).run(&stop).await.err(),
        Some(Err(trouble)) => Some(trouble),
    };
    match trouble {
        Some(trouble) if trouble.is_nonsense() => {
            figures::count(&table::RPC_REFUSED, &[]);
            if let Some(refused) = more(&shared.refused) {
                tracing::warn!(%from, %trouble, refused, "closed the connection of a caller");
            }
        }
        Some(trouble) => tracing::debug!(%from, %trouble, "a caller's connection has ended"),
        None => {}
    }
}

struct Session {
    connection: Connection,
    shared: Arc<Shared>,
    /// One permit a call of this connection.
    calls: Arc<Semaphore>,
    /// Cancelled when the caller is gone.
    gone: CancellationToken,
    /// Answers of calls under way; `None` once no call is taken any more, so that their end can be heard.
    answers: Option<mpsc::UnboundedSender<Outgoing>>,
    ready: mpsc::UnboundedReceiver<Outgoing>,
    /// Answers that wait to be written, and their bytes.
    waiting: VecDeque<Outgoing>,
    unread: OwnUnread,
    /// Whether all unread answers are too many; while that is so and some are this one's: how far the connection was, and when it
    /// is looked at.
    pressure: watch::Receiver<Pressure>,
    pressed: Option<(u64, Instant)>,
    /// The answer that is being written.
    writing: Option<Outgoing>,
    /// The bytes of the call that is being received.
    held: Held,
    /// What is waited for before more is read.
    room: Option<Pin<Box<dyn Future<Output = Room> + Send>>>,
    /// How far the connection was, and when it will have stalled unless it moves.
    moved: u64,
    stalls_at: Instant,
}

/// Room that was waited for.
enum Room {
    /// For the bytes of the call that is being received.
    Bytes(Held),
    /// For a call.
    Call(Message, Places),
}

impl Session {
    fn new(mut connection: Connection, shared: Arc<Shared>) -> Self {
        connection.ask_above(shared.limits.small);
        let (answers, ready) = mpsc::unbounded_channel();
        Self {
            connection,
            calls: Arc::new(Semaphore::new(shared.limits.calls_of_one)),
            unread: OwnUnread::new(shared.unread.clone()),
            pressure: shared.unread.pressure(),
            pressed: None,
            shared,
            gone: CancellationToken::new(),
            answers: Some(answers),
            ready,
            waiting: VecDeque::new(),
            writing: None,
            held: Held::default(),
            room: None,
            moved: 0,
            stalls_at: Instant::now() + STALLED,
        }
    }

    /// An error is how the connection ended; without one it was a stop. The answers that are left are undone then.
    async fn run(mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        // Whatever way this ends.
        let _gone = self.gone.clone().drop_guard();
        loop {
            self.write_next();
            self.look_for_pressure();
            let may_read = self.answers.is_some()
                && self.room.is_none()
                && self.unread.bytes() < self.shared.limits.answers_of_one
                && self.pressed.is_none()
                && *self.pressure.borrow() != Pressure::Full;
            let is_amid = self.writing.is_some() || self.held.bytes() > 0;
            tokio::select! {
                // Answers first: they make room for calls.
                biased;
                answer = self.ready.recv() => match answer {
                    Some(answer) => self.is_answered(answer),
                    // Stopped, and the last call under way is answered.
                    None if self.writing.is_none() => {
                        self.connection.finish(FINISH).await;
                        return Ok(());
                    }
                    None => self.flush().await?,
                },
                () = stop.cancelled(), if self.answers.is_some() => self.answers = None,
                room = wait_for(&mut self.room) => {
                    self.room = None;
                    match room {
                        Room::Bytes(held) => {
                            self.connection.allow(held.bytes());
                            self.held = held;
                        }
                        Room::Call(message, places) => self.begin(message, places),
                    }
                }
                event = self.connection.next(may_read) => match event? {
                    Event::Message(message) => self.take(message),
                    Event::Wants(bytes) => {
                        let (held, budget) = (std::mem::take(&mut self.held), self.shared.bytes.clone());
                        self.room = Some(Box::pin(async move { Room::Bytes(budget.raise(held, bytes).await) }));
                    }
                    Event::Written => self.is_written(),
                    Event::Leaving => self.gone.cancel(),
                    Event::Pong => {}
                },
                Ok(()) = self.pressure.changed() => {}
                () = at(self.pressed.map(|(_, until)| until)) => {
                    let moved = self.connection.moved();
                    if self.pressed.is_some_and(|(before, _)| moved - before < PRESSED_BYTES) {
                        self.tell_that_it_closes();
                        return Ok(());
                    }
                    self.pressed = None;
                }
                () = sleep_until(self.stalls_at), if is_amid && self.room.is_none() => {
                    let moved = self.connection.moved();
                    if std::mem::replace(&mut self.moved, moved) == moved {
                        return Err(Trouble::Late(STALLED));
                    }
                    self.stalls_at = Instant::now() + STALLED;
                }
            }
        }
    }

    /// Begins or ends to look whether the caller takes its answers.
    fn look_for_pressure(&mut self) {
        // Few bytes of many callers are within what connections may cost.
        let has_many = u64::try_from(self.unread.bytes()).is_ok_and(|bytes| bytes > self.shared.limits.small);
        if *self.pressure.borrow_and_update() == Pressure::None || !has_many {
            self.pressed = None;
        } else if self.pressed.is_none() {
            self.pressed = Some((self.connection.moved(), Instant::now() + PRESSED));
        }
    }

    /// Its answers are undone with it.
    fn tell_that_it_closes(&self) {
        if let Some(refused) = more(&self.shared.refused) {
            tracing::warn!(
                bytes = self.unread.bytes(),
                refused,
                "closed the connection of a caller that does not take its answers, while all of them hold too much memory"
            );
        }
    }

    /// Writes everything that waits; no call is under way.
    async fn flush(&mut self) -> Result<(), Trouble> {
        while self.writing.is_some() {
            if let Event::Written = self.connection.next(false).await? {
                self.is_written();
            }
            self.write_next();
        }
        Ok(())
    }

    fn write_next(&mut self) {
        if self.writing.is_none()
            && let Some(next) = self.waiting.pop_front()
        {
            self.connection.put(next.bytes.clone());
            self.writing = Some(next);
        }
    }

    fn is_written(&mut self) {
        if let Some(answer) = self.writing.take() {
            self.unread.remove(answer.bytes.len());
            answer.written();
        }
    }

    /// A call, as soon as there is room for it.
    fn take(&mut self, message: Message) {
        let (all, own) = (self.shared.calls.clone(), self.calls.clone());
        if let Ok(own) = own.clone().try_acquire_owned()
            && let Ok(all) = all.clone().try_acquire_owned()
        {
            return self.begin(message, [all, own]);
        }
        self.room = Some(Box::pin(async move {
            // Its own first, so that it does not hold what others could have. Nobody closes either.
            match (own.acquire_owned().await, all.acquire_owned().await) {
                (Ok(own), Ok(all)) => Room::Call(message, [all, own]),
                _ => pending().await,
            }
        }));
    }

    fn begin(&mut self, message: Message, places: Places) {
        // None is taken after a stop.
        let Some(answers) = self.answers.clone() else { return };
        let (shared, gone, held) = (self.shared.clone(), self.gone.clone(), std::mem::take(&mut self.held));
        let call = async move { carry_out(&shared, message.frames, held, places, &gone).await };
        // A mistake of ours ends the call alone; the log has it.
        let mut call = AssertUnwindSafe(call).catch_unwind().boxed();
        // Most calls of most callers are done at once, and worth no task.
        if let Some(done) = (&mut call).now_or_never() {
            return done.ok().flatten().map_or((), |answer| self.is_answered(answer));
        }
        self.shared.tracker.spawn(async move {
            if let Ok(Some(answer)) = call.await {
                // The connection may have ended; then the answer is undone with this.
                let _ = answers.send(answer);
            }
        });
    }

    fn is_answered(&mut self, answer: Outgoing) {
        self.unread.add(answer.bytes.len());
        self.waiting.push_back(answer);
    }
}

/// Waits until then; for ever when there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Waits for room; for ever when none is wanted.
async fn wait_for(room: &mut Option<Pin<Box<dyn Future<Output = Room> + Send>>>) -> Room {
    match room {
        Some(room) => room.await,
        None => pending().await,
    }
}
