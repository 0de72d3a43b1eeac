//! The task that owns a runner's two sockets.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::intake::Intake;
use super::outlet::Outlet;
use super::shared::Shared;
use crate::wire::command::Command;
use crate::wire::record::{BadRecord, Record};
use crate::zmtp::{Message, Multipart};

/// Commands that wait for a container which does not take them (paused, or still starting).
const MAX_OUTBOX: usize = 64;

/// After a record with more data than this, in bytes, others on the thread get their turn at once: some hundred of
/// them in one go would make a heartbeat late.
const LARGE: usize = 64 * 1024;

pub(super) async fn serve(
    mut outlet: Outlet,
    mut intake: Intake,
    mut commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
) {
    let mut outbox: VecDeque<Multipart> = VecDeque::new();
    let mut skipped: u64 = 0;
    loop {
        let may_read = shared.runs().may_read();
        tokio::select! {
            // The order is the priority: an end before everything, commands before records, so that an
            // interrupt gets out however fast the kernel prints.
            biased;
            () = cancel.cancelled() => return,
            Some(command) = commands.recv(), if outbox.len() < MAX_OUTBOX => outbox.push_back(command.encode()),
            () = send_front(&mut outlet, &outbox) => drop(outbox.pop_front()),
            received = intake.recv(), if may_read => match received {
                Ok(message) => {
                    handle(&shared, &message, &mut skipped);
                    if message.frames.iter().any(|frame| frame.len() > LARGE) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(broken) => skip(&shared, &broken, &mut skipped),
            },
            () = shared.space.notified() => {}
        }
        // Records may be ready without end; give others on this thread their share.
        tokio::task::consume_budget().await;
    }
}

/// Waits for ever when there is nothing to send.
async fn send_front(outlet: &mut Outlet, outbox: &VecDeque<Multipart>) {
    match outbox.front() {
        Some(message) => outlet.send(message).await,
        None => std::future::pending().await,
    }
}

fn handle(shared: &Shared, message: &Message, skipped: &mut u64) {
    let record = match Record::decode(&message.frames).map_err(|bad| bad.of_cut(message.cut)) {
        Ok(record) => record,
        Err(bad) => {
            skip(shared, &bad, skipped);
            if let BadRecord::MediaTooLarge(_) = bad {
                shared.runs().note(&format!("[{bad}; it was dropped]"));
            }
            return;
        }
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

fn skip(shared: &Shared, reason: &dyn Display, skipped: &mut u64) {
    *skipped += 1;
    // User code can send garbage as fast as it likes: the powers of two tell enough.
    if skipped.is_power_of_two() {
        tracing::warn!(kernel = %shared.kernel, %reason, skipped = *skipped, "skipped what the runner sent");
    }
}
