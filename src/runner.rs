//! One kernel's REPL: its run queue, its output, completions and interrupts.
//!
//! A [`Runner`] is the handle of one task (`task::serve`), which owns the two sockets to the container: an
//! [`Outlet`] for commands and an [`Intake`] for its output, which may be anything. They share
//! [`Runs`], pure state behind a std mutex that is held for the length of a method and never over an await: both
//! the task (records come in) and the callers (answers go out) change it, and each change is short.
//! Waiting for output happens in the caller's task, in a [`Seat`].
//!
//! What the next life of the agent has to know of the run that goes on is kept by a second task ([`memory`]).
//!
//! Channels: commands to the task (`mpsc`, bounded), `changed` to waiting callers (`watch`, a counter),
//! `activity` to the kernel's task and the keeper of the memory (`watch`), `space` back to the task when a full buffer was collected (`Notify`).

mod asking;
mod code;
mod current;
mod doubt;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod hearing;
mod held;
mod intake;
mod kept;
pub mod memory;
mod outlet;
pub mod output;
mod parting;
mod piece;
pub mod runs;
mod seat;
mod shared;
mod signs;
mod spill;
mod task;
#[cfg(test)]
mod tests;
pub mod utf8;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::asking::AskError;
use self::asking::Asking;
pub use self::code::{Code, GoingRun, Way};
pub use self::current::Activity;
pub use self::held::Held;
use self::intake::Intake;
use self::memory::{Remembered, RunKeeper};
pub use self::memory::{RunMemory, Written};
use self::outlet::Outlet;
use self::runs::Interrupt;
pub use self::runs::{Entry, Refusal, Runs};
pub use self::seat::{Answer, Begin, Seat};
use self::shared::{Asker, Shared};
pub use self::signs::Signs;
pub use self::spill::{Change, LeftOutput, Spilled};
use self::task::Ends;
use crate::ids::{KernelId, RunId};
use crate::wire::command::{Command, ServiceStart};
use crate::wire::request::Completions;

/// How long completions may take (section 12, item 28).
const COMPLETION_LIMIT: Duration = Duration::from_secs(4);

/// How long a service may take to start. The manager waits without end, and runners before 18.12 never answer.
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

/// How long an interrupt waits for a run to begin; the manager waits 5 s.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(4);

/// Where the runner's sockets are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerAddr {
    /// The container's address, or loopback, where its ports are published.
    pub host: IpAddr,
    /// The container's 2000.
    pub input: u16,
    /// The container's 2001.
    pub output: u16,
}

/// Handle of a connected runner. Clones share the connection; it ends with [`Runner::close`].
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    remembered: Remembered,
    ends: Ends,
    /// When both tasks are over.
    over: CancellationToken,
}

/// Where the run that goes on is remembered, and what the memory holds at first, if that is known.
pub type Memory = (Arc<dyn RunMemory>, Option<GoingRun>);

impl Runner {
    /// Connects both sockets. Returns at once; they go on trying while the container starts.
    #[must_use]
    pub fn connect(
        kernel: KernelId,
        at: RunnerAddr,
        runs: Runs,
        (memory, known): Memory,
        signs: Arc<dyn Signs>,
        tracker: &TaskTracker,
    ) -> Self {
        let outlet = Outlet::new(kernel, SocketAddr::new(at.host, at.input));
        let intake = Intake::new(kernel, SocketAddr::new(at.host, at.output));
        let (commands, commands_rx) = mpsc::channel(64);
        let shared = Arc::new(Shared::new(kernel, runs));
        let ends = Ends::default();
        let (keeper, remembered) = RunKeeper::new(shared.clone(), memory, known);
        let (served, over) = (CancellationToken::new(), CancellationToken::new());
        let keeping = keeper.run(served.clone());
        let is_over = over.clone().drop_guard();
        tracker.spawn(async move {
            // It has the last word.
            let _is_over = is_over;
            keeping.await;
        });
        let task =
            task::serve(outlet, intake, commands_rx, shared.clone(), remembered.clone(), signs, ends.clone());
        // The last word is written when the task has had its own.
        let served = served.drop_guard();
        tracker.spawn(async move {
            task.await;
            drop(served);
        });
        Self { shared, commands, remembered, ends, over }
    }

