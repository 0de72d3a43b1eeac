//! Writes one kernel's notes, each file in order, and never waits long for a disk.
//!
//! A kernel's task must go on when the disk below the scratch root hangs or is full: ends and deaths matter more than
//! the memory of a run. A note that could not be written is written again later.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::disk::InOrder;
use super::node::Node;
use super::notes::{Environ, KernelNote, NotedPhase, RunNote, unix_now};
use crate::ids::{ContainerId, KernelId};
use crate::runner::{GoingRun, RunMemory, Spilled, Written};

/// How long the kernel's task waits for one write.
const LIMIT: Duration = Duration::from_secs(1);
/// The pause before the next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// The kernel's own note, and its writer.
pub(super) struct Pen {
    node: Arc<Node>,
    kernel: KernelId,
    order: InOrder,
    /// What the disk has, or shall have.
    note: KernelNote,
    /// When to write again what could not be written.
    again: Option<Instant>,
}

impl Pen {
    pub(super) fn new(node: Arc<Node>, kernel: KernelId) -> Self {
        Self {
            order: InOrder::default(),
            note: KernelNote::new(kernel, NotedPhase::Creating),
            again: None,
            node,
            kernel,
        }
    }

    /// The phase that was noted last.
    pub(super) fn phase(&self) -> NotedPhase {
        self.note.phase
    }

    /// The kernel runs in a container of the Python agent, which has no labels.
    pub(super) fn adopted(&mut self, container: &ContainerId) {
        self.note.adopted = Some(container.to_string());
    }

    /// The environment that the kernel is made with. Goes to the disk with the next note.
    pub(super) fn made_with(&mut self, environ: &BTreeMap<String, String>) {
        self.note.environ = Some(Environ(environ.clone()));
    }

    /// The manager waits for the answer of a restart that has not begun, or has it. Goes to the disk with the next note.
    pub(super) fn restart_asked(&mut self, is_asked: bool) {
        self.note.restart_asked = is_asked;
    }

    /// Notes how far the kernel is. A disk that is full or hangs must not stop it, so a failure is only logged, and
    /// mended later.
    pub(super) async fn note(&mut self, phase: NotedPhase, last_use: Instant) {
        let was_behind = self.again.is_some();
        if let Err(error) = self.write(phase, last_use, false).await
            && !was_behind
        {
            tracing::warn!(kernel = %self.kernel, %error, "could not note what the kernel does, trying again; check the disk below the scratch root");
        }
    }

    /// The same for a caller that can't do without: synced to the disk.
    pub(super) async fn note_durably(&mut self, phase: NotedPhase, last_use: Instant) -> io::Result<()> {
        self.write(phase, last_use, true).await
    }

    async fn write(&mut self, phase: NotedPhase, last_use: Instant, durable: bool) -> io::Result<()> {
        self.note.phase = phase;
        // Not of now: taking a kernel back, for one, is no use of it.
        self.note.last_use = unix_now().saturating_sub(last_use.elapsed().as_secs());
        let (writer, kernel, text) = (self.node.clone(), self.kernel, self.note.clone());
        let write = move || writer.notes.note(kernel, &text, durable);
        let written = self.order.within(self.node.notes.disk(), LIMIT, write).await;
        self.again = written.is_err().then(|| Instant::now() + RETRY);
        if written.is_err() {
            self.node.scratch.doubt();
        }
        written
    }

    /// When the note has to be written again; `None` when the disk has the newest.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Removes both notes, behind what is being written. What a disk that hangs leaves is known for a leftover by the
    /// kernel's ending, or undone once more.
    pub(super) async fn forget(&self, runs: &RunPen) {
        let (writer, kernel, disk) = (self.node.clone(), self.kernel, self.node.notes.disk());
        let forget = move || {
            writer.notes.forget(kernel);
            Ok(())
        };
        let in_order = async {
            // A run's last note may be on its way.
            runs.order.within(disk, LIMIT, || Ok(())).await?;
            self.order.within(disk, LIMIT, forget).await
        };
        if let Err(error) = in_order.await {
            tracing::warn!(%kernel, %error, "the kernel's note is slow to go; check the disk below the scratch root");
        }
    }
}

/// The writer of the note of the run that goes on; the runner's task decides what it says.
#[derive(Clone)]
pub(super) struct RunPen {
    node: Arc<Node>,
    kernel: KernelId,
    order: InOrder,
}

impl RunPen {
    pub(super) fn new(node: Arc<Node>, kernel: KernelId) -> Self {
        Self { node, kernel, order: InOrder::default() }
    }
}

impl RunMemory for RunPen {
    fn keep(&self, output: Vec<Spilled>, going: GoingRun) -> BoxFuture<'static, Written> {
        let Self { node, kernel, order } = self.clone();
        async move {
            let (writer, note) = (node.clone(), RunNote::new(kernel, &going));
            let write = move || {
                let output = if output.is_empty() { Ok(()) } else { writer.notes.spill(kernel, output) };
                Ok(Written { output, going: writer.notes.run(kernel, note) })
            };
            let kept = order.within(node.notes.disk(), LIMIT, write).await;
            kept.unwrap_or_else(|late| Written { output: Err(late.kind().into()), going: Err(late) })
        }
        .boxed()
    }

    fn spill(&self, output: Vec<Spilled>) -> BoxFuture<'static, io::Result<()>> {
        let Self { node, kernel, order } = self.clone();
        async move {
            let writer = node.clone();
            order.within(node.notes.disk(), LIMIT, move || writer.notes.spill(kernel, output)).await
        }
        .boxed()
    }
}
