//! Bounded waits that look at a state again and again, so that a state reached early is never missed.

use std::time::Duration;

use tokio::time::Instant;

/// How often a state is looked at.
pub(crate) const STEP: Duration = Duration::from_millis(20);

/// Calls `look` until it answers `Some`; panics with `what` when `limit` has passed.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up after {limit:?} waiting for: {what}");
        tokio::time::sleep(STEP).await;
    }
}
