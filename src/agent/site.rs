//! What the agent shows of itself and takes from its operator: the page, `/status`, and over the local socket events, a kernel's log and the drain.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drain::Drain;
use super::measure::Sampled;
use crate::conditions::Conditions;
use crate::ids::{InstanceId, KernelId};
use crate::kernel::{Overview, State};
use crate::resources::{HostReader, booted};
use crate::status::{self, Condition, Kernel, LogLine, Logs, Node, Run, Status, Used};
use crate::telemetry::{Asked, Recent, Reply, Site, Warning};
use crate::wire::event::{EndReason, HeardEvent};

/// How many lines may wait for one listener.
const LINES: usize = 64;

/// Before the id of a kernel whose log is asked for.
const LOGS: &str = "/logs/";

/// What there is to show; more of it as the start goes on.
pub(super) struct Shown {
    started: SystemTime,
    namespace: String,
    conditions: watch::Receiver<Conditions>,
    recent: Recent,
    instance: OnceLock<InstanceId>,
    drain: OnceLock<Drain>,
    parts: OnceLock<Sampled>,
    end: CancellationToken,
    tracker: TaskTracker,
}

impl Shown {
    pub(super) fn new(
        namespace: String,
        conditions: watch::Receiver<Conditions>,
        recent: Recent,
        end: CancellationToken,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            started: SystemTime::now(),
            namespace,
            conditions,
            recent,
            instance: OnceLock::new(),
            drain: OnceLock::new(),
            parts: OnceLock::new(),
            end,
            tracker,
        })
    }

    /// The agent has its name, and knows whether it is drained.
    pub(super) fn is_named(&self, instance: InstanceId, drain: Drain) {
        // Each is said once.
        let _ = (self.instance.set(instance), self.drain.set(drain));
    }

    /// The agent's parts are there.
    pub(super) fn has_parts(&self, parts: Sampled) {
        let _ = self.parts.set(parts);
    }

    fn status(&self) -> Status {
        let conditions = self.conditions.borrow().clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: unix(self.started),
            now: unix(SystemTime::now()),
            namespace: self.namespace.clone(),
            instance: self.instance.get().map(ToString::to_string).unwrap_or_default(),
            ready: conditions.is_ready(),
            offers_slots: conditions.offers_slots(),
            conditions: conditions.list().iter().map(condition).collect(),
            node: self.parts.get().map(node),
            kernels: self
                .parts
                .get()
                .map(|parts| parts.kernels.overview())
                .into_iter()
                .flatten()
                .map(kernel)
                .collect(),
            warnings: self.recent.list().into_iter().map(line).collect(),
        }
    }

    /// What is told to the manager from now on, as lines of JSON; ends with the agent.
    fn events(&self) -> Option<mpsc::Receiver<String>> {
        let (mut told, instance) = (self.parts.get()?.events.told(), self.instance.get()?.clone());
        let (lines, receiver) = mpsc::channel(LINES);
        let end = self.end.clone();
        self.tracker.spawn(async move {
            let pass_on = async {
                loop {
                    let event = match told.recv().await {
                        Ok(event) => event,
                        Err(RecvError::Lagged(_)) => continue,
                        Err(RecvError::Closed) => return,
                    };
                    let Some(heard) = HeardEvent::decode(&event.encode(&instance)) else { continue };
                    if lines.send(heard.to_json().to_string()).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = pass_on => {}
                // A listener that is gone is noticed also while nothing is told.
                () = lines.closed() => {}
                () = end.cancelled() => {}
            }
        });
        Some(receiver)
    }

    /// The log of a kernel's container, which holds what its user's code has printed: for the socket alone.
    async fn logs(&self, kernel: &str) -> Option<Reply> {
        let kernel: KernelId = kernel.parse().ok()?;
        let Some(parts) = self.parts.get() else {
            return Some(Reply::Refused(503, "the agent is starting; try again".to_owned()));
        };
        Some(match parts.kernels.logs(kernel).await {
            Ok(logs) => Reply::Json(json(&Logs { logs })),
            Err(failure) => Reply::Refused(404, failure.to_string()),
        })
    }

    fn end_all(&self, uid: Option<u32>) -> Reply {
        let Some(parts) = self.parts.get() else {
            return Reply::Refused(503, "the agent is starting; try again".to_owned());
        };
        // What the manager hears of a reset, which is the same.
        let kernels = parts.kernels.end_all(EndReason::AgentReset);
        tracing::info!(uid, kernels, "an operator ends all kernels");
        Reply::Json(json(&self.status()))
    }

    async fn set_drained(&self, is_drained: bool, uid: Option<u32>) -> Reply {
        let Some(drain) = self.drain.get() else {
            return Reply::Refused(503, "the agent is starting; try again".to_owned());
        };
        match drain.set(is_drained).await {
            Ok(()) => {
                tracing::info!(uid, is_drained, "an operator has asked for it");
                Reply::Json(json(&self.status()))
            }
            Err(error) => Reply::Refused(500, error.to_string()),
        }
    }
}

