//! The newest part of a container's log.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use tracing::debug;

use super::connection::raw_get;
use super::log_tail::{Framing, Lines, Tail};
use super::{Docker, DockerError, names};
use crate::ids::ContainerId;

impl Docker {
    /// The newest `max_bytes` of what a container wrote to stdout and stderr, as bytes: a character may be cut at
    /// the beginning, and nothing was decoded.
    ///
    /// The engine counts in lines, so a few lines are asked for, then as many as their length suggests; no more
    /// than `max_bytes` are held, however long the log is. When `limit` runs out the newest bytes read so far are
    /// the answer, and only an engine that gave none makes it an error.
    pub async fn logs_tail(
        &self,
        id: &ContainerId,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Vec<u8>, DockerError> {
        let until = Instant::now() + limit;
        let step = names::checked_name(format!("read the log of container {}", id.short()), id.as_str())?;
        let container =
            self.inspect_within(id.as_str(), limit.min(self.deadlines.quick)).await?.ok_or_else(|| {
                DockerError::NoSuchContainer { step: step.clone(), message: id.short().to_owned() }
            })?;

        let mut complete: Option<Tail> = None;
        let mut lines = Lines::FIRST;
        loop {
            let mut tail = Tail::new(max_bytes);
            let reading = self.read_log(step.clone(), id, container.tty, lines, &mut tail);
            let failure = match tokio::time::timeout_at(until, reading).await {
                Ok(Ok(())) => match tail.next_question(lines) {
                    None => return Ok(tail.into_bytes()),
                    Some(more) => {
                        debug!(container = id.short(), lines = more.0, "the log's tail was too short");
                        lines = more;
                        complete = Some(tail);
                        continue;
                    }
                },
                Ok(Err(error)) => error,
                Err(_) => DockerError::Deadline { step, limit },
            };
            // A cut answer holds the oldest part of what was asked for, so a shorter complete one is newer.
            return match complete {
                Some(before) => Ok(before.into_bytes()),
                None if !tail.is_empty() => Ok(tail.into_bytes()),
                None => Err(failure),
            };
        }
    }

    async fn read_log(
        &self,
        step: String,
        id: &ContainerId,
        is_tty: bool,
        lines: Lines,
        tail: &mut Tail,
    ) -> Result<(), DockerError> {
        let failed = |error| self.connection.classify(step.clone(), error);
        let engine = self.connection.client().await.map_err(failed)?;
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1&tail={}", lines.0);
        let mut chunks = raw_get(engine, path);
        let mut framing = Framing::new(is_tty);
        while let Some(chunk) = chunks.next().await {
            framing.unframe(&chunk.map_err(failed)?, tail);
        }
        Ok(())
    }
}
