//! What systemd is told of this agent, where it is `Type=notify`: that it holds what it needs of this machine, what it waits
//! for, that it is alive, and that it stops. Nobody else listens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conditions::{Conditions, Need};

/// The agent holds its ports and locks. From now on systemd hears of `conditions` until `stop`, and that the runtime is alive
/// until the agent's `end`.
pub(super) fn ready(
    conditions: watch::Receiver<Conditions>,
    stop: &CancellationToken,
    end: &CancellationToken,
    tracker: &TaskTracker,
) {
    tell(&[NotifyState::Ready]);
    let (stop, ended) = (stop.clone(), end.clone());
    tracker.spawn(async move {
        tokio::select! {
            () = follow(conditions) => {}
            () = stop.cancelled() => tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]),
            () = ended.cancelled() => {}
        }
    });
    if let Some(limit) = sd_notify::watchdog_enabled() {
        let end = end.clone();
        let pings = ping(limit, || tell(&[NotifyState::Watchdog]));
        tracker.spawn(async move { end.run_until_cancelled(pings).await });
    }
}

/// The stop will take so long from now on, at most.
pub(super) fn stop_takes(limit: Duration) {
    tell(&[NotifyState::ExtendTimeoutUsec(limit.as_micros().try_into().unwrap_or(u32::MAX))]);
}

/// Tells each status that differs from the one before, for as long as there are any.
async fn follow(mut conditions: watch::Receiver<Conditions>) {
    let mut told = String::new();
    loop {
        let status = status(&conditions.borrow_and_update());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if conditions.changed().await.is_err() {
            return;
        }
    }
}

/// One line for `systemctl status`.
fn status(conditions: &Conditions) -> String {
    let is_starting = conditions.unmet().any(|condition| condition.name == Need::Start);
    let reasons: Vec<_> = conditions.unmet().map(|condition| condition.reason.as_str()).collect();
    let reasons = reasons.join("; ");
    let text = match (is_starting, conditions.offers_slots(), reasons.is_empty()) {
        (true, ..) => reasons,
        (false, _, true) => "serving".to_owned(),
        (false, true, false) => format!("serving; {reasons}"),
        (false, false, false) => format!("serving without slots; {reasons}"),
    };
    // A line of its own would be another statement.
    text.replace(char::is_control, " ")
}

/// Pings twice in each `limit`, from a task: a runtime that is stuck runs none.
async fn ping(limit: Duration, ping: impl Fn()) {
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        ping();
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "could not tell systemd");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::conditions::Moment;

    #[test]
    fn a_status_is_one_line() {
        let status = |unmet: &[(Need, &str)]| {
            let (mut conditions, now) =
                (Conditions::default(), Moment { at: std::time::Instant::now(), unix: 0 });
            conditions.set(Need::Start, None, now);
            for (need, reason) in unmet {
                conditions.set(*need, Some((*reason).to_owned()), now);
            }
            status(&conditions)
        };
        assert_eq!(status(&[]), "serving");
        assert_eq!(status(&[(Need::Etcd, "etcd does not answer")]), "serving; etcd does not answer");
        assert_eq!(status(&[(Need::Disk, "full")]), "serving without slots; full");
        let starting = [(Need::Start, "waiting for Docker"), (Need::Redis, "a\nMAINPID=1")];
        assert_eq!(status(&starting), "waiting for Docker; a MAINPID=1");
    }

    /// Everything that could run tasks is taken: the pings end, and go on when the runtime does.
    #[test]
    fn a_stuck_runtime_does_not_ping() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let pings = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pings);
        runtime.spawn(ping(Duration::from_millis(4), move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let more_than = |n| {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while pings.load(Ordering::SeqCst) <= n {
                assert!(std::time::Instant::now() < deadline, "no ping");
                std::thread::yield_now();
            }
        };
        more_than(3);
        let (stuck, free) = (Arc::new(std::sync::Barrier::new(3)), Arc::new(std::sync::Barrier::new(3)));
        for _ in 0..2 {
            let (stuck, free) = (Arc::clone(&stuck), Arc::clone(&free));
            runtime.spawn(async move { (stuck.wait(), free.wait()) });
        }
        stuck.wait();
        let before = pings.load(Ordering::SeqCst);
        // Long enough for 50 pings.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(pings.load(Ordering::SeqCst), before);
        free.wait();
        more_than(before);
    }
}
