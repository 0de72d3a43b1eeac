//! The task that owns the connection to Redis.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::super::load::Load;
use super::access::RedisAccess;
use super::error::StoreError;
use crate::address::HostPort;
use crate::ids::KernelId;
use crate::patience::Outage;
use crate::wire::sample::Sample;

/// The manager takes a kernel whose key has expired for one without statistics (PROTOCOL section 6).
const EXPIRY_S: i64 = 30;
/// How long after a kernel's last sample an ordinary one can still turn up: the reporter gives up after its period of 5 s.
const LATE: Duration = Duration::from_secs(10);

/// What samples are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Figures {
    /// Of running kernels, and what those use together.
    Now(Option<Load>),
    /// The last of their kernels.
    Last,
}

/// Samples to store, and whom to tell.
#[derive(Debug)]
pub(super) struct Job {
    /// Each kernel's figures.
    pub(super) samples: Vec<(KernelId, Sample)>,
    /// What these are.
    pub(super) figures: Figures,
    /// Not worth anything to the caller after it.
    pub(super) deadline: Instant,
    /// The caller waits here, unless its deadline has passed.
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
}

/// What the task owns.
pub(super) struct Writer {
    /// The address that etcd has now.
    wanted: watch::Receiver<Option<HostPort>>,
    /// Who the agent is there.
    access: RedisAccess,
    /// The last address that was known, used while etcd has none.
    address: Option<HostPort>,
    /// The connection to that address, once a job needed it and until it fails.
    connection: Option<MultiplexedConnection>,
    /// Jobs that fail.
    outage: Outage,
    /// Tells of them.
    trouble: watch::Sender<Option<String>>,
    /// When the last samples of ended kernels were stored, for as long as late ordinary ones may turn up.
    ended: HashMap<KernelId, Instant>,
}

impl Writer {
    pub(super) fn new(
        wanted: watch::Receiver<Option<HostPort>>,
        access: RedisAccess,
        trouble: watch::Sender<Option<String>>,
    ) -> Self {
        let (outage, ended) = (Outage::default(), HashMap::new());
        Self { wanted, access, address: None, connection: None, outage, trouble, ended }
    }

    /// Serves jobs one after the other until the end.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, cancel: CancellationToken) {
        let serve_all = async {
            while let Some(job) = jobs.recv().await {
                let Job { samples, figures, deadline, answer } = job;
                let pipeline = self.pipeline(&samples, &figures);
                let result = self.serve(&pipeline, deadline).await;
                self.log(&result);
                // A caller that has given up is no reason not to have stored its samples.
                let _ = answer.send(result);
            }
        };
        // A job that is going on may be cut off: every one has a caller with a deadline of its own.
        let _ = cancel.run_until_cancelled(serve_all).await;
    }

    /// The commands for these samples. `HMSET` and not `HSET`, which takes several fields only since Redis 4.
    fn pipeline(&mut self, samples: &[(KernelId, Sample)], figures: &Figures) -> Pipeline {
        let now = Instant::now();
        self.ended.retain(|_, at| now.duration_since(*at) < LATE);
        let mut pipeline = redis::pipe();
        if samples.is_empty() {
            pipeline.cmd("PING").ignore();
        }
        for (kernel, sample) in samples {
            if *figures == Figures::Last {
                self.ended.insert(*kernel, now);
            } else if self.ended.contains_key(kernel) {
                continue;
            }
            let key = kernel.to_string();
            let store = pipeline.cmd("HMSET").arg(&key);
            for (name, number) in sample.pairs() {
                store.arg(name).arg(number.to_string());
            }
            pipeline.ignore().cmd("EXPIRE").arg(&key).arg(EXPIRY_S).ignore();
        }
        if let Figures::Now(Some(load)) = figures {
            let key = load.instance.as_str();
            let store = pipeline.cmd("HMSET").arg(key);
            for (name, number) in load.pairs() {
                store.arg(name).arg(number);
            }
            pipeline.ignore().cmd("EXPIRE").arg(key).arg(EXPIRY_S).ignore();
        }
        pipeline
    }

    async fn serve(&mut self, pipeline: &Pipeline, deadline: Instant) -> Result<(), StoreError> {
        if pipeline.is_empty() {
            return Ok(());
        }
        let in_time = timeout_at(deadline, self.write(pipeline)).await;
        in_time.unwrap_or_else(|_| {
            // Answers may still be under way; nobody could tell whose they are.
            self.connection = None;
            Err(StoreError::Timeout)
        })
    }

    /// Writes over the connection there is, or over a new one. A connection that broke since the last job is only
    /// noticed by using it, so that a failure on an old one is tried again on a new one: the commands set, they don't add.
    async fn write(&mut self, pipeline: &Pipeline) -> Result<(), StoreError> {
        let address = self.current_address()?;
        if let Some(mut old) = self.connection.take() {
            match pipeline.exec_async(&mut old).await {
                Ok(()) => {
                    self.connection = Some(old);
                    return Ok(());
                }
                Err(error) => debug!(%error, "the connection to Redis failed, making a new one"),
            }
        }
        let mut new = self.access.connect(&address).await?;
        pipeline.exec_async(&mut new).await.map_err(|source| StoreError::Write { address, source })?;
        self.connection = Some(new);
        Ok(())
    }

    /// Follows etcd; a connection to an earlier address is dropped.
    fn current_address(&mut self) -> Result<HostPort, StoreError> {
        let wanted = self.wanted.borrow_and_update().clone();
        if let Some(wanted) = wanted.filter(|wanted| self.address.as_ref() != Some(wanted)) {
            info!(redis = %wanted, "statistics go to this Redis");
            self.connection = None;
            self.address = Some(wanted);
        }
        self.address.clone().ok_or(StoreError::NoAddress)
    }

    /// One job that fails proves little: a busy server is late now and then.
    fn log(&mut self, result: &Result<(), StoreError>) {
        let trouble = match result {
            Ok(()) => {
                if let Some(past) = self.outage.worked(Instant::now()) {
                    debug!(
                        seconds = past.seconds(),
                        failures = past.failures,
                        "statistics reach Redis again"
                    );
                }
                None
            }
            Err(error) => {
                let is_first = self.outage.failed(Instant::now());
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                debug!(%error, cause, failures = self.outage.failures(), "statistics don't reach Redis");
                if is_first {
                    return;
                }
                Some(format!("statistics don't reach Redis: {error}{cause}"))
            }
        };
        self.trouble.send_if_modified(|told| {
            let is_news = *told != trouble;
            *told = trouble;
            is_news
        });
    }
}
