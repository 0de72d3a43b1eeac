//! All output files of a run to the store, within a time limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Signer;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::patience::Outage;
use crate::scratch::{OutputFile, Scratch};
use crate::wire::reply::ResultFile;

use super::client::{BucketError, client};
use super::config::{Acl, S3Config};
use super::object;
use super::upload::{UploadError, upload};

/// Files under way at once, over all kernels of the node: with two parts each, and one being read, the buffers take
/// 60 MiB at most.
pub(super) const PARALLEL_FILES: usize = 4;
/// What stands for a URL when nothing is uploaded (PROTOCOL section 8).
const DUMMY_URL: &str = "#dummy-upload";

/// Where output files go. Clones share one client and its limits.
#[derive(Debug, Clone)]
pub struct OutputStore {
    /// `None` without keys: then nothing is uploaded.
    bucket: Option<Arc<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    config: S3Config,
    client: AmazonS3,
    /// One permit per file under way.
    slots: Semaphore,
    /// Runs whose files did not get through. A std lock, held for a few instructions.
    outage: Mutex<Outage>,
}

impl OutputStore {
    /// Asks nobody. A rustls provider must be installed in the process. Without settings nothing will be uploaded.
    pub fn new(config: Option<S3Config>) -> Result<Self, BucketError> {
        let Some(config) = config else {
            tracing::info!("no AWS keys: output files are reported but not uploaded");
            return Ok(Self { bucket: None });
        };
        let client = client(&config)?;
        let (slots, outage) = (Semaphore::new(PARALLEL_FILES), Mutex::default());
        Ok(Self { bucket: Some(Arc::new(Bucket { config, client, slots, outage })) })
    }

    /// Uploads the files and tells where they are, in the order given. Never fails: a file that could not be uploaded
    /// is logged and left out.
    ///
    /// `per_file_limit` runs from the moment a file's turn comes, `total_limit` from now. Dropping the future aborts
    /// what is under way.
    pub async fn publish(
        &self,
        scratch: &Scratch,
        files: Vec<OutputFile>,
        per_file_limit: Duration,
        total_limit: Duration,
    ) -> Vec<ResultFile> {
        let Some(bucket) = &self.bucket else {
            let dummy = |file: OutputFile| ResultFile { name: file.relative, url: DUMMY_URL.to_owned() };
            return files.into_iter().map(dummy).collect();
        };
        let (began, asked) = (Instant::now(), files.len());
        let results: Vec<_> = stream::iter(files)
            .map(|file| async move {
                let whole = bucket.put(scratch, &file.relative, per_file_limit);
                let result = match tokio::time::timeout_at(began + total_limit, whole).await {
                    Ok(result) => result,
                    Err(_) => Err(UploadError::TooSlow(total_limit)),
                };
                (file.relative, result)
            })
            .buffered(PARALLEL_FILES)
            .collect()
            .await;
        let mut published = Vec::with_capacity(asked);
        let mut failures = Vec::new();
        for (name, result) in results {
            match result {
                Ok(url) => published.push(ResultFile { name, url }),
                Err(error) => failures.push((name, error)),
            }
        }
        bucket.report(scratch, published.len(), &failures);
        published
    }
}

impl Bucket {
    /// One file; answers its URL.
    async fn put(&self, scratch: &Scratch, relative: &str, limit: Duration) -> Result<String, UploadError> {
        // The semaphore is never closed, so that this waits and does not fail.
        let _slot = self.slots.acquire().await;
        let key = object::key(self.config.prefix.as_str(), scratch.kernel(), relative);
        let path = Path::parse(&key)?;
        let upload = upload(&self.client, scratch, relative, &path);
        tokio::time::timeout(limit, upload).await.map_err(|_| UploadError::TooSlow(limit))??;
        match self.config.acl {
            Acl::PublicRead => {
                Ok(object::public_url(self.config.endpoint.as_ref(), &self.config.bucket, path.as_ref()))
            }
            Acl::Private => {
                #[allow(
                    clippy::default_trait_access,
                    reason = "GET is the default; its type is of a crate not used here"
                )]
                let get = Default::default();
                Ok(self.client.signed_url(get, &path, self.config.url_expiry).await?.into())
            }
        }
    }

    /// One line for a run, and none for the following ones while nothing gets through.
    fn report(&self, scratch: &Scratch, uploaded: usize, failures: &[(String, UploadError)]) {
        let kernel = scratch.kernel();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if uploaded > 0 {
            tracing::debug!(%kernel, uploaded, "output files uploaded");
            if let Some(past) = outage.worked(Instant::now()) {
                tracing::info!(
                    seconds = past.seconds(),
                    failures = past.failures,
                    "uploads of output files work again"
                );
            }
        }
        let Some((file, error)) = failures.first() else { return };
        let failed = failures.len();
        if outage.failed(Instant::now()) {
            tracing::warn!(%kernel, failed, file, %error, "output files were not uploaded and are left out of the answer");
        } else {
            tracing::debug!(%kernel, failed, file, %error, "output files were not uploaded");
        }
    }
}
