//! Signals: which of them end the agent, and how soon.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::reload::Reload;
use crate::agent::{Stop, WITH_KERNELS};
use crate::telemetry::Telemetry;

/// The stop has limits for each of its steps, which stay below this together; a disk or a log that hangs has none. One that ends the
/// kernels has [`WITH_KERNELS`].
const STOP_LIMIT: Duration = Duration::from_millis(4700);

/// What log lines and reports get where the process has to end at once.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Signals that come sooner after the first are a part of it: supervisors and terminals signal a process and its group,
/// with two signals at times.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To stop in order.
    Stop,
    /// What was asked for already.
    Again,
    /// To end, whatever is open.
    AtOnce,
}

/// What `SIGTERM` and `SIGINT` have asked for so far.
#[derive(Debug, Default)]
struct Requests {
    /// When the first came.
    first: Option<Instant>,
}

impl Requests {
    /// One more.
    fn heard(&mut self, now: Instant) -> Asked {
        match self.first {
            None => {
                self.first = Some(now);
                Asked::Stop
            }
            Some(first) if now.duration_since(first) < ONE_REQUEST => Asked::Again,
            Some(_) => Asked::AtOnce,
        }
    }
}

/// Listens for signals from now on: the first `SIGTERM` or `SIGINT` asks for the `stop`, and ends the process when that hangs; a
/// later one ends the process at once. `SIGHUP` has the settings read anew.
pub(super) fn listen(stop: Stop, telemetry: &Arc<Telemetry>, reload: Reload) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (telemetry, reload) = (Arc::clone(telemetry), Arc::new(reload));
    tokio::spawn(async move {
        let mut requests = Requests::default();
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => {
                    let reload = Arc::clone(&reload);
                    // In a thread of its own: a path among the settings may hang, and the next signal may be to stop.
                    tokio::task::spawn_blocking(move || reload.reload());
                    continue;
                }
            };
            match requests.heard(Instant::now()) {
                Asked::Stop => {
                    tracing::info!(signal, "asked to stop");
                    end_if_it_hangs(stop.clone(), &telemetry);
                    stop.asked.cancel();
                }
                Asked::Again => tracing::debug!(signal, "asked to stop once more"),
                Asked::AtOnce => {
                    tracing::warn!(
                        signal,
                        "a second signal: stopping at once; the next start finishes what is open"
                    );
                    telemetry.close(LAST_WORDS);
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(())
}

/// Ends the process whatever hangs. A thread of its own: the runtime may hang, too.
fn end_if_it_hangs(stop: Stop, telemetry: &Arc<Telemetry>) {
    let telemetry = Arc::clone(telemetry);
    let ending = std::thread::Builder::new().name("stop-limit".to_owned()).spawn(move || {
        std::thread::sleep(STOP_LIMIT);
        if stop.ends_kernels.is_cancelled() {
            std::thread::sleep(WITH_KERNELS.saturating_sub(STOP_LIMIT));
        }
        tracing::error!("the stop hangs; ending without it, the next start finishes what is open");
        telemetry.close(LAST_WORDS);
        std::process::exit(1);
    });
    if let Err(error) = ending {
        tracing::warn!(%error, "could not limit the time of the stop");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_half_a_second_after_the_first_means_at_once() {
        let (mut requests, first) = (Requests::default(), Instant::now());
        let mut after = |ms| requests.heard(first + Duration::from_millis(ms));
        assert_eq!(after(0), Asked::Stop);
        assert_eq!(after(0), Asked::Again);
        assert_eq!(after(499), Asked::Again);
        assert_eq!(after(500), Asked::AtOnce);
    }
}
