//! One call, from its frames to the bytes of its answer.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::shared::{Identity, Shared, more};
use super::{errors, methods};
use crate::figures::{self, table};
use crate::wire::answer::{Answer, ErrorName, RemoteError};
use crate::wire::call::{BadCall, Call};
use crate::wire::header::{AnswerHeader, RequestHeader};
use crate::wire::value::Value;
use crate::zmtp::{Held, frame};

/// From this size on, in bytes, a call is unpacked where it keeps no others from their turn.
const LARGE: usize = 256 * 1024;

/// Places of one call among all and among its connection's; free when dropped.
pub(super) type Places = [OwnedSemaphorePermit; 2];

/// An answer on its way out. What its caller then does not know of is undone when it is dropped before its end.
pub(super) struct Outgoing {
    /// The whole message.
    pub(super) bytes: Bytes,
    undo: Option<DropGuard>,
    _places: Places,
}

impl Outgoing {
    /// It is on its way.
    pub(super) fn written(self) {
        if let Some(undo) = self.undo {
            undo.disarm();
        }
    }
}

/// Carries a call out; `None` when there is nothing to answer or nobody to take it.
pub(super) async fn carry_out(
    shared: &Shared,
    frames: Vec<Bytes>,
    held: Held,
    places: Places,
    gone: &CancellationToken,
) -> Option<Outgoing> {
    let received = Instant::now();
    let (header, method, body, undo) = match unpack(frames).await? {
        Ok(call) => {
            let (header, method) = (call.header, call.method.clone());
            match methods::call(&shared.kernels, call, received, gone).await {
                Ok(done) => (header, method, Ok(done.value), done.undo),
                Err(error) => (header, method, Err(error), None),
            }
        }
        Err((Some(header), error)) if error.is_too_much() => {
            (header, String::new(), Err(errors::of_call(&error)), None)
        }
        Err((_, error)) => {
            figures::count(&table::RPC_DROPPED, &[]);
            if let Some(dropped) = more(&shared.dropped) {
                tracing::warn!(%error, dropped, "dropped frames that are no call");
            }
            return None;
        }
    };
    drop(held);
    let undo = undo.map(CancellationToken::drop_guard);
    let took = received.elapsed();
    figures::count(&table::RPC_CALLS, &[&method, outcome(&body, gone.is_cancelled())]);
    figures::took(&table::RPC_SECONDS, &[&method], took);
    let millis = took.as_millis();
    match &body {
        Ok(_) => tracing::debug!(method, millis, "answered"),
        Err(e) => {
            tracing::info!(method, millis, error = e.name, text = %text_of(e), "answered with an error");
        }
    }
    if gone.is_cancelled() {
        return None;
    }
    let bytes = answer(shared.identity, header.request_id, body);
    Some(Outgoing { bytes, undo, _places: places })
}

/// Unpacks a call; where that fails, with its header if that can be read. `None` when it broke, which the log tells.
async fn unpack(frames: Vec<Bytes>) -> Option<Result<Call, (Option<RequestHeader>, BadCall)>> {
    let header = frames.first().and_then(|frame| RequestHeader::decode(frame));
    let is_large = frames.iter().map(Bytes::len).sum::<usize>() > LARGE;
    let unpacked = if is_large {
        tokio::task::spawn_blocking(move || Call::decode(&frames)).await.ok()?
    } else {
        Call::decode(&frames)
    };
    Some(unpacked.map_err(|error| (header, error)))
}

/// How the call went, for the figures.
fn outcome(body: &Result<Value, RemoteError>, is_unwanted: bool) -> &'static str {
    match body {
        _ if is_unwanted => "unwanted",
        Ok(_) => "answered",
        Err(error) if error.name == ErrorName::Runtime.as_str() => "failed",
        Err(error) if error.name == ErrorName::Timeout.as_str() => "late",
        Err(_) => "refused",
    }
}

fn text_of(error: &RemoteError) -> String {
    error.args.first().and_then(Value::as_str).unwrap_or_default().chars().take(300).collect()
}

fn answer(me: Identity, request_id: u32, body: Result<Value, RemoteError>) -> Bytes {
    let sent_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let header =
        AnswerHeader { pid: me.pid, random: me.random, request_id, sent_at, is_error: body.is_err() };
    frame::message(&Answer { header, body }.encode())
}
