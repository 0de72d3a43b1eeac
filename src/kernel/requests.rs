//! What the manager asks of kernels, carried out in the asker's own task.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{Failure, KernelError};
use super::inbox::{Birth, Deadline, Restart};
use super::live::Live;
use super::phase::{Outcome, Phase};
use super::registry::{Handle, Kernels};
use crate::figures::{self, table};
use crate::ids::{KernelId, RunId};
use crate::runner::{Begin, Code, Entry};
use crate::scratch::OutputFile;
use crate::wire::command::ServiceStart;
use crate::wire::config::ConfigPatch;
use crate::wire::event::EndReason;
use crate::wire::reply::{KernelPlace, ResultFile, RunResult, RunStatus};
use crate::wire::request::{Completions, Create, Execute, Mode, StartService, Upload};
use crate::wire::sample::Sample;

/// How long a destroy waits for its kernel to be gone; the manager waits 10 s.
const DESTROY_LIMIT: Duration = Duration::from_secs(9);
/// The pause before the next look for a handle that is about to go.
const GOING: Duration = Duration::from_millis(10);
/// How long a request waits for a kernel that is being made, taken back or restarted; a restart may take 30 s.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a request about an unknown kernel waits for the recovery; the shortest limits of the manager are 5 s.
const RECOVERY_LIMIT: Duration = Duration::from_secs(4);
/// The newest part of a container's log that is answered, in bytes (section 12, item 30).
const LOG_BYTES: usize = 10 * 1024 * 1024;
/// How long reading a log may take; the manager waits 5 s.
const LOG_LIMIT: Duration = Duration::from_secs(4);
/// How long one output file may take to S3, and all of a run; the manager waits 300 s.
const FILE_LIMIT: Duration = Duration::from_secs(120);
const FILES_LIMIT: Duration = Duration::from_secs(240);

/// A kernel that was made, or was there before.
pub struct Created {
    /// What to answer.
    pub place: KernelPlace,
    /// Of one that was made for this asker: cancelled by whoever can't give it the answer.
    pub unwanted: Option<CancellationToken>,
}

impl Kernels {
    /// Makes a kernel. The same id again answers the same kernel (section 12, item 13). When `gone` is cancelled the
    /// asker has left, and what it asked for is undone.
    pub async fn create(
        &self,
        kernel: KernelId,
        create: Create,
        received: Instant,
        gone: &CancellationToken,
    ) -> Result<Created, Failure> {
        let Create { config, wait } = create;
        let limit = self.node.config.create_deadline.of(wait);
        let deadline = limit.map(|limit| Deadline { at: received + limit, limit });
        self.await_recovery().await?;
        loop {
            if self.handle(kernel).is_none() {
                if let Some(refusal) = self.node.refusal() {
                    figures::count(&table::KERNEL_CREATES, &["refused"]);
                    tracing::warn!(%kernel, error = %refusal, "refused to create a kernel");
                    return Err(Arc::new(refusal));
                }
                let node = self.node.clone();
                let forgotten =
                    tokio::task::spawn_blocking(move || node.notes.journal.born_again(kernel)).await;
                forgotten.map_err(|_| KernelError::Thread("forget an earlier end"))?;
            }
            let place = self.place(kernel, received, limit, gone).await?;
            let (mut handle, is_new) = match place {
                Some(place) => self.spawn(kernel, Birth::Asked(config.clone(), deadline, place)),
                // There is one of this id.
                None => match self.handle(kernel) {
                    Some(handle) => (handle, false),
                    None => continue,
                },
            };
            let was_over = !is_new && matches!(*handle.phase.borrow(), Phase::Ending(..) | Phase::Gone(_));
            if was_over {
                // An earlier kernel of this id is still going; ours begins when it is gone.
                let over = async { while handle.phase.changed().await.is_ok() {} };
                timeout(READY_LIMIT, over).await.map_err(|_| KernelError::Late(READY_LIMIT))?;
                continue;
            }
            let unwanted = is_new.then(|| handle.unwanted.clone());
            let live = tokio::select! {
                live = ready(&mut handle, kernel) => live?,
                () = gone.cancelled(), if is_new => {
                    handle.unwanted.cancel();
                    return Err(Arc::new(KernelError::Unwanted(kernel)));
                }
            };
            return Ok(Created { place: live.place.clone(), unwanted });
        }
    }

