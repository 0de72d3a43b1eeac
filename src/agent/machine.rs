//! Whether a stop of the agent is the machine's own: a reboot, a power-off.
//!
//! Only systemd knows. `systemctl` asks it over whatever way there is (its private socket for root, D-Bus for others),
//! which no file tells and no small library does; a machine without it gets no answer, and then the next boot tells
//! (`kernel::fate`).

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long the answer may take. It needs milliseconds, but a machine that goes down stops everything at once, and a slow
/// one was seen to take over a second; the unit's `TimeoutStopSec` leaves room.
const LIMIT: Duration = Duration::from_secs(3);

/// Whether the machine is going down, as far as anybody tells.
pub(super) async fn is_going_down() -> bool {
    let mut asking = Command::new("systemctl");
    asking.arg("is-system-running").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(LIMIT, asking.output()).await {
        Ok(Ok(answer)) => is_stopping(&answer.stdout),
        Ok(Err(error)) => {
            tracing::debug!(%error, "can't ask systemd whether the machine is going down");
            false
        }
        Err(_) => {
            tracing::warn!(
                "systemd does not say whether the machine is going down; taking it that it is not"
            );
            false
        }
    }
}

/// `stopping`: the manager of the system is shutting down (`systemctl(1)`), from the moment in which it was told to.
fn is_stopping(answer: &[u8]) -> bool {
    answer.trim_ascii() == b"stopping"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_system_that_shuts_down_is_going_down() {
        assert!(is_stopping(b"stopping\n"));
        for other in
            ["", "running\n", "degraded\n", "maintenance\n", "offline\n", "unknown\n", "not stopping"]
        {
            assert!(!is_stopping(other.as_bytes()), "{other}");
        }
    }
}
