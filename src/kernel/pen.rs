//! Writes one kernel's notes, each file in order, and never waits long for a disk.
//!
//! A kernel's task must go on when the disk below the scratch root hangs or is full: ends and deaths matter more than
//! the memory of a run. A note that could not be written is written again later.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::disk::InOrder;
use super::node::Node;
use super::notes::{KernelNote, RunNote};
use crate::ids::KernelId;
use crate::runner::{GoingRun, RunMemory, Spilled};

/// How long the kernel's task waits for one write.
const LIMIT: Duration = Duration::from_secs(1);
/// The pause before the next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// The writer of one kernel's own note.
#[derive(Default)]
pub(super) struct Pen {
    order: InOrder,
    /// When to write again what could not be written.
    again: Option<Instant>,
}

impl Pen {
    /// Writes the note; `durable` syncs it to the disk.
    pub(super) async fn write(
        &mut self,
        node: &Arc<Node>,
        kernel: KernelId,
        text: KernelNote,
        durable: bool,
    ) -> io::Result<()> {
        let writer = node.clone();
        let write = move || writer.notes.note(kernel, &text, durable);
        let written = self.order.within(node.notes.disk(), LIMIT, write).await;
        self.again = written.is_err().then(|| Instant::now() + RETRY);
        written
    }

    /// When the note has to be written again; `None` when the disk has the newest.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Removes both notes, behind what is being written. What a disk that hangs leaves is known for a leftover by the
    /// kernel's ending, or undone once more.
    pub(super) async fn forget(&self, node: &Arc<Node>, kernel: KernelId, runs: &RunPen) {
        let runs_done = runs.order.clone();
        let (writer, disk) = (node.clone(), node.notes.disk().clone());
        let forgotten = self.order.within(node.notes.disk(), LIMIT, move || {
            writer.notes.forget(kernel);
            Ok(())
        });
        // A run's last note may be on its way.
        let ordered = async {
            runs_done.within(&disk, LIMIT, || Ok(())).await?;
            forgotten.await
        };
        if let Err(error) = ordered.await {
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
    fn keep(&self, going: GoingRun) -> BoxFuture<'static, io::Result<()>> {
        let Self { node, kernel, order } = self.clone();
        async move {
            let (writer, note) = (node.clone(), RunNote::new(kernel, &going));
            order.within(node.notes.disk(), LIMIT, move || writer.notes.run(kernel, note)).await
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
