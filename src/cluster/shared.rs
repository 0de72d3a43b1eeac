//! What handles of the cluster and its watcher share.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::ClusterConfig;
use super::keys::Keys;
use super::presence::Presence;
use super::settings::{Gaps, ManagerSettings};
use crate::patience::Backoff;

/// The pauses while no server answers.
pub(super) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// How things stand between etcd, the manager and this agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Whether etcd answered the last time it was asked; `false` before the first answer.
    pub etcd_reachable: bool,
    /// Why it did not; `None` while it answers, and before it was asked.
    pub etcd_trouble: Option<String>,
    /// Whether `nodes/manager` was there when etcd last answered.
    pub manager_present: bool,
    /// What is missing or bad among the settings.
    pub gaps: Gaps,
}

/// What handles and watcher share. It holds the senders, so that no receiver sees its channel closed while
/// any handle lives, even after the watcher ended.
pub(super) struct Shared {
    /// Where and how patiently.
    pub(super) config: ClusterConfig,
    /// This agent's names of keys.
    pub(super) keys: Keys,
    /// The manager's last known settings.
    pub(super) settings: watch::Sender<Option<ManagerSettings>>,
    /// How things stand.
    pub(super) status: watch::Sender<ClusterStatus>,
    /// What this agent wants to be known as; `None` until it says, and etcd is left alone.
    pub(super) wanted: watch::Sender<Option<Presence>>,
    /// What etcd says, if that is what was wanted.
    pub(super) published: watch::Sender<Option<Presence>>,
    /// Stops the watcher; a child of the agent's own token.
    pub(super) stop: CancellationToken,
    /// Cancelled when the watcher is over.
    pub(super) ended: CancellationToken,
}
