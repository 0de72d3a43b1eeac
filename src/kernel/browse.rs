//! A kernel's files, listed and fetched for its user.

use std::sync::Arc;
use std::time::Duration;

use super::error::{Failure, KernelError};
use super::registry::Kernels;
use crate::ids::KernelId;
use crate::scratch::Tree;
use crate::wire::reply::Listing;

/// How long a listing may take; the manager of 1.4 waits 5 s.
const LIST_LIMIT: Duration = Duration::from_secs(4);
/// How long an archive may take; the manager of 1.4 waits 180 s.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(60);

impl Kernels {
    /// What a directory of the kernel's holds.
    pub async fn list_files(&self, kernel: KernelId, path: String) -> Result<Listing, Failure> {
        let tree = self.tree(kernel).await?;
        let looked = self.node.looks.look(kernel, LIST_LIMIT, move || tree.list(&path)).await;
        Ok(looked?)
    }

    /// A file or a directory of the kernel's as a tar.
    pub async fn download(&self, kernel: KernelId, path: String) -> Result<Vec<u8>, Failure> {
        let tree = self.tree(kernel).await?;
        let looked = self.node.looks.look(kernel, ARCHIVE_LIMIT, move || tree.archive(&path)).await;
        let tar = looked?.map_err(KernelError::from)?;
        tracing::debug!(%kernel, bytes = tar.len(), "packed files for the user");
        Ok(tar)
    }

    async fn tree(&self, kernel: KernelId) -> Result<Arc<Tree>, Failure> {
        let live = self.live(kernel).await?;
        self.use_now(kernel);
        Ok(live.tree.clone())
    }
}
