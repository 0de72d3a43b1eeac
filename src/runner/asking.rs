//! Questions to a runner whose answers carry nothing that tells them apart: completions, and starts of services. So one of a
//! kind is asked at a time, and an answer that comes after its asker gave up is not taken for the next one's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// After a question that was not answered in time, how long the next one waits for one more answer, because the
/// one that came may belong to a question before.
const STALE_ANSWER_LIMIT: Duration = Duration::from_millis(150);

/// An answer that did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The runner's answer did not come in time.
    #[error(
        "the kernel's runner did not answer in time; it may be busy, or its image may not know the question"
    )]
    Late,
    /// The kernel is being restarted or destroyed.
    #[error("the kernel is being restarted or destroyed")]
    Closed,
}

/// Questions of one kind.
pub(super) struct Asking {
    /// Who gets the next answer.
    asker: Mutex<Option<UnboundedSender<Json>>>,
    /// One question at a time.
    pub(super) turn: Semaphore,
    /// How many questions were given up whose answers may still come: a busy runner answers all of them later, in order.
    stale: AtomicUsize,
}

impl Default for Asking {
    fn default() -> Self {
        Self { asker: Mutex::new(None), turn: Semaphore::new(1), stale: AtomicUsize::new(0) }
    }
}

impl Asking {
    /// Whoever has the turn waits for the answer here.
    pub(super) fn begin(&self) -> UnboundedReceiver<Json> {
        let (tx, answers) = mpsc::unbounded_channel();
        *self.asker() = Some(tx);
        answers
    }

    /// Nobody waits any more.
    pub(super) fn end(&self) {
        self.asker().take();
    }

    /// Whoever had the turn gave up.
    pub(super) fn gave_up(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// The asker's own answer, of which this is the first that came. Answers come in the order of the questions, so the
    /// last one is it.
    pub(super) async fn newest(&self, first: Json, answers: &mut UnboundedReceiver<Json>) -> Json {
        let mut newest = first;
        for _ in 0..self.stale.swap(0, Ordering::Relaxed) {
            match timeout(STALE_ANSWER_LIMIT, answers.recv()).await {
                Ok(Some(next)) => newest = next,
                Ok(None) | Err(_) => break,
            }
        }
        newest
    }

    /// An answer came. Whether somebody waits for it, or has waited.
    pub(super) fn answered(&self, found: &Json) -> bool {
        let taken = self.asker().as_ref().is_some_and(|asker| asker.send(found.clone()).is_ok());
        let one_less = |count: usize| count.checked_sub(1);
        taken || self.stale.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn asker(&self) -> MutexGuard<'_, Option<UnboundedSender<Json>>> {
        self.asker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
