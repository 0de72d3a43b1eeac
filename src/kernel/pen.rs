//! Writes one kernel's note, in order, and never waits long for a disk.
//!
//! A kernel's task must go on when the disk below the scratch root hangs or is full: ends and deaths matter more than
//! the memory of a run. A note that could not be written is written again later.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Node;
use super::notes::KernelNote;
use crate::ids::KernelId;

/// How long the kernel's task waits for one write.
pub(super) const LIMIT: Duration = Duration::from_secs(1);
/// The pause before the next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// The writer of one kernel's notes.
#[derive(Default)]
pub(super) struct Pen {
    /// A write that had not come to its end when its time was up; the next waits for it.
    open: Option<JoinHandle<io::Result<()>>>,
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
        let open = &mut self.open;
        let work = async {
            if let Some(earlier) = open.as_mut() {
                // It has said what there is to say about itself.
                let _ = earlier.await;
                *open = None;
            }
            let node = node.clone();
            let thread = tokio::task::spawn_blocking(move || node.notes.note(kernel, &text, durable));
            let written = open.insert(thread).await;
            *open = None;
            written.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        let written = match timeout(LIMIT, work).await {
            Ok(written) => written,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")),
        };
        self.again = written.is_err().then(|| Instant::now() + RETRY);
        written
    }

    /// When the note has to be written again; `None` when the disk has the newest.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }
}
