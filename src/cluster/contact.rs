//! Whether etcd answers, told to the log once when that changes and not at every attempt.

use std::time::Duration;

use tokio::time::Instant;

use super::ClusterError;

/// The story of the connection to etcd.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// Since when nothing has answered; `None` while etcd answers. Measures how long it was gone.
    lost_since: Option<Instant>,
    /// Attempts that failed in a row, over all endpoints; drives the pauses.
    failures: u32,
    /// Whether it has ever answered: the first contact is worth a line of its own.
    met: bool,
}

impl Contact {
    /// An attempt failed. Gives the pause round, if every one of `endpoints` servers has failed in a row.
    pub(super) fn failed(&mut self, error: &ClusterError, endpoints: usize) -> Option<u32> {
        self.failures = self.failures.saturating_add(1);
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
        if !self.failures.is_multiple_of(endpoints) {
            tracing::debug!(%error, "an etcd server failed; trying the next");
            return None;
        }
        if self.lost_since.is_none() {
            self.lost_since = Some(Instant::now());
            tracing::warn!(%error, "etcd can't be reached; trying until it answers");
        } else {
            tracing::debug!(%error, failures = self.failures, "etcd still can't be reached");
        }
        Some(self.failures / endpoints - 1)
    }

    /// etcd answered. Gives for how long it had been gone.
    pub(super) fn reached(&mut self) -> Option<Duration> {
        let failures = std::mem::take(&mut self.failures);
        let met = std::mem::replace(&mut self.met, true);
        let gone = self.lost_since.take().map(|since| since.elapsed());
        match gone {
            Some(gone) => {
                let gone_s = format!("{:.1}", gone.as_secs_f64());
                tracing::info!(gone_s, failures, "etcd answers again");
            }
            None if !met => tracing::info!("etcd answers"),
            None => {}
        }
        gone
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
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), Some(0));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), None);
        assert_eq!(contact.failed(&ClusterError::NoEndpoint, 2), Some(1));
        assert_eq!(contact.reached(), Some(Duration::from_secs(7)));
        assert_eq!(contact.reached(), None);
    }

    #[test]
    fn without_any_server_it_is_lost_at_once() {
        assert_eq!(Contact::default().failed(&ClusterError::NoEndpoint, 0), Some(0));
    }
}
