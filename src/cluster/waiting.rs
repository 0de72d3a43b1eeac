//! Waiting for the manager, patiently, with a log that stays short.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::Cluster;
use super::settings::ManagerSettings;
use super::shared::ClusterStatus;

/// At most one line in this time tells what is being waited for.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Keeps the lines apart.
#[derive(Debug, Default)]
struct Teller {
    /// What the last line said, and when. `None` before the first.
    told: Option<(String, Instant)>,
}

impl Teller {
    /// Whether `reason` is to be logged now: it is news, and the last line is old enough.
    fn is_due(&mut self, reason: &str, now: Instant) -> bool {
        let due = match &self.told {
            None => true,
            Some((told, at)) => told != reason && now.duration_since(*at) >= LINE_EVERY,
        };
        if due {
            self.told = Some((reason.to_owned(), now));
        }
        due
    }
}

impl Cluster {
    /// The manager's settings, as soon as they are complete for the first time. Never gives up: a caller that
    /// may be stopped races this against its own signal. Dropping it loses nothing.
    ///
    /// The log says at once what is wanting, and again when that changed, once a minute at most.
    pub async fn wait_for_manager(&self) -> ManagerSettings {
        let mut settings = self.settings();
        let mut status = self.status();
        let mut teller = Teller::default();
        loop {
            if let Some(settings) = settings.borrow_and_update().clone() {
                return settings;
            }
            if let Some(reason) = reason(&status.borrow_and_update())
                && teller.is_due(&reason, Instant::now())
            {
                tracing::info!(%reason, namespace = %self.namespace(), "waiting for the manager");
            }
            // Neither channel closes while this handle lives. The tick tells of a change that came too soon
            // after the last line.
            tokio::select! {
                _ = settings.changed() => {}
                _ = status.changed() => {}
                () = tokio::time::sleep(LINE_EVERY) => {}
            }
        }
    }
}

/// Why there are no settings yet; `None` as long as nothing is known.
fn reason(status: &ClusterStatus) -> Option<String> {
    if !status.etcd_reachable {
        // The lost connection has its own line in the log.
        return None;
    }
    (!status.gaps.is_empty()).then(|| status.gaps.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_at_once_then_only_news_and_not_within_a_minute() {
        let mut teller = Teller::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(teller.is_due("a", start));
        assert!(!teller.is_due("b", after(59)));
        assert!(teller.is_due("b", after(60)));
        assert!(!teller.is_due("b", after(600)));
        assert!(teller.is_due("a", after(601)));
    }
}
