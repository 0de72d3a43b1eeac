//! Whether etcd answers. That it doesn't any more, and for how long it didn't, is told by whoever reads the cluster's status.

use std::time::Duration;

use tokio::time::Instant;

use super::link::ClusterError;
use crate::patience::Outage;

/// The story of the connection to etcd.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// Rounds in which no server answered.
    outage: Outage,
    /// Servers that failed one after the other in this round.
    failed: usize,
    /// Whether it has ever answered: the first contact is worth a line of its own.
    met: bool,
}

impl Contact {
    /// An attempt failed. Once every one of `endpoints` servers has failed, gives the number of such rounds in a row.
    pub(super) fn failed(&mut self, error: &ClusterError, endpoints: usize) -> Option<u32> {
        self.failed += 1;
        if self.failed < endpoints {
            tracing::debug!(%error, "an etcd server failed; trying the next");
            return None;
        }
        self.failed = 0;
        let _: bool = self.outage.failed(Instant::now());
        tracing::debug!(%error, failures = self.outage.failures(), "etcd can't be reached");
        Some(self.outage.failures())
    }

    /// etcd answered. Gives for how long it had been gone.
    pub(super) fn reached(&mut self) -> Option<Duration> {
        self.failed = 0;
        let met = std::mem::replace(&mut self.met, true);
        let past = self.outage.worked(Instant::now());
        if let Some(past) = past {
            tracing::debug!(seconds = past.seconds(), failures = past.failures, "etcd answers again");
        } else if !met {
            tracing::info!("etcd answers");
        }
        past.map(|past| past.lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_lost_when_every_server_failed_and_found_with_the_time_it_was_gone() {
        let mut contact = Contact::default();
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), None);
        assert_eq!(contact.reached(), None);
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), None);
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), Some(1));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), None);
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), Some(2));
        assert_eq!(contact.reached(), Some(Duration::from_secs(7)));
        assert_eq!(contact.reached(), None);
    }

    #[test]
    fn without_any_server_it_is_lost_at_once() {
        assert_eq!(Contact::default().failed(&ClusterError::NoEndpoint, 0), Some(1));
    }
}
