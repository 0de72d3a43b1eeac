//! etcd: what the manager tells, whether it is there, what this agent says of itself, the image catalogue.
//!
//! One task, the watcher (`cluster/watcher.rs`), runs from [`Cluster::start`] until the agent's cancellation
//! or [`Cluster::retract`]. It alone talks to etcd all the time, and it owns what it learned:
//!
//! | channel | from → to | holds |
//! | --- | --- | --- |
//! | `settings` (`watch`) | watcher → everybody | the manager's last known settings |
//! | `status` (`watch`) | watcher → everybody | whether etcd answers and the manager is there, and what is wanting |
//! | `wanted` (`watch`) | [`Cluster::set_presence`] → watcher | what this agent wants to be known as |
//! | `published` (`watch`) | watcher → [`Cluster::presence_published`] | what etcd says of it |
//! | `stop`, `ended` (tokens) | [`Cluster::retract`] ↔ watcher | no put may follow the delete |
//!
//! Settings and presence are kept by the same task since both come from the same read: every few seconds, at
//! every event of a watch, and after every trouble, all keys are read again at one revision. Readers look at
//! a `watch` and never wait for etcd. [`Cluster::catalogue`] and [`Cluster::retract`] use connections of
//! their own, in their caller's task.

mod catalogue;
mod contact;
mod keeper;
mod keys;
mod link;
mod presence;
mod settings;
mod waiting;
mod watcher;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::HostPort;
use crate::ids::InstanceId;
use crate::patience::Backoff;

pub use catalogue::{Catalogue, CatalogueImage, Tag};
pub use link::{ClusterError, Link, Step};
#[cfg(feature = "rooms")]
pub use link::{Reading, Watching};
pub use presence::Presence;
pub use settings::{BadValue, Gaps, ManagerSettings};

use keys::Keys;
use watcher::Watcher;

/// The pauses while no server answers.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// How to reach the cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The etcd servers, of one etcd cluster; the next is used when one fails. A name is looked up at every
    /// new connection, and all its addresses are tried.
    pub endpoints: Vec<HostPort>,
    /// Keys live below `/sorna/{namespace}/`.
    pub namespace: String,
    /// The time that one call gets, connecting included.
    pub call_deadline: Duration,
    /// How often the state is read though nothing was heard of; how fast a hung server is noticed (this and
    /// one deadline), and how often at most the same presence is written.
    pub check_every: Duration,
}

impl ClusterConfig {
    /// A configuration with the usual limits: 3 s for a call, a check every 5 s.
    #[must_use]
    pub fn new(endpoints: Vec<HostPort>, namespace: impl Into<String>) -> Self {
        Self {
            endpoints,
            namespace: namespace.into(),
            call_deadline: Duration::from_secs(3),
            check_every: Duration::from_secs(5),
        }
    }
}

/// How things stand between etcd, the manager and this agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Whether etcd answered the last time it was asked; `false` before the first answer.
    pub etcd_reachable: bool,
    /// Whether `nodes/manager` was there when etcd last answered.
    pub manager_present: bool,
    /// What is missing or bad among the settings.
    pub gaps: Gaps,
}

/// A handle to the cluster; clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// What handles and watcher share. It holds the senders, so that no receiver sees its channel closed while
/// any handle lives, even after the watcher ended.
struct Shared {
    /// Where and how patiently.
    config: ClusterConfig,
    /// This agent's names of keys.
    keys: Keys,
    /// The manager's last known settings.
    settings: watch::Sender<Option<ManagerSettings>>,
    /// How things stand.
    status: watch::Sender<ClusterStatus>,
    /// What this agent wants to be known as; `None` until it says, and etcd is left alone.
    wanted: watch::Sender<Option<Presence>>,
    /// What etcd says, if that is what was wanted.
    published: watch::Sender<Option<Presence>>,
    /// Stops the watcher; a child of the agent's own token.
    stop: CancellationToken,
    /// Cancelled when the watcher is over.
    ended: CancellationToken,
}

