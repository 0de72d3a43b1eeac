//! The last words of a runner, when its agent stops and the next one goes on with it.
//!
//! A PUSH loses what it was handed and has not written when its connection closes, the end of a run among it, and nobody can ask
//! for that again. So the connection is closed late and softly. A run that has begun a moment ago is heard to its end, since
//! that is likely to come now. Then this side alone is closed: the runner's ZeroMQ notices, closes its own side, and the system
//! brings over what had been written until then. Lost is only what the runner hands to its ZeroMQ between this and its
//! noticing, about a millisecond.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::hearing::{handle, skip};
use super::intake::Intake;
use super::shared::Shared;
use crate::patience::Tally;

/// How long a stop listens.
const LISTENS: Duration = Duration::from_millis(500);
/// A runner from which nothing comes for so long has nothing on its way,
const QUIET: Duration = Duration::from_millis(30);
/// unless its run began less than so long ago: then its end is waited for until then.
const YOUNG: Duration = Duration::from_millis(400);
/// How long the connection may take to close.
const CLOSES: Duration = Duration::from_millis(300);
/// Up to so many bytes a run's output grows by what the system still held for a buffer that was full.
const REST: usize = 16 * 1024 * 1024;

/// Hears what the runner has to say until the connection to it is closed.
pub(super) async fn hear_out(intake: &mut Intake, shared: &Shared, skipped: &mut Tally) {
    listen(intake, shared, skipped).await;
    if !intake.part().await {
        return;
    }
    let closing = async {
        while shared.runs().current_bytes() < REST {
            let Some(message) = intake.rest().await else { return };
            handle(shared, &message, skipped);
        }
    };
    if timeout(CLOSES, closing).await.is_err() {
        tracing::debug!(kernel = %shared.kernel, "the runner did not close its side of the connection in time");
    }
}

/// Until nothing comes for a moment and no end is likely to come soon, or the buffer is full.
async fn listen(intake: &mut Intake, shared: &Shared, skipped: &mut Tally) {
    let deadline = Instant::now() + LISTENS;
    loop {
        let now = Instant::now();
        let (may_read, ends) = {
            let runs = shared.runs();
            (runs.may_read(), runs.may_end_until(YOUNG))
        };
        if !may_read || now >= deadline {
            return;
        }
        let until = ends.map_or(now + QUIET, |ends| ends.max(now + QUIET)).min(deadline);
        match timeout(until - now, intake.recv()).await {
            Ok(Ok(message)) => handle(shared, &message, skipped),
            Ok(Err(broken)) => skip(shared, &broken, skipped),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::Bytes;
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;
    use crate::ids::{KernelId, RunId};
    use crate::runner::code::GoingRun;
    use crate::runner::runs::Runs;
    use crate::zmtp::{Caps, Connection, KeepAlive, Kind, frame};

    /// What a runner does that notices the end of a connection.
    enum Runner {
        /// Had written its run's end before.
        HasWritten,
        /// Writes its run's end so long after the begin, if the connection stands then.
        EndsAfter(Duration),
    }

    /// Whether the end of the run is heard that such a runner has begun just now.
    async fn is_end_heard(runner: Runner) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let kernel = KernelId::random();
        let going = GoingRun { run: Some(RunId::new("run")), ..GoingRun::default() };
        let shared = Shared::new(kernel, Runs::taken_over(Some(going), Vec::new(), Instant::now()));
        let mut intake = Intake::new(kernel, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let finished = frame::message(&[Bytes::from("finished"), Bytes::from(r#"{"exitCode": 0}"#)]);
        let answering = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection =
                Connection::greet(stream, Kind::Push, Caps::commands(), KeepAlive::default()).await.unwrap();
            match runner {
                Runner::HasWritten => assert!(connection.recv().await.is_err(), "it is told to stop"),
                Runner::EndsAfter(pause) => tokio::select! {
                    _ = connection.recv() => return,
                    () = sleep(pause) => {}
                },
            }
            connection.put(finished);
            connection.flush().await.unwrap();
        };
        let mut skipped = Tally::default();
        let both = async { tokio::join!(hear_out(&mut intake, &shared, &mut skipped), answering) };
        timeout(Duration::from_secs(20), both).await.expect("timed out");
        shared.runs().activity().run.is_none()
    }

    #[tokio::test]
    async fn what_had_been_written_comes_over_while_the_connection_closes() {
        assert!(is_end_heard(Runner::HasWritten).await);
    }

    #[tokio::test]
    async fn the_end_of_a_run_that_began_a_moment_ago_is_waited_for() {
        assert!(is_end_heard(Runner::EndsAfter(3 * QUIET)).await);
        assert!(!is_end_heard(Runner::EndsAfter(Duration::from_secs(10))).await, "a stop waits for no other");
    }
}
