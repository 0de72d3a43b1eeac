//! How a kernel ends, as its task does it, from top to bottom: the journal, its containers and files, the event.

use std::time::Instant as StdInstant;

use tokio::time::{Instant, sleep_until};

use super::Kernel;
use crate::figures::{self, table};
use crate::kernel::life::{Input, Stage};
use crate::kernel::notes::NotedPhase;
use crate::kernel::removal;
use crate::kernel::telling::Telling;
use crate::patience::seconds;
use crate::wire::event::EndReason;

impl Kernel {
    /// The journal first, with the last statistics in it.
    pub(super) async fn note_end(&mut self, reason: EndReason) -> Input {
        self.ending_since = Some(StdInstant::now());
        let live = self.live.take();
        if let Some(live) = &live {
            live.runner.close();
            self.sample = self.node.last_sample(&live.target).await.or(self.sample);
        }
        let container = live.map(|live| live.place.container.clone());
        self.telling = Some(Telling::begin(&self.node, self.id, reason, self.sample, container).await);
        Input::Done
    }

    /// Nothing is left of it but its event.
    pub(super) async fn clear(&mut self, has_containers: bool) -> Input {
        let Some(telling) = self.telling.take() else { return Input::Done };
        {
            let mut clearing = std::pin::pin!(telling.clear(has_containers));
            loop {
                tokio::select! {
                    () = &mut clearing => break,
                    Some(request) = self.inbox.restarts.recv() => {
                        request.refuse(self.failure());
                        self.life.take(Input::RestartAsked, StdInstant::now());
                    }
                }
            }
        }
        self.telling = Some(telling);
        if let Some(since) = self.ending_since {
            figures::took(&table::KERNEL_END_SECONDS, &[], since.elapsed());
        }
        // Whatever becomes of its files (section 12, item 23).
        self.allocation = None;
        if has_containers {
            removal::discard(&self.node, self.id).await;
        }
        self.node.collector.forget(self.id);
        Input::Done
    }

    pub(super) async fn settle(&mut self, until: Instant) -> Input {
        tokio::select! {
            biased;
            Some(request) = self.inbox.restarts.recv() => {
                request.refuse(self.failure());
                Input::RestartAsked
            }
            Some(reason) = self.inbox.cuts.terminate.recv() => Input::Terminate(reason),
            () = self.node.detach.cancelled() => Input::Detach,
            () = sleep_until(until) => Input::Done,
        }
    }

    pub(super) async fn tell(&mut self) -> Input {
        // One that came too late is refused first: the manager's status goes with its answer.
        if let Ok(request) = self.inbox.restarts.try_recv() {
            request.refuse(self.failure());
            return Input::RestartAsked;
        }
        if let (Some(telling), Stage::Ending(reason)) = (self.telling.take(), self.life.stage()) {
            self.queued = Some(telling.queue());
            let seconds = self.ending_since.map(|since| seconds(since.elapsed()));
            tracing::info!(kernel = %self.id, %reason, seconds, "ended");
            figures::count(&table::KERNEL_ENDS, &[reason.as_str()]);
        }
        self.pen.forget(&self.run_pen).await;
        Input::Done
    }

    /// Removes whatever there is of a kernel that nobody knows of. Tries until it is done.
    pub(super) async fn undo(&mut self) -> Input {
        if let Some(live) = self.live.take() {
            tracing::warn!(kernel = %self.id, "whoever asked for the kernel left before the answer; undoing the create");
            live.runner.close();
            // A crash from here on finds a kernel that was never answered.
            self.pen.note(NotedPhase::Creating, self.last_use).await;
        }
        self.allocation = None;
        removal::clear(&self.node, self.id, None).await;
        removal::discard(&self.node, self.id).await;
        self.pen.forget(&self.run_pen).await;
        Input::Done
    }
}