impl Cluster {
    /// Starts the watcher and returns at once, whether etcd is there or not.
    #[must_use]
    pub fn start(
        config: ClusterConfig,
        instance: &InstanceId,
        cancel: &CancellationToken,
        tracker: &TaskTracker,
    ) -> Self {
        let shared = Arc::new(Shared {
            keys: Keys::new(&config.namespace, instance),
            config,
            settings: watch::Sender::default(),
            status: watch::Sender::default(),
            wanted: watch::Sender::default(),
            published: watch::Sender::default(),
            stop: cancel.child_token(),
            ended: CancellationToken::new(),
        });
        tracker.spawn(Watcher::new(Arc::clone(&shared)).run());
        Self { shared }
    }

    /// The manager's settings: `None` until they were complete for the first time, then its last known ones,
    /// also while it is gone.
    #[must_use]
    pub fn settings(&self) -> watch::Receiver<Option<ManagerSettings>> {
        self.shared.settings.subscribe()
    }

    /// How things stand; for health reports and for the log.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ClusterStatus> {
        self.shared.status.subscribe()
    }

    /// Sets what etcd is to say of this agent from now on. It is written as soon as etcd can be reached, and
    /// again whenever it is found missing or changed. Without effect after [`Cluster::retract`].
    pub fn set_presence(&self, presence: Presence) {
        self.shared.wanted.send_replace(Some(presence));
    }

    /// Waits until etcd was seen to say what was last set. May take for ever: bound it with a time limit.
    /// Returns at once if nothing was set.
    pub async fn presence_published(&self) {
        let Some(wanted) = self.shared.wanted.borrow().clone() else { return };
        let mut published = self.shared.published.subscribe();
        // The sender lives in this handle, so the channel does not close.
        let _ = published.wait_for(|published| published.as_ref() == Some(&wanted)).await;
    }

    /// Leaves etcd: stops the watcher and deletes this agent's keys, trying until `deadline` has passed. The
    /// settings stay readable as they were last. Works as well after the agent's token was cancelled.
    pub async fn retract(&self, deadline: Duration) -> Result<(), ClusterError> {
        let until = Instant::now() + deadline;
        self.shared.stop.cancel();
        let mut last = None;
        let attempts = async {
            // A put that is still under way would bring the keys back.
            self.shared.ended.cancelled().await;
            for failures in 1.. {
                let key = self.shared.keys.agent_state();
                let beneath = self.shared.keys.agent_children();
                match self
                    .with_any_server(|mut link| {
                        let (key, beneath) = (key.clone(), beneath.clone());
                        async move { link.delete(&key, &beneath).await }
                    })
                    .await
                {
                    Ok(()) => return,
                    Err(error) => last = Some(Box::new(error)),
                }
                tokio::time::sleep(BACKOFF.pause(failures)).await;
            }
        };
        match tokio::time::timeout_at(until, attempts).await {
            Ok(()) => {
                tracing::info!("this agent's keys are gone from etcd");
                Ok(())
            }
            Err(_) => Err(ClusterError::Retract { limit: deadline, source: last }),
        }
    }

    /// Reads the image catalogue, in this moment's state.
    pub async fn catalogue(&self) -> Result<Catalogue, ClusterError> {
        let keys = &self.shared.keys;
        let prefix = keys.full(keys::IMAGES);
        let entries = self
            .with_any_server(|mut link| {
                let prefix = prefix.clone();
                async move { link.read_prefix(&prefix).await }
            })
            .await?;
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| (String::from_utf8_lossy(key), String::from_utf8_lossy(value)))
            .collect();
        Ok(Catalogue::parse(
            entries.iter().map(|(key, value)| (keys.relative(key).unwrap_or(key), value.as_ref())),
        ))
    }

    /// The namespace, for log lines.
    fn namespace(&self) -> &str {
        &self.shared.config.namespace
    }

    /// Makes one call with the first server that can serve it; the last failure if none can.
    async fn with_any_server<T, F>(&self, call: impl Fn(Link) -> F) -> Result<T, ClusterError>
    where
        F: Future<Output = Result<T, ClusterError>>,
    {
        let mut last = ClusterError::NoEndpoint;
        for endpoint in &self.shared.config.endpoints {
            let attempt = async {
                let link = Link::open(endpoint, self.shared.config.call_deadline).await?;
                call(link).await
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
