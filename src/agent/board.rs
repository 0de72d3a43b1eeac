//! Where the agent's conditions are kept: set by whoever watches a need, read by heartbeats, creates, pages and figures.
//!
//! Each need is followed by one task, level-triggered: it looks at what its room publishes in a `watch` and says how the need
//! is met now. A change is one log line, here and nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::conditions::{Change, Conditions, Cost, Moment, Need};
use crate::kernel::notes::unix_now;

/// After how long without a heartbeat the manager gives a node up (PROTOCOL section 4).
const BEATS_LIMIT: Duration = Duration::from_secs(5);

/// The agent's conditions; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<watch::Sender<Conditions>>);

impl Board {
    /// What there is to read.
    pub(super) fn conditions(&self) -> watch::Receiver<Conditions> {
        self.0.subscribe()
    }

    /// Says how a need is met: `None`, or why it is not.
    pub(super) fn set(&self, need: Need, unmet: Option<String>) {
        let now = Moment { at: Instant::now(), unix: unix_now() };
        let mut change = None;
        self.0.send_if_modified(|conditions| {
            let before = conditions.clone();
            change = conditions.set(need, unmet.clone(), now);
            *conditions != before
        });
        if let Some(change) = change {
            tell(need, &change, &unmet.unwrap_or_default());
        }
    }

    /// The start waits for this. Other lines tell of it as it goes on.
    pub(super) fn starting(&self, waits_for: &str) {
        let now = Moment { at: Instant::now(), unix: unix_now() };
        self.0.send_modify(|conditions| {
            let _: Option<Change> = conditions.set(Need::Start, Some(waits_for.to_owned()), now);
        });
    }

    /// Says what a room publishes of a need, and follows it for as long as it is published.
    pub(super) fn follow<T, F>(
        &self,
        need: Need,
        mut published: watch::Receiver<T>,
        unmet: F,
    ) -> impl Future<Output = ()> + Send + use<T, F>
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> Option<String> + Send + 'static,
    {
        let board = self.clone();
        let first = unmet(&published.borrow_and_update());
        board.set(need, first);
        async move {
            while published.changed().await.is_ok() {
                let now = unmet(&published.borrow_and_update());
                board.set(need, now);
            }
        }
    }

    /// The same for heartbeats, which count by the time that has passed since the last one. `trouble`: what keeps them from
    /// leaving, as far as that is known.
    pub(super) async fn follow_beats(
        self,
        mut last: watch::Receiver<Option<Instant>>,
        trouble: watch::Receiver<Option<String>>,
    ) {
        let begun = tokio::time::Instant::now();
        loop {
            let at = *last.borrow_and_update();
            let limit = at.map_or(begun, Into::into) + BEATS_LIMIT;
            if at.is_some() {
                self.set(Need::Events, None);
            }
            match timeout_at(limit, last.changed()).await {
                Ok(Ok(())) => continue,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
            let limit = BEATS_LIMIT.as_secs();
            let why = trouble.borrow().as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
            let reason = format!(
                "no heartbeat has arrived at the manager for {limit} s: it has given this node up{why}"
            );
            self.set(Need::Events, Some(reason));
            if last.changed().await.is_err() {
                return;
            }
        }
    }
}

/// One line for each change.
fn tell(need: Need, change: &Change, reason: &str) {
    let condition = need.name();
    let seconds = |lasted: &Duration| format!("{:.1}", lasted.as_secs_f64());
    match (change, need, need.cost()) {
        (Change::Back(lasted), Need::Start, _) => {
            tracing::info!(condition, took_s = seconds(lasted), "started");
        }
        (Change::Back(lasted), _, Cost::Slots) => {
            tracing::info!(condition, away_s = seconds(lasted), "what took the slots away is over");
        }
        (Change::Back(lasted), _, Cost::Ready) => {
            tracing::info!(
                condition,
                away_s = seconds(lasted),
                "what kept the agent from being ready is over"
            );
        }
        // Somebody wanted it so.
        (Change::Lost, Need::Undrained, _) => {
            tracing::info!(condition, reason, "no slots until this is over");
        }
        (Change::Lost, _, Cost::Slots) => tracing::error!(condition, reason, "no slots until this is over"),
        (Change::Lost, _, Cost::Ready) => tracing::warn!(condition, reason, "not ready until this is over"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(board: &Board, need: Need) -> Option<bool> {
        board.conditions().borrow().list().iter().find(|c| c.name == need).map(|c| c.ok)
    }

    #[tokio::test]
    async fn a_need_is_known_at_once_and_followed() {
        let (board, (docker, published)) = (Board::default(), watch::channel(true));
        let following = board.follow(Need::Docker, published, |ok| (!ok).then(|| "away".to_owned()));
        assert_eq!(ok(&board, Need::Docker), Some(true));
        let following = tokio::spawn(following);
        let mut conditions = board.conditions();
        docker.send_replace(false);
        let lost = conditions.wait_for(|all| !all.offers_slots()).await;
        assert_eq!(lost.map(|all| all.list()[0].reason.clone()).ok().as_deref(), Some("away"));
        docker.send_replace(true);
        assert!(conditions.wait_for(Conditions::offers_slots).await.is_ok());
        drop(docker);
        following.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_that_stay_away_are_noticed_after_five_seconds() {
        let (board, (beat, last)) = (Board::default(), watch::channel(None));
        let (_server, trouble) = watch::channel(Some("refused".to_owned()));
        let following = tokio::spawn(board.clone().follow_beats(last, trouble));
        let mut conditions = board.conditions();
        let begun = tokio::time::Instant::now();
        let is_lost = |all: &Conditions| all.unmet().any(|c| c.name == Need::Events);
        conditions.wait_for(is_lost).await.unwrap();
        assert_eq!(begun.elapsed(), BEATS_LIMIT, "none has arrived at all");
        assert!(conditions.borrow().list()[0].reason.ends_with("given this node up; refused"));
        beat.send_replace(Some(tokio::time::Instant::now().into_std()));
        conditions.wait_for(|all| !is_lost(all)).await.unwrap();
        let begun = tokio::time::Instant::now();
        conditions.wait_for(is_lost).await.unwrap();
        assert!(begun.elapsed() >= BEATS_LIMIT && begun.elapsed() < BEATS_LIMIT * 2, "{:?}", begun.elapsed());
        drop(beat);
        following.await.unwrap();
    }
}
