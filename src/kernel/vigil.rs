//! Knowing at once that a container's first process ended, whatever Docker does.
//!
//! Docker frees a dead container's address and ports, and may give them to the next one before the agent hears of the
//! death: after a dockerd that was killed and started again it does. Sockets that still tried to connect then would
//! reach another kernel's runner, take its output and feed it this kernel's code. The kernel closes a pidfd's wait within
//! microseconds, and a new container takes a tenth of a second at least.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ids::ContainerId;
use crate::stats::is_process_of;

/// A wait for the end of one process.
pub(super) struct Vigil {
    /// Readable once the process has ended; `None` where the process can't be seen, as by an agent in a container.
    process: Option<AsyncFd<OwnedFd>>,
}

impl Vigil {
    /// Begins to watch the first process of a container.
    pub(super) fn over(pid: u32, container: &ContainerId) -> Self {
        let process = match open(pid) {
            // After opening: from here on it can't be another process of the same number.
            Ok(process) if is_process_of(pid, container) => Some(process),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(pid, %error, "can't watch a container's process; Docker tells of its end");
                None
            }
        };
        Self { process }
    }

    /// Waits until the process has ended; for ever where it can't be seen. May be cancelled and called again.
    pub(super) async fn ended(&self) {
        match &self.process {
            // An error means that the runtime stops.
            Some(process) => drop(process.readable().await),
            None => std::future::pending().await,
        }
    }
}

#[expect(
    deprecated,
    reason = "tokio's successor is an unsafe fn with the same body, and this crate has no unsafe code. \
              What it would have us promise (the descriptor outlives the AsyncFd) an OwnedFd keeps by itself"
)]
fn open(pid: u32) -> std::io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::empty())?, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_and_stays_noticed() {
        let mut child =
            std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let vigil = Vigil { process: Some(open(child.id()).unwrap()) };
        assert!(tokio::time::timeout(Duration::from_millis(50), vigil.ended()).await.is_err(), "it lives");
        drop(child.stdin.take());
        for _ in 0..2 {
            tokio::time::timeout(Duration::from_secs(10), vigil.ended()).await.expect("its end");
        }
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_is_not_the_container_s_is_not_watched() {
        let vigil = Vigil::over(std::process::id(), &ContainerId::new("0123456789abcdef"));
        assert!(vigil.process.is_none());
        assert!(Vigil::over(u32::MAX, &ContainerId::new("x")).process.is_none(), "no process");
    }
}
