//! One file to one object, never whole in memory unless it is small.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
};

use crate::scratch::output::MAX_FILE_BYTES;
use crate::scratch::{Scratch, ScratchError};

use super::object;

/// S3 takes no smaller parts, the last one apart. In bytes.
pub(super) const PART_BYTES: u64 = 5 * 1024 * 1024;
/// Parts of one file under way at once.
const PARTS_IN_FLIGHT: usize = 2;
/// For telling the server to forget an upload in parts.
const ABORT_LIMIT: Duration = Duration::from_secs(30);

/// Why a file did not become an object.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The file can't be opened, or is no regular file any more.
    #[error(transparent)]
    Open(#[from] ScratchError),
    /// The file can't be read.
    #[error("reading the file failed: {0}")]
    Read(#[source] io::Error),
    /// The file has grown over the limit since it was listed.
    #[error("the file has grown over {MAX_FILE_BYTES} bytes")]
    Grown,
    /// The file's name can't be part of a key.
    #[error("the name can't be part of an object's key: {0}")]
    Key(#[from] object_store::path::Error),
    /// The server refused, or can't be reached.
    #[error("the object store: {0}")]
    Store(#[from] object_store::Error),
    /// A time limit.
    #[error("the upload took more than {0:?}")]
    TooSlow(Duration),
}

/// Puts the output file `relative` of `scratch` to `key`.
pub(super) async fn upload(
    store: &AmazonS3,
    scratch: &Scratch,
    relative: &str,
    key: &Path,
) -> Result<(), UploadError> {
    let opened = {
        let (scratch, relative) = (scratch.clone(), relative.to_owned());
        blocking(move || scratch.open_output(&relative).map_err(UploadError::from)).await?
    };
    let (file, first) = read_part(opened).await?;
    let attributes = Attributes::from_iter([(Attribute::ContentType, object::content_type(relative))]);
    if (first.len() as u64) < PART_BYTES {
        let options = PutOptions { attributes, ..PutOptions::default() };
        store.put_opts(key, PutPayload::from(first), options).await?;
        return Ok(());
    }
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let mut parts = Parts { upload: Some(store.put_multipart_opts(key, options).await?) };
    send_parts(&mut parts, file, first).await
}

async fn send_parts(parts: &mut Parts, mut file: File, first: Vec<u8>) -> Result<(), UploadError> {
    let mut in_flight = FuturesUnordered::new();
    let mut sent = 0;
    let mut part = first;
    while !part.is_empty() {
        sent += part.len() as u64;
        if sent > MAX_FILE_BYTES {
            return Err(UploadError::Grown);
        }
        if in_flight.len() == PARTS_IN_FLIGHT
            && let Some(result) = in_flight.next().await
        {
            result?;
        }
        in_flight.extend(parts.upload.as_mut().map(|upload| upload.put_part(PutPayload::from(part))));
        (file, part) = read_part(file).await?;
    }
    while let Some(result) = in_flight.next().await {
        result?;
    }
    if let Some(upload) = parts.upload.as_mut() {
        upload.complete().await?;
    }
    parts.upload = None;
    Ok(())
}

/// The next part and the file back; a part that is not full is the last one.
async fn read_part(mut file: File) -> Result<(File, Vec<u8>), UploadError> {
    blocking(move || {
        let size = file.metadata().map_err(UploadError::Read)?.len();
        let mut part = Vec::with_capacity(usize::try_from(size.min(PART_BYTES)).unwrap_or(0));
        (&mut file).take(PART_BYTES).read_to_end(&mut part).map_err(UploadError::Read)?;
        Ok((file, part))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|source| Err(ScratchError::BrokenOff { source }.into()))
}

/// An upload in parts. Dropped before its end, by an error, a time limit or a caller that went away, it is aborted
/// by a task of its own, which ends after [`ABORT_LIMIT`].
struct Parts {
    /// Nothing once it is complete.
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                match tokio::time::timeout(ABORT_LIMIT, upload.abort()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "an unfinished upload could not be aborted"),
                    Err(_) => {
                        tracing::debug!(
                            limit_s = ABORT_LIMIT.as_secs(),
                            "aborting an unfinished upload took too long"
                        );
                    }
                }
            });
        }
    }
}
