//! A kernel's files, listed and fetched for its user.
//!
//! A virtual folder may lie on a network file system that does not answer. A look there never ends, and neither does its
//! thread, so neither a kernel nor all together get more than some of them: everything else needs threads too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::{Failure, KernelError};
use super::registry::Kernels;
use crate::ids::KernelId;
use crate::scratch::Tree;
use crate::wire::reply::Listing;

/// Looks at one kernel's files at a time.
const OF_ONE: usize = 2;
/// Looks at all kernels' files at a time.
const OF_ALL: usize = 32;
/// How long a listing may take; the manager of 1.4 waits 5 s.
const LIST_LIMIT: Duration = Duration::from_secs(4);
/// How long an archive may take; the manager of 1.4 waits 180 s.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(60);

/// Looks that go on.
pub struct Looks {
    /// By kernel. Std mutex: held for a look-up, never over an await.
    kernels: Mutex<HashMap<KernelId, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { kernels: Mutex::default(), all: Arc::new(Semaphore::new(OF_ALL)) }
    }
}

impl Looks {
    fn of(&self, kernel: KernelId) -> Arc<Semaphore> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.retain(|_, places| places.available_permits() < OF_ONE);
        kernels.entry(kernel).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE))).clone()
    }

    /// Does `look` on a thread of its own, which keeps its places for as long as it takes, whoever still waits.
    async fn look<T: Send + 'static>(
        &self,
        kernel: KernelId,
        limit: Duration,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, KernelError> {
        let (own, all) = (self.of(kernel), self.all.clone());
        let work = async {
            let broken = |_| KernelError::Thread("look at the kernel's files");
            let places =
                (own.acquire_owned().await.map_err(broken)?, all.acquire_owned().await.map_err(broken)?);
            let looking = tokio::task::spawn_blocking(move || {
                let found = look();
                drop(places);
                found
            });
            looking.await.map_err(|_| KernelError::Thread("look at the kernel's files"))
        };
        timeout(limit, work).await.map_err(|_| KernelError::FilesLate { kernel, limit })?
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kernel_whose_files_hang_keeps_no_other_from_its_own() {
        let looks = Looks::default();
        let (stuck, fine) = (KernelId::random(), KernelId::random());
        let held: Vec<_> = (0..OF_ONE).map(|_| looks.of(stuck).try_acquire_owned().unwrap()).collect();
        let late = looks.look(stuck, Duration::from_millis(1), || ()).await;
        assert!(matches!(late, Err(KernelError::FilesLate { .. })), "{late:?}");
        assert_eq!(looks.look(fine, LIST_LIMIT, || 7).await.unwrap(), 7);
        drop(held);
        assert_eq!(looks.look(stuck, LIST_LIMIT, || 7).await.unwrap(), 7);
        looks.of(fine);
        assert!(looks.kernels.lock().unwrap().len() <= 2, "kernels that nobody looks at are not kept");
    }
}
