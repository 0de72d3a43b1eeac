//! Looks at kernels' files, for their users, without getting stuck there.
//!
//! A virtual folder may lie on a network file system that does not answer. A look there never ends, and neither does its
//! thread, so neither a kernel nor all together get more than some of them: everything else needs threads too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::KernelError;
use crate::ids::KernelId;

/// Looks at one kernel's files at a time.
const OF_ONE: usize = 2;
/// Looks at all kernels' files at a time.
const OF_ALL: usize = 32;

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
    pub(super) async fn look<T: Send + 'static>(
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_kernel_whose_files_hang_keeps_no_other_from_its_own() {
        let looks = Looks::default();
        let (stuck, fine) = (KernelId::random(), KernelId::random());
        let held: Vec<_> = (0..OF_ONE).map(|_| looks.of(stuck).try_acquire_owned().unwrap()).collect();
        let late = looks.look(stuck, Duration::from_millis(1), || ()).await;
        assert!(matches!(late, Err(KernelError::FilesLate { .. })), "{late:?}");
        assert_eq!(looks.look(fine, LONG, || 7).await.unwrap(), 7);
        drop(held);
        assert_eq!(looks.look(stuck, LONG, || 7).await.unwrap(), 7);
        looks.of(fine);
        assert!(looks.kernels.lock().unwrap().len() <= 2, "kernels that nobody looks at are not kept");
    }
}
