//! The task that owns a runner's two sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::code::Code;
use super::current::Handing;
use super::doubt::Doubt;
use super::hearing::{handle, skip};
use super::intake::Intake;
use super::memory::Remembered;
use super::outlet::Outlet;
use super::parting;
use super::shared::Shared;
use super::signs::Signs;
use crate::patience::Tally;
use crate::wire::command::Command;
use crate::zmtp::{Message, Multipart, Trouble};

/// Commands that wait for a container which does not take them (paused, or still starting).
const MAX_OUTBOX: usize = 64;

/// After a record with more data than this, in bytes, others on the thread get their turn at once: some hundred of
/// them in one go would make a heartbeat late.
const LARGE: usize = 64 * 1024;

/// How long a stop waits for what is leaving.
const LEAVING: Duration = Duration::from_millis(500);

/// How the task ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// At once: the container goes.
    pub(super) cancel: CancellationToken,
    /// When what is leaving has left: the next agent goes on with the runner.
    pub(super) leave: CancellationToken,
}

pub(super) async fn serve(
    outlet: Outlet,
    mut intake: Intake,
    mut commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    remembered: Remembered,
    signs: Arc<dyn Signs>,
    ends: Ends,
) {
    let is_in_doubt = shared.runs().doubt().is_some();
    let (way, outbox) = (OnItsWay::Nothing, VecDeque::new());
    let mut out = Out { outlet, way, outbox, is_reached: false, asks: is_in_doubt };
    let mut skipped = Tally::default();
    // Whether the runner is to be asked once its output is connected again: answers from before that would be lost.
    let mut asks = false;
    loop {
        let (may_read, doubt_until, held_until) = {
            let runs = shared.runs();
            (runs.may_read(), runs.doubt_until(), runs.held_until(Instant::now()))
        };
        if intake.has_broken() | out.outlet.has_broken() {
            (asks, out.asks) = (shared.change(|runs| runs.connection_broke(Instant::now())), false);
            tracing::debug!(kernel = %shared.kernel, asks, "a connection to the runner broke");
        }
        // Code of a later run goes behind the questions, or it would be taken for the one that they are about.
        if !asks {
            out.hand_out(&shared, &remembered);
        }
        tokio::select! {
            // The order is the priority: an end before everything, commands before records, so that an
            // interrupt gets out however fast the kernel prints.
            biased;
            () = ends.cancel.cancelled() => return,
            () = ends.leave.cancelled() => {
                out.leave(&shared, commands).await;
                return parting::hear_out(&mut intake, &shared, &mut skipped).await;
            }
            Some(command) = commands.recv(), if out.outbox.len() < MAX_OUTBOX => out.outbox.push_back(command.encode()),
            () = out.advance() => out.advanced(&shared),
            received = next(&mut intake, asks), if may_read => match received {
                Ok(None) => (asks, out.asks) = (false, true),
                Ok(Some(message)) => {
                    handle(&shared, &message, &mut skipped);
                    if message.frames.iter().any(|frame| frame.len() > LARGE) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(broken) if broken.is_nonsense() => skip(&shared, &broken, &mut skipped),
                Err(_) => {}
            },
            () = shared.space.notified() => {}
            () = at(held_until) => {}
            () = at(doubt_until) => {
                let used = signs.cpu_used().await;
                shared.change(|runs| runs.silent(used, Instant::now()));
            }
        }
        // Records may be ready without end; give others on this thread their share.
        tokio::task::consume_budget().await;
    }
}

/// The next message, or `None` once there is a connection, where one is `wanted`.
async fn next(intake: &mut Intake, wanted: bool) -> Result<Option<Message>, Trouble> {
    if wanted { intake.ready().await.map(|()| None) } else { intake.recv().await.map(Some) }
}

/// What goes to the runner.
struct Out {
    outlet: Outlet,
    /// Goes first.
    way: OnItsWay,
    /// Goes next, in order.
    outbox: VecDeque<Multipart>,
    /// Whether the runner was ever reached.
    is_reached: bool,
    /// Whether it is to be asked about a run, behind what is on its way.
    asks: bool,
}

/// What goes before everything else. Each step of it may be cancelled and goes on where it was.
enum OnItsWay {
    Nothing,
    /// The memory is told that questions leave.
    Noting(BoxFuture<'static, ()>),
    /// Questions about a run of which it isn't known whether it goes on.
    Questions(VecDeque<Multipart>),
    /// The memory is told that code leaves.
    Remembering(BoxFuture<'static, ()>),
    /// A run's code, and what of it is still to be written.
    Code(Arc<Code>, VecDeque<Multipart>),
}

impl Out {
    /// Takes the questions, or the next run's code, when there is any to be sent.
    fn hand_out(&mut self, shared: &Shared, remembered: &Remembered) {
        if self.asks && matches!(self.way, OnItsWay::Noting(_) | OnItsWay::Questions(_)) {
            self.way = OnItsWay::Nothing;
        }
        if !matches!(self.way, OnItsWay::Nothing) {
            return;
        }
        if std::mem::take(&mut self.asks) {
            let (remembered, answers) = (remembered.clone(), shared.runs().activity().going.answers);
            self.way = OnItsWay::Noting(async move { remembered.asking(answers).await }.boxed());
            return;
        }
        let handing = {
            let mut runs = shared.runs();
            let handing = runs.hand_out(Instant::now());
            // Asked for each record; the rest changes nothing that others may know.
            if let Handing::Remember(_) = handing {
                shared.publish(&runs);
            }
            handing
        };
        match handing {
            Handing::Nothing => {}
            Handing::Remember(run) => {
                let remembered = remembered.clone();
                self.way = OnItsWay::Remembering(async move { remembered.leaving(&run).await }.boxed());
            }
            Handing::Send(code) => {
                let frames = code.commands().iter().map(Command::encode).collect();
                self.way = OnItsWay::Code(code, frames);
            }
        }
    }

    /// Does the next step; waits for ever when there is nothing to do.
    async fn advance(&mut self) {
        let front = match &mut self.way {
            OnItsWay::Noting(noting) | OnItsWay::Remembering(noting) => return noting.await,
            OnItsWay::Questions(frames) | OnItsWay::Code(_, frames) => frames.front(),
            OnItsWay::Nothing => self.outbox.front(),
        };
        match front {
            Some(message) => self.outlet.send(message).await,
            // Code that went down with its connection has to be noticed while nothing else is sent.
            None if self.is_reached => self.outlet.stand().await,
            None => self.outlet.ready().await,
        }
    }

    /// A step was done.
    fn advanced(&mut self, shared: &Shared) {
        let now = Instant::now();
        match &mut self.way {
            OnItsWay::Noting(_) => {
                self.way = OnItsWay::Questions(Doubt::questions().iter().map(Command::encode).collect());
                return;
            }
            OnItsWay::Remembering(_) => {
                self.way = OnItsWay::Nothing;
                return;
            }
            OnItsWay::Nothing => drop(self.outbox.pop_front()),
            OnItsWay::Questions(frames) => {
                frames.pop_front();
                if frames.is_empty() {
                    self.way = OnItsWay::Nothing;
                    shared.change(|runs| runs.doubt().map(|doubt| doubt.asked(now)));
                }
            }
            OnItsWay::Code(_, frames) => {
                frames.pop_front();
                if frames.is_empty() {
                    self.way = OnItsWay::Nothing;
                    shared.change(|runs| runs.code_left(now));
                }
            }
        }
        if !std::mem::replace(&mut self.is_reached, true) {
            shared.change(super::runs::Runs::reached);
        }
    }

    /// Sends what is leaving, if the runner is there to take it; code of which nothing has left stays for the next agent.
    async fn leave(mut self, shared: &Shared, mut commands: mpsc::Receiver<Command>) {
        while let Ok(command) = commands.try_recv() {
            self.outbox.push_back(command.encode());
        }
        let sending = async {
            while self.is_leaving() {
                self.advance().await;
                self.advanced(shared);
            }
        };
        if timeout(LEAVING, sending).await.is_ok() {
            return;
        }
        match &self.way {
            OnItsWay::Code(code, frames)
                if frames.len() == code.commands().len() && !self.outlet.is_amid() =>
            {
                shared.change(|runs| runs.code_stays(code));
            }
            _ => {
                tracing::warn!(kernel = %shared.kernel, "not everything had left for the runner within {} s", LEAVING.as_secs_f64());
            }
        }
    }

    fn is_leaving(&self) -> bool {
        match &self.way {
            OnItsWay::Code(..) => true,
            OnItsWay::Nothing => self.is_reached && !self.outbox.is_empty(),
            // The next agent asks anew, and code that was not taken yet is in its note.
            OnItsWay::Noting(_) | OnItsWay::Questions(_) | OnItsWay::Remembering(_) => false,
        }
    }
}

/// Waits for the moment; for ever when there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
