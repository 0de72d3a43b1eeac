//! The task that owns a runner's two sockets.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::wire::command::Command;
use crate::wire::record::{BadRecord, Record};
use crate::zmq::{Multipart, Pull, Push, ZmqError};

/// Commands that wait for a container which does not take them (paused, or still starting).
const MAX_OUTBOX: usize = 64;

pub(super) async fn serve(
    mut push: Push,
    mut pull: Pull,
    mut commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
) {
    let mut outbox: VecDeque<Multipart> = VecDeque::new();
    let mut skipped: u64 = 0;
    let failed: ZmqError = loop {
        let may_read = shared.runs().may_read();
        tokio::select! {
            // The order is the priority: an end before everything, commands before records, so that an
            // interrupt gets out however fast the kernel prints.
            biased;
            () = cancel.cancelled() => return,
            Some(command) = commands.recv(), if outbox.len() < MAX_OUTBOX => outbox.push_back(command.encode()),
            sent = push.send(outbox.front().cloned().unwrap_or_default()), if !outbox.is_empty() => match sent {
                Ok(()) => drop(outbox.pop_front()),
                Err(e) => break e,
            },
            received = pull.recv(), if may_read => match received {
                Ok(frames) => handle(&shared, &frames, &mut skipped),
                Err(e) => break e,
            },
            () = shared.space.notified() => {}
        }
        // Records may be ready without end; give others on this thread their share.
        tokio::task::consume_budget().await;
    };
    tracing::error!(kernel = %shared.kernel, error = %failed, "lost the sockets to the kernel's runner");
}

fn handle(shared: &Shared, frames: &[bytes::Bytes], skipped: &mut u64) {
    let record = match Record::decode(frames) {
        Ok(record) => record,
        Err(bad) => return skip(shared, &bad, skipped),
    };
    if let Record::Completion(found) = &record {
        let taken = shared.asker().as_ref().is_some_and(|asker| asker.send(found.clone()).is_ok());
        if taken || shared.is_stale_answer() {
            return;
        }
    }
    let wake = {
        let mut runs = shared.runs();
        let wake = runs.record(record);
        shared.publish(&runs);
        wake
    };
    if wake {
        // Ordinary output wakes nobody: answers go out at a stop, a full buffer, or when time is up.
        shared.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

fn skip(shared: &Shared, bad: &BadRecord, skipped: &mut u64) {
    *skipped += 1;
    // User code can send garbage as fast as it likes: the powers of two tell enough.
    if skipped.is_power_of_two() {
        tracing::warn!(kernel = %shared.kernel, reason = %bad, skipped = *skipped, "skipped what the runner sent");
    }
    if let BadRecord::MediaTooLarge(_) = bad {
        shared.runs().note(&format!("[{bad}; it was dropped]"));
    }
}
