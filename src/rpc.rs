//! The RPC server: calls in, answers out, in whatever order they are ready (PROTOCOL sections 2 and 3).
//!
//! One task owns the ROUTER socket; each call runs in a task of its own and hands its answer back through a bounded
//! channel. A caller whose connection closes is gone: its place in a run queue is freed, and the kernel that it would
//! not know of is undone. When the server stops, no call is taken any more, and those under way are still answered.

mod errors;
mod methods;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kernel::Kernels;
use crate::wire::answer::{Answer, RemoteError};
use crate::wire::call::Call;
use crate::wire::header::AnswerHeader;
use crate::wire::value::Value;
use crate::zmq::{Delivery, Heard, Multipart, Peer, Router, ZmqError};

/// Answers that wait for the socket.
const ANSWERS: usize = 256;

/// Who answers: fixed for the process's life.
#[derive(Debug, Clone, Copy)]
struct Server {
    pid: u16,
    random: u16,
}

/// An answer on its way out.
struct Outgoing {
    frames: Multipart,
    /// What to undo when nobody is there to take it.
    undo: Option<CancellationToken>,
}

/// Serves until `stop`, then until the calls under way are answered.
pub async fn serve(mut router: Router, kernels: Kernels, stop: CancellationToken, tracker: TaskTracker) {
    let me = Server {
        // Cut to 16 bits, as the protocol has it.
        pid: u16::try_from(std::process::id() & 0xffff).unwrap_or(0),
        random: u16::from_ne_bytes([uuid::Uuid::new_v4().as_bytes()[0], uuid::Uuid::new_v4().as_bytes()[1]]),
    };
    let (answers, mut ready) = mpsc::channel::<Outgoing>(ANSWERS);
    let mut answers = Some(answers);
    let mut dropped: u64 = 0;
    let mut callers: HashMap<Peer, CancellationToken> = HashMap::new();
    let failed: ZmqError = loop {
        tokio::select! {
            // Answers first: they make room for calls.
            biased;
            answer = ready.recv() => match answer {
                Some(Outgoing { frames, undo }) => match router.send(frames).await {
                    Ok(Delivery::Sent) => {}
                    Ok(Delivery::PeerGone) => {
                        tracing::debug!("the caller went away before its answer");
                        if let Some(undo) = undo {
                            undo.cancel();
                        }
                    }
                    Err(e) => break e,
                },
                // Stopped, and the last call under way is answered.
                None => return,
            },
            () = stop.cancelled(), if answers.is_some() => answers = None,
            heard = router.hear(), if answers.is_some() => match heard {
                Ok(Heard::Message(frames, peer)) => {
                    let Some(answers) = &answers else { continue };
                    // A caller that is gone already is served as one that can't be told apart: to the end.
                    let gone = peer.map(|p| callers.entry(p).or_default().clone()).unwrap_or_default();
                    accept(frames, me, &kernels, answers, &tracker, &mut dropped, gone);
                }
                Ok(Heard::Departed(peer)) => {
                    if let Some(gone) = callers.remove(&peer) {
                        gone.cancel();
                    }
                }
                Err(e) => break e,
            },
        }
    };
    tracing::error!(error = %failed, "the RPC socket failed; the manager can't reach this agent any more");
}

fn accept(
    mut frames: Multipart,
    me: Server,
    kernels: &Kernels,
    answers: &mpsc::Sender<Outgoing>,
    tracker: &TaskTracker,
    dropped: &mut u64,
    gone: CancellationToken,
) {
    if frames.is_empty() {
        return;
    }
    let route = frames.remove(0);
    let call = match Call::decode(&frames) {
        Ok(call) => call,
        Err(error) => {
            *dropped += 1;
            // Anybody who reaches the port can send garbage; the powers of two tell enough.
            if dropped.is_power_of_two() {
                tracing::warn!(%error, dropped = *dropped, "dropped frames that are no call");
            }
            return;
        }
    };
    let (kernels, answers, received) = (kernels.clone(), answers.clone(), Instant::now());
    tracker.spawn(async move {
        let (header, method) = (call.header, call.method.clone());
        let (body, undo) = match methods::call(&kernels, call, received, &gone).await {
            Ok(done) => (Ok(done.value), done.undo),
            Err(error) => (Err(error), None),
        };
        let millis = received.elapsed().as_millis();
        match &body {
            Ok(_) => tracing::debug!(method, millis, "answered"),
            Err(e) => {
                tracing::info!(method, millis, error = e.name, text = %text_of(e), "answered with an error");
            }
        }
        if gone.is_cancelled() {
            if let Some(undo) = undo {
                undo.cancel();
            }
            return;
        }
        // Fails only when the socket is gone, and with it whoever asked.
        let _ = answers.send(Outgoing { frames: answer(me, header.request_id, route, body), undo }).await;
    });
}

fn text_of(error: &RemoteError) -> String {
    error.args.first().and_then(Value::as_str).unwrap_or_default().chars().take(300).collect()
}

fn answer(me: Server, request_id: u32, route: Bytes, body: Result<Value, RemoteError>) -> Multipart {
    let sent_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let header =
        AnswerHeader { pid: me.pid, random: me.random, request_id, sent_at, is_error: body.is_err() };
    let mut frames = vec![route];
    frames.extend(Answer { header, body }.encode());
    frames
}
