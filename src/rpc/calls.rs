//! One call, from its frames to the bytes of its answer.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::shared::{Identity, Shared, more};
use super::{errors, methods};
use crate::figures::{self, table};
use crate::ids::KernelId;
use crate::wire::answer::{Answer, ErrorName, RemoteError};
use crate::wire::call::{BadCall, Call};
use crate::wire::header::{AnswerHeader, RequestHeader};
use crate::wire::value::Value;
use crate::zmtp::{Held, frame};

/// From this size on, in bytes, a call is unpacked where it keeps no others from their turn.
const LARGE: usize = 256 * 1024;

/// How many characters of a run's id the log has; the manager's have 32.
const LONGEST_RUN: usize = 64;

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
    /// The answer is on its way.
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
    let mut subject = Subject::default();
    let (header, method, body, undo) = match unpack(shared, frames).await? {
        Ok(call) => {
            let (header, method) = (call.header, call.method.clone());
            subject = Subject::of(&call);
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
    let (kernel, run) = (subject.kernel.map(tracing::field::display), subject.run);
    match &body {
        Ok(_) => tracing::debug!(method, kernel, run, millis, "answered"),
        Err(e) => {
            tracing::info!(method, kernel, run, millis, error = e.name, text = %text_of(e), "answered with an error");
        }
    }
    if gone.is_cancelled() {
        return None;
    }
    let bytes = answer(shared.identity, header.request_id, body);
    Some(Outgoing { bytes, undo, _places: places })
}

/// What a call is about, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Subject {
    kernel: Option<KernelId>,
    run: Option<String>,
}

impl Subject {
    fn of(call: &Call) -> Self {
        let text = |at: usize| call.args.get(at).and_then(Value::as_str);
        let (kernel, run) = match call.method.as_str() {
            "execute" => (text(1), text(2)),
            _ => (text(0), None),
        };
        // Whatever a caller makes up stays short.
        let run = run.map(|run| run.chars().take(LONGEST_RUN).collect());
        Self { kernel: kernel.and_then(|id| id.parse().ok()), run }
    }
}

/// Unpacks a call; where that fails, with its header if that can be read. `None` when it broke, which the log tells.
async fn unpack(
    shared: &Shared,
    frames: Vec<Bytes>,
) -> Option<Result<Call, (Option<RequestHeader>, BadCall)>> {
    let header = frames.first().and_then(|frame| RequestHeader::decode(frame));
    let is_large = frames.iter().map(Bytes::len).sum::<usize>() > LARGE;
    let unpacked = if is_large {
        // Nobody closes it.
        let _turn = shared.unpacking.acquire().await.ok()?;
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
    let answer = Answer { header, body };
    frame::message_of(&answer.encode_header(), |out| answer.pack_body(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(method: &str, args: Vec<Value>) -> (Option<String>, Option<String>) {
        let header = RequestHeader { pid: 1, random: 2, request_id: 3, sent_at: 0.0 };
        let call = Call { header, method: method.to_owned(), args, file: None, kwargs: Vec::new() };
        let Subject { kernel, run } = Subject::of(&call);
        (kernel.map(|kernel| kernel.to_string()), run)
    }

    #[test]
    fn a_line_about_a_call_names_its_kernel_and_its_run() {
        let id = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10";
        let kernel = Some(id.to_owned());
        assert_eq!(subject("destroy_kernel", vec![id.into()]), (kernel.clone(), None));
        let execute = vec![3.into(), id.into(), "run".into(), "query".into()];
        assert_eq!(subject("execute", execute), (kernel.clone(), Some("run".to_owned())));
        let long = vec![3.into(), id.into(), "x".repeat(1000).into()];
        assert_eq!(subject("execute", long), (kernel, Some("x".repeat(LONGEST_RUN))));
        assert_eq!(subject("ping", vec!["hello".into()]), (None, None));
        assert_eq!(subject("reset", vec![]), (None, None));
    }
}