    /// Waits for a place among the kernels that are made; `None` when there is a kernel of this id. Whoever waits too long is refused
    /// before anything is made.
    async fn place(
        &self,
        kernel: KernelId,
        received: Instant,
        limit: Option<Duration>,
        gone: &CancellationToken,
    ) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if self.handle(kernel).is_some() {
            return Ok(None);
        }
        let creates = self.node.config.creates;
        // The other half is for the making.
        let waited = limit.map_or(READY_LIMIT, |limit| limit / 2);
        tokio::select! {
            biased;
            place = self.shared.creates.clone().acquire_owned() => Ok(place.ok()),
            () = gone.cancelled() => Err(Arc::new(KernelError::Unwanted(kernel))),
            () = sleep_until(received + waited) => {
                figures::count(&table::KERNEL_CREATES, &["refused"]);
                let refusal = KernelError::Crowded { creates, waited };
                let refused = self.shared.crowded.lock().unwrap_or_else(PoisonError::into_inner).more();
                if let Some(refused) = refused {
                    tracing::warn!(%kernel, refused, error = %refusal, "refused to create a kernel");
                }
                Err(Arc::new(refusal))
            }
        }
    }

    /// Ends a kernel and answers its last statistics. One that this agent does not know is told to be over, unless
    /// it told so before (section 12, item 4).
    pub async fn destroy(&self, kernel: KernelId, reason: EndReason) -> Result<Option<Sample>, Failure> {
        self.await_recovery().await?;
        timeout(DESTROY_LIMIT, self.destroy_known(kernel, reason))
            .await
            .map_err(|_| Arc::new(KernelError::EndLate { kernel, limit: DESTROY_LIMIT }))
    }

    async fn destroy_known(&self, kernel: KernelId, reason: EndReason) -> Option<Sample> {
        loop {
            let Some(mut handle) = self.handle(kernel) else {
                // In a task of its own: it goes on when whoever asks gives up.
                if self.tells_end(kernel) {
                    continue;
                }
                return None;
            };
            if handle.terminate.send(reason).is_err() {
                // The task is over; its handle goes any moment.
                sleep(GOING).await;
                continue;
            }
            loop {
                if let Phase::Gone(Outcome::Ended(sample, _)) = &*handle.phase.borrow_and_update() {
                    return *sample;
                }
                if handle.phase.changed().await.is_err() {
                    break;
                }
            }
            if let Phase::Gone(Outcome::Ended(sample, _)) = &*handle.phase.borrow() {
                return *sample;
            }
        }
    }

    /// Gives a kernel a new container.
    pub async fn restart(&self, kernel: KernelId, config: ConfigPatch) -> Result<KernelPlace, Failure> {
        let handle = match self.known(kernel).await {
            Ok(handle) => handle,
            Err(error) => return Err(self.too_late(kernel, error).await),
        };
        let (answer, answered) = oneshot::channel();
        if handle.restarts.send(Restart { config, answer }).is_ok()
            && let Ok(result) = answered.await
        {
            return result;
        }
        let reason = match &*handle.phase.borrow() {
            Phase::Gone(Outcome::Failed(error) | Outcome::Ended(_, error)) | Phase::Ending(_, error) => {
                error.clone()
            }
            _ => Arc::new(KernelError::NotRunning(kernel)),
        };
        Err(self.too_late(kernel, reason).await)
    }

    /// A kernel that the manager restarts is over. It ignores the end of a kernel while it restarts it, so if that was
    /// told, or is on its way, nobody hears it.
    async fn too_late(&self, kernel: KernelId, error: Failure) -> Failure {
        let node = self.node.clone();
        let noted = tokio::task::spawn_blocking(move || node.notes.journal.unheard(kernel)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%kernel, %error, "could not note that the kernel's end was not heard");
        }
        error
    }

    /// Runs code, or goes on with a run. `None`: cut off by a restart or destroy.
    pub async fn execute(&self, kernel: KernelId, request: Execute) -> Result<Option<RunResult>, Failure> {
        let live = self.live(kernel).await?;
        let run = request.run_id.unwrap_or_else(RunId::random);
        let entry = match request.mode {
            Mode::Query(_) | Mode::Batch { .. } => Entry::New,
            Mode::Input(_) | Mode::Continue => Entry::GoOn,
        };
        let seat = live.runner.enter(run.clone(), entry).map_err(KernelError::from)?;
        let Some(begin) = seat.turn().await else { return Ok(None) };
        let code = match (request.mode, begin) {
            (Mode::Query(code), Begin::Start) => Some(Code::Query(code)),
            (Mode::Batch { clean, build, exec }, Begin::Start) => Some(Code::Batch { clean, build, exec }),
            (Mode::Input(text), _) => {
                if seat.input(text).await.is_none() {
                    return Ok(None);
                }
                None
            }
            _ => None,
        };
        if let Some(code) = code {
            let before = async {
                if request.upload_output_files {
                    live.remember_output(&run).await;
                }
            };
            if seat.start(code, before).await.is_none() {
                return Ok(None);
            }
        }
        let mut changed = None;
        let at_end = async { changed = Some(live.output_changes(&run).await) };
        let Some((output, status)) = seat.collect(request.flush, at_end).await else { return Ok(None) };
        drop(seat);
        if !matches!(status, RunStatus::Finished(_)) {
            return Ok(Some(RunResult { run_id: run, status, output, files: Vec::new() }));
        }
        let changed = match changed {
            Some(changed) => changed,
            // The end came in the moment in which the caller's time was over.
            None => live.output_changes(&run).await,
        };
        live.forget_output(&run);
        let files = self.publish_files(&live, changed).await;
        Ok(Some(RunResult { run_id: run, status, output, files }))
    }

    /// Output files of the run that has just finished (PROTOCOL section 8, `files`).
    async fn publish_files(&self, live: &Live, changed: Vec<OutputFile>) -> Vec<ResultFile> {
        if changed.is_empty() {
            return Vec::new();
        }
        let published = self.node.outputs.publish(&live.scratch, changed, FILE_LIMIT, FILES_LIMIT).await;
        published.into_iter().map(|f| ResultFile { name: f.name, url: f.url }).collect()
    }

    /// Interrupts the run that goes on, if one does.
    pub async fn interrupt(&self, kernel: KernelId) -> Result<(), Failure> {
        self.live(kernel).await?.runner.interrupt().await;
        Ok(())
    }

    /// Code completions.
    pub async fn complete(&self, kernel: KernelId, ask: Completions) -> Result<serde_json::Value, Failure> {
        let live = self.live(kernel).await?;
        self.use_now(kernel);
        Ok(live.runner.complete(ask).await.map_err(KernelError::from)?)
    }

    /// Starts a service that the kernel's image declares. That it could not be started is an answer like another.
    pub async fn start_service(
        &self,
        kernel: KernelId,
        start: StartService,
    ) -> Result<Result<serde_json::Value, String>, Failure> {
        let live = self.live(kernel).await?;
        self.use_now(kernel);
        let mut declared = live.place.services.iter().map(|published| &published.service);
        let Some(port) = declared.find(|service| service.name == start.name) else {
            let name: String = start.name.chars().take(64).collect();
            return Ok(Err(format!("this kernel has no service {name:?}")));
        };
        let start = ServiceStart { port: port.clone(), options: start.options };
        Ok(live.runner.start_service(start).await.map_err(|error| error.to_string()))
    }

    /// The kernel is in use.
    pub async fn ping(&self, kernel: KernelId) -> Result<(), Failure> {
        self.live(kernel).await?;
        self.use_now(kernel);
        Ok(())
    }

    /// The newest part of the container's log.
    pub async fn logs(&self, kernel: KernelId) -> Result<String, Failure> {
        let live = self.live(kernel).await?;
        let bytes = self.node.docker.logs_tail(&live.place.container, LOG_BYTES, LOG_LIMIT).await;
        Ok(String::from_utf8_lossy(&bytes.map_err(KernelError::from)?).into_owned())
    }

    /// Puts a file into the scratch directory.
    pub async fn upload(&self, kernel: KernelId, upload: Upload) -> Result<(), Failure> {
        let live = self.live(kernel).await?;
        self.use_now(kernel);
        let size = upload.data.len();
        let done = live.scratch.upload(&upload.filename, upload.data).await;
        done.map_err(KernelError::from)?;
        tracing::debug!(%kernel, bytes = size, "uploaded a file");
        Ok(())
    }

    pub(super) fn use_now(&self, kernel: KernelId) {
        if let Some(handle) = self.handle(kernel) {
            handle.used.send_replace(Instant::now());
        }
    }

    pub(super) async fn live(&self, kernel: KernelId) -> Result<Arc<Live>, Failure> {
        let mut handle = self.known(kernel).await?;
        timeout(READY_LIMIT, ready(&mut handle, kernel))
            .await
            .unwrap_or_else(|_| Err(Arc::new(KernelError::NotReady { kernel, limit: READY_LIMIT })))
    }

    async fn known(&self, kernel: KernelId) -> Result<Handle, Failure> {
        if let Some(handle) = self.handle(kernel) {
            return Ok(handle);
        }
        self.await_recovery().await?;
        self.handle(kernel).ok_or_else(|| self.not_here(kernel))
    }

    async fn await_recovery(&self) -> Result<(), Failure> {
        let mut recovered = self.shared.recovered.subscribe();
        let done = timeout(RECOVERY_LIMIT, recovered.wait_for(|done| *done)).await;
        done.map(|_| ()).map_err(|_| Arc::new(KernelError::NotRecovered))
    }
}

/// Waits until the kernel runs or never will.
async fn ready(handle: &mut Handle, kernel: KernelId) -> Result<Arc<Live>, Failure> {
    loop {
        match &*handle.phase.borrow_and_update() {
            Phase::Running(live) => return Ok(live.clone()),
            Phase::Gone(Outcome::Failed(error) | Outcome::Ended(_, error))
            | Phase::Ending(_, error)
            | Phase::LeftAlone(_, error) => return Err(error.clone()),
            Phase::Creating | Phase::Looking(_) | Phase::Restarting => {}
        }
        if handle.phase.changed().await.is_err() {
            return Err(Arc::new(KernelError::NotRunning(kernel)));
        }
    }
}