impl Site for Shown {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Option<Reply>> {
        async move {
            match (asked.is_wish, asked.path.as_str()) {
                (false, "/") => {
                    let nonce = uuid::Uuid::new_v4().simple().to_string();
                    Some(Reply::Page { html: status::PAGE.replace(status::NONCE, &nonce), nonce })
                }
                (false, "/status") => Some(Reply::Json(json(&self.status()))),
                (false, "/events") if asked.is_local => Some(self.events().map_or_else(
                    || {
                        Reply::Refused(
                            503,
                            "the agent waits for Docker or the manager; nothing is told yet".to_owned(),
                        )
                    },
                    Reply::Lines,
                )),
                (false, path) if asked.is_local && path.starts_with(LOGS) => {
                    self.logs(&path[LOGS.len()..]).await
                }
                (true, "/end") => Some(self.end_all(asked.uid)),
                (true, "/drain") => Some(self.set_drained(true, asked.uid).await),
                (true, "/resume") => Some(self.set_drained(false, asked.uid).await),
                _ => None,
            }
        }
        .boxed()
    }
}

fn json(document: &impl Serialize) -> String {
    // Texts and finite numbers; there is nothing that JSON does not take.
    serde_json::to_string(document).unwrap_or_default()
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn condition(of: &crate::conditions::Condition) -> Condition {
    let (name, reason) = (of.name.name().to_owned(), of.reason.clone());
    Condition { name, ok: of.ok, since: of.since, reason }
}

fn line(Warning { at, level, text }: Warning) -> LogLine {
    LogLine { at: unix(at), level: level.to_owned(), text }
}

fn node(of: &Sampled) -> Node {
    let (totals, used) = (of.resources.totals(), of.resources.in_use());
    let gpus = of.gpus.as_ref().map(|readings| readings.borrow().clone()).unwrap_or_default();
    let kernels = of.kernels.overview();
    let host = HostReader::default().read();
    let beat = of.events.last_beat_age().and_then(|age| SystemTime::now().checked_sub(age));
    Node {
        cores: of.resources.cores(),
        memory: totals.memory.bytes(),
        memory_given: kernels.iter().filter_map(|k| Some(k.running.as_ref()?.memory_limit.bytes())).sum(),
        load: host.load,
        host_memory: host.memory.bytes(),
        host_memory_available: host.memory_available.bytes(),
        booted: unix(booted()),
        gpus: gpus
            .iter()
            .map(|reading| (reading.gpu.index, used.gpus.get(&reading.gpu.index).copied().unwrap_or(0)))
            .collect(),
        images: of.images.borrow().entries.len() as u64,
        pulls: of
            .pulls
            .borrow()
            .iter()
            .map(|(name, (here, all))| (name.clone(), here.bytes(), all.bytes()))
            .collect(),
        events_waiting: *of.events.waiting().borrow() as u64,
        last_heartbeat: beat.map(unix),
    }
}

fn kernel(of: Overview) -> Kernel {
    let reason = match of.state {
        State::Ending(reason) => Some(reason.as_str().to_owned()),
        _ => None,
    };
    let (id, detail) = (of.kernel.to_string(), of.problem.or(reason));
    let bare = Kernel { id, state: of.state.name().to_owned(), detail, ..Kernel::default() };
    let Some(running) = of.running else { return bare };
    let seconds = |time: Duration| time.as_secs_f64();
    let (for_seconds, wants_input) = (running.runs_for.map(seconds), running.wants_input);
    Kernel {
        image: Some(running.image),
        container: Some(running.container.short().to_owned()),
        created: running.born.map(unix),
        cores: running.cpu_set,
        gpus: running.gpu_set,
        memory_limit: running.memory_limit.bytes(),
        run: running.run.map(|run| Run { id: run.as_str().to_owned(), for_seconds, wants_input }),
        queue: running.queue as u64,
        idle_for: running.idle_for.map(seconds),
        used: running.sample.map(|sample| Used {
            cpu_seconds: sample.cpu_used_ms / 1000.0,
            memory: sample.mem_cur_bytes,
            net_rx: sample.net_rx_bytes,
            net_tx: sample.net_tx_bytes,
            io_read: sample.io_read_bytes,
            io_write: sample.io_write_bytes,
            scratch: sample.io_cur_scratch_size,
        }),
        ..bare
    }
}
