//! The method table: from a typed request to the registry and back to a value.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::errors;
use crate::kernel::{Failure, Kernels};
use crate::wire::answer::RemoteError;
use crate::wire::call::Call;
use crate::wire::event::EndReason;
use crate::wire::reply;
use crate::wire::request::Request;
use crate::wire::sample::Sample;
use crate::wire::value::Value;

/// What a call led to.
pub(super) struct Done {
    /// The answer.
    pub(super) value: Value,
    /// Cancelled when the answer can't be given, to undo what the caller then does not know of.
    pub(super) undo: Option<CancellationToken>,
}

impl From<Value> for Done {
    fn from(value: Value) -> Self {
        Self { value, undo: None }
    }
}

/// Carries a call out. `received` is when it came, from which the limit of a create counts.
/// `gone` is cancelled when the caller's connection closes; creates, which nobody would know of, and what costs nothing
/// to leave undone heed it.
pub(super) async fn call(
    kernels: &Kernels,
    call: Call,
    received: Instant,
    gone: &CancellationToken,
) -> Result<Done, RemoteError> {
    let request = Request::of(call).map_err(|e| errors::of_request(&e))?;
    perform(kernels, request, received, gone).await.map_err(|e| errors::of_kernel(&e))
}

async fn perform(
    kernels: &Kernels,
    request: Request,
    received: Instant,
    gone: &CancellationToken,
) -> Result<Done, Failure> {
    let value = match request {
        Request::Ping(text) => text.into(),
        Request::CreateKernel(kernel, create) => {
            let made = kernels.create(kernel, create, received, gone).await?;
            return Ok(Done { value: made.place.created(), undo: made.unwanted });
        }
        Request::DestroyKernel(kernel) => {
            let sample = kernels.destroy(kernel, EndReason::UserRequested).await?;
            sample.as_ref().map_or(Value::Nil, Sample::to_value)
        }
        Request::InterruptKernel(kernel) => {
            kernels.interrupt(kernel).await?;
            reply::interrupted()
        }
        Request::GetCompletions(kernel, ask) => reply::completions(&kernels.complete(kernel, ask).await?),
        Request::GetLogs(kernel) => reply::logs(&kernels.logs(kernel).await?),
        Request::RestartKernel(kernel, config) => kernels.restart(kernel, config).await?.restarted(),
        Request::Execute(kernel, execute) => {
            let version = execute.version;
            // Leaving frees the caller's place; a run that has begun stays for a later `continue`.
            let Some(done) = gone.run_until_cancelled(kernels.execute(kernel, execute)).await else {
                tracing::debug!(%kernel, "the caller of a run went away");
                return Ok(Value::Nil.into());
            };
            done?.map_or(Value::Nil, |result| result.into_value(version))
        }
        Request::UploadFile(kernel, upload) => {
            kernels.upload(kernel, upload).await?;
            Value::Nil
        }
        Request::ListFiles(kernel, path) => reply::files(&kernels.list_files(kernel, path).await?),
        Request::DownloadFile(kernel, path) => Value::Binary(kernels.download(kernel, path).await?),
        Request::StartService(kernel, start) => match kernels.start_service(kernel, start).await? {
            Ok(answer) => reply::service(&answer),
            Err(why) => reply::service_failed(&why),
        },
        Request::PingKernel(kernel) => {
            kernels.ping(kernel).await?;
            Value::Nil
        }
        Request::Reset => {
            let count = kernels.end_all(EndReason::AgentReset);
            tracing::info!(kernels = count, "reset: ending all kernels");
            Value::Nil
        }
    };
    Ok(value.into())
}
