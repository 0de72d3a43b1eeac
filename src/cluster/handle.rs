//! The handle of the cluster, and its calls to etcd in the caller's own task.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catalogue::Catalogue;
use super::config::ClusterConfig;
use super::keys::{self, Keys};
use super::link::{ClusterError, Link};
use super::presence::Presence;
use super::settings::ManagerSettings;
use super::shared::{BACKOFF, ClusterStatus, Shared};
use super::watcher::Watcher;
use crate::ids::InstanceId;

/// A handle to the cluster; clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
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
                tracing::info!("left etcd: this agent's keys are removed");
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
    pub(super) fn namespace(&self) -> &str {
        &self.shared.config.namespace
    }

    /// Makes one call with the first server that can serve it; the last failure if none can.
    async fn with_any_server<T, F>(&self, call: impl Fn(Link) -> F) -> Result<T, ClusterError>
    where
        F: Future<Output = Result<T, ClusterError>>,
    {
        let mut last = ClusterError::NoEndpoint;
        let config = &self.shared.config;
        for endpoint in &config.endpoints {
            let attempt = async {
                let link = Link::open(endpoint, config.call_deadline, &config.access).await?;
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