    /// Takes a place in the queue; dropping the seat frees it.
    pub fn enter(&self, run: RunId, entry: Entry) -> Result<Seat, Refusal> {
        let ticket = self.shared.change(|runs| runs.enter(&run, entry))?;
        Ok(Seat::new(self.shared.clone(), self.commands.clone(), self.remembered.clone(), ticket, run))
    }

    /// Interrupts the run that goes on; does nothing when none does, since an idle Python runner would lose its
    /// worker by it. A run whose code has not left is ended without the runner, and one that may not have begun is given a
    /// moment for that.
    pub async fn interrupt(&self) {
        let deadline = Instant::now() + INTERRUPT_LIMIT;
        loop {
            let now = Instant::now();
            match self.shared.change(|runs| runs.interrupt(now)) {
                Interrupt::Nothing => return,
                Interrupt::NotBefore(then) if then < deadline => tokio::time::sleep_until(then.into()).await,
                Interrupt::NotBefore(_) => {
                    tracing::warn!(kernel = %self.shared.kernel, "the runner can't be reached for an interrupt");
                    return;
                }
                Interrupt::Send => break,
            }
        }
        if self.commands.send(Command::Interrupt).await.is_err() {
            tracing::debug!(kernel = %self.shared.kernel, "interrupt came too late, the kernel is going");
        }
    }

    /// Asks for completions and waits for them.
    pub async fn complete(&self, ask: Completions) -> Result<serde_json::Value, AskError> {
        self.ask(&self.shared.completions, Command::Complete(ask), COMPLETION_LIMIT).await
    }

    /// Has a service started; what the runner answers to that.
    pub async fn start_service(&self, start: ServiceStart) -> Result<serde_json::Value, AskError> {
        self.ask(&self.shared.services, Command::StartService(start), SERVICE_LIMIT).await
    }

    /// Asks, and waits for the answer for so long, the time before its turn included.
    async fn ask(
        &self,
        asking: &Asking,
        question: Command,
        limit: Duration,
    ) -> Result<serde_json::Value, AskError> {
        let deadline = tokio::time::Instant::now() + limit;
        let late = |_| AskError::Late;
        let turn = timeout_at(deadline, asking.turn.acquire()).await;
        let _turn = turn.map_err(late)?.map_err(|_| AskError::Closed)?;
        let (_asker, mut answers) = Asker::new(&self.shared, asking);
        let sent = timeout_at(deadline, self.commands.send(question)).await;
        sent.map_err(late)?.map_err(|_| AskError::Closed)?;
        let received = tokio::select! {
            () = self.ends.cancel.cancelled() => return Err(AskError::Closed),
            () = self.ends.leave.cancelled() => return Err(AskError::Closed),
            received = timeout_at(deadline, answers.recv()) => received,
        };
        let Ok(Some(first)) = received else {
            asking.gave_up();
            return Err(AskError::Late);
        };
        Ok(asking.newest(first, &mut answers).await)
    }

    /// What the queue does, for the idle check, the execution limit and the record of runs.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.shared.activity.subscribe()
    }

    /// How many callers wait for the turn of their runs.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.shared.runs().queue()
    }

    /// The current run took too long: its caller is told so.
    pub fn expire(&self) {
        self.shared.change(Runs::expire);
    }

    /// Answers callers of the current run with what there is, and disconnects when what is leaving has left: the next agent goes
    /// on with it.
    pub fn let_go(&self) {
        self.shared.change(Runs::let_go);
        self.shared.completions.turn.close();
        self.shared.services.turn.close();
        self.ends.leave.cancel();
    }

    /// Waits until nothing of a runner that was [let go](Self::let_go) or closed is left: neither a connection nor a note that is written.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Answers every caller nil, and disconnects; the runner does not notice.
    pub fn close(&self) {
        self.shared.change(Runs::close);
        self.shared.completions.turn.close();
        self.shared.services.turn.close();
        self.ends.cancel.cancel();
    }
}
