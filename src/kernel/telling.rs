//! The telling of an end, from top to bottom: once, with the true reason and the last statistics. Knows no kernel's
//! state; the kernel's task says when each step may be taken.
//!
//! The journal first, so that a crash anywhere later finishes the same end. Statistics into Redis before the event
//! leaves, because the manager bills from them when it arrives. The container beside that, since the manager waits for
//! the answer of a destroy. Then the kernel's task frees its cores, whatever becomes of its files, and waits until the
//! manager may hear. The event takes its place, and in its turn it is noted that it leaves: a crash from there on leaves
//! open whether it has arrived. It is marked as told only after it has.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::notes::Ending;
use super::removal;
use crate::events::{Place, Sent};
use crate::ids::{ContainerId, KernelId};
use crate::wire::event::{EndReason, Event};
use crate::wire::sample::Sample;

/// How long an end waits for its entry in the journal.
const JOURNAL_LIMIT: Duration = Duration::from_secs(2);

/// How long an event that may leave waits for the note of that; others wait behind it.
const NOTE_LIMIT: Duration = Duration::from_secs(1);

/// An end that is in the journal.
pub(super) struct Telling {
    node: Arc<Node>,
    kernel: KernelId,
    reason: EndReason,
    /// What the journal holds.
    ending: Ending,
    /// What it ran in, where that is known.
    container: Option<ContainerId>,
}

/// An end whose event waits for its turn.
pub(super) struct QueuedTelling {
    telling: Telling,
    place: Place,
}

impl Telling {
    /// Writes the entry of an end. A disk that is full or hangs must not keep the kernel from ending.
    pub(super) async fn begin(
        node: &Arc<Node>,
        kernel: KernelId,
        reason: EndReason,
        sample: Option<Sample>,
        container: Option<ContainerId>,
    ) -> Self {
        let ending = Ending::new(kernel, reason, sample);
        let (writer, entry) = (node.clone(), ending.clone());
        let written = node
            .notes
            .disk()
            .within(JOURNAL_LIMIT, move || writer.notes.journal.ending(kernel, &entry))
            .await;
        if let Err(error) = written {
            node.scratch.doubt();
            tracing::warn!(%kernel, %error, "could not note the end on disk; a crash of the agent now may lose or repeat it");
        }
        Self { node: node.clone(), kernel, reason, ending, container }
    }

    /// Puts the statistics into Redis; removes what there is of containers, if there may be any. Tries until it is done.
    pub(super) async fn clear(&self, has_containers: bool) {
        let containers = async {
            if has_containers {
                removal::clear(&self.node, self.kernel, self.container.as_ref()).await;
            }
        };
        tokio::join!(self.node.last_statistics.put(self.kernel, self.ending.sample), containers);
    }

    /// Takes the event's place behind all that wait.
    pub(super) fn queue(self) -> QueuedTelling {
        let place = self.node.events.queue();
        QueuedTelling { telling: self, place }
    }

    async fn note_under_way(&self, is_under_way: bool) {
        let (node, kernel, ending) = (self.node.clone(), self.kernel, self.ending.clone());
        let write = move || node.notes.journal.under_way(kernel, ending, is_under_way);
        if let Err(error) = self.node.notes.disk().within(NOTE_LIMIT, write).await {
            tracing::warn!(kernel = %self.kernel, %error, "could not note that the kernel's end is being told; a crash of the agent in this moment repeats it or loses it");
        }
    }

    async fn note_told(self) {
        let (node, kernel) = (self.node.clone(), self.kernel);
        let noted = tokio::task::spawn_blocking(move || node.notes.journal.told(kernel, self.ending)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%kernel, %error, "could not note that the kernel's end was told; check the disk below the scratch root");
        }
    }
}

impl QueuedTelling {
    /// Tells the manager, whenever it can hear, and notes that it was told.
    pub(super) async fn tell(self) {
        let Self { telling, mut place } = self;
        let kernel = telling.kernel;
        let sample = telling.ending.sample.as_ref().map(Sample::to_value);
        let event = Event::KernelTerminated(kernel, telling.reason, sample);
        let sent = loop {
            // `None`: the agent stops. The journal has the end, and the next life tells it.
            let Some(turn) = place.turn().await else { break Sent::Stays };
            telling.node.last_statistics.refresh(kernel).await;
            telling.note_under_way(true).await;
            match turn.send(event.clone()).await {
                Sent::Stays => telling.note_under_way(false).await,
                sent => break sent,
            }
        };
        telling.node.last_statistics.forget(kernel);
        if sent == Sent::Arrived {
            telling.note_told().await;
        }
    }
}
