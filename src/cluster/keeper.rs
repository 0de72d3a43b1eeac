//! Keeps this agent's presence in etcd as it is wanted, whoever removes it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::keys::Keys;
use super::link::Link;
use super::presence::{Presence, Seen};
use crate::patience::{Outage, Tally};

/// The pause after a put that failed while reads go well, as when the store is full.
const RETRY: Duration = Duration::from_secs(1);

/// Compares what is wanted with what is there, and repairs the difference.
pub(super) struct Keeper {
    /// What the agent wants to be known as; `None` until it says.
    wanted: watch::Receiver<Option<Presence>>,
    /// What etcd was last seen to say, if that is what was wanted; start-up waits for it.
    published: watch::Sender<Option<Presence>>,
    /// The presence last written: writing it again means that somebody else removed or changed it.
    written: Option<Presence>,
    /// No put of the same presence before this. Two agents with the same id would otherwise correct each
    /// other as fast as etcd can.
    not_before: Option<Instant>,
    /// Repairs of the same presence so far.
    repairs: Tally,
    /// Puts that fail.
    outage: Outage,
}

impl Keeper {
    /// A keeper between its two channels.
    pub(super) fn new(
        wanted: watch::Receiver<Option<Presence>>,
        published: watch::Sender<Option<Presence>>,
    ) -> Self {
        Self {
            wanted,
            published,
            written: None,
            not_before: None,
            repairs: Tally::default(),
            outage: Outage::default(),
        }
    }

    /// Waits until something else is wanted.
    pub(super) async fn wanted_changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            // The sender lives as long as the watcher's own handle; without it nothing can change any more.
            std::future::pending::<()>().await;
        }
    }

    /// When the next put is due, if one is being held back.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before
    }

    /// Repairs what differs, at most once per `interval` for the same presence. Says whether anything was
    /// written, so that the caller reads again. Never cut short by the caller: a put that was sent must have
    /// ended before the keys can be deleted for good.
    pub(super) async fn keep(
        &mut self,
        link: &mut Link,
        keys: &Keys,
        seen: &Seen,
        interval: Duration,
    ) -> bool {
        let Some(wanted) = self.wanted.borrow_and_update().clone() else { return false };
        let again = self.written.as_ref() == Some(&wanted);
        let puts = wanted.repairs(seen, keys);
        if puts.is_empty() {
            self.not_before = self.not_before.filter(|due| *due > Instant::now());
            let newly = self.published.send_replace(Some(wanted.clone())).as_ref() != Some(&wanted);
            if newly {
                tracing::info!(presence = %wanted, "presence is published in etcd");
            }
            return false;
        }
        self.published.send_replace(None);
        if again && self.not_before.is_some_and(|due| Instant::now() < due) {
            return false;
        }
        self.note_repair(again);
        self.written = Some(wanted);
        match link.put_all(puts).await {
            Ok(()) => {
                if let Some(past) = self.outage.worked(Instant::now()) {
                    tracing::info!(
                        seconds = past.seconds(),
                        failures = past.failures,
                        "presence could be written again"
                    );
                }
                self.not_before = Some(Instant::now() + interval);
                true
            }
            Err(error) => {
                if self.outage.failed(Instant::now()) {
                    tracing::warn!(%error, "presence can't be written to etcd; trying until it can");
                }
                self.not_before = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    fn note_repair(&mut self, again: bool) {
        if !again {
            self.repairs = Tally::default();
        } else if self.outage.failures() == 0
            && let Some(repairs) = self.repairs.more()
        {
            tracing::warn!(
                repairs,
                "this agent's keys in etcd were removed or changed; writing them again \
                 (if this goes on, look for another agent with the same instance id)"
            );
        }
    }
}
