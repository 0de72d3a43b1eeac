//! Taking kernels' directories away: one rename into the trash each, which the sweeper empties.

use std::fs;
use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::ids::KernelId;

use super::error::{ScratchError, off_runtime};
use super::layout::Layout;
use super::root::ScratchRoot;
use super::sweep;

impl ScratchRoot {
    /// The kernels that have had a directory here for at least `age`; whatever has another name is not ours. What was in
    /// the making for so long belongs to a create that nobody waits for, and goes. Blocks.
    pub fn older_than(&self, age: Duration) -> io::Result<Vec<KernelId>> {
        let is_old =
            |found: &fs::Metadata| found.modified().is_ok_and(|at| at.elapsed().unwrap_or_default() >= age);
        for entry in fs::read_dir(self.making())? {
            let entry = entry?;
            if entry.metadata().is_ok_and(|found| is_old(&found)) {
                fs::rename(entry.path(), self.trash().join(entry.file_name()))?;
                self.discarded().notify_one();
            }
        }
        let mut kernels = Vec::new();
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(kernel) = name.to_str().and_then(|name| name.parse::<KernelId>().ok()) else { continue };
            // A UUID has several spellings; the directory has one.
            let is_ours = name.to_str() == Some(&kernel.to_string());
            // The user's files may have changed since the directory was made.
            let were_changed = Layout::homes()
                .iter()
                .any(|home| fs::symlink_metadata(entry.path().join(home)).is_ok_and(|found| !is_old(&found)));
            let is_dir = |found: fs::Metadata| found.is_dir() && is_old(&found);
            if is_ours && !were_changed && entry.metadata().is_ok_and(is_dir) {
                kernels.push(kernel);
            }
        }
        Ok(kernels)
    }

    /// Takes the kernel's directory away, in one rename into the trash; the sweeper deletes it later. A directory
    /// that is not there is fine. One that the disk does not let go is discarded when the disk is better.
    pub async fn discard(&self, kernel: KernelId) -> Result<(), ScratchError> {
        let root = self.clone();
        off_runtime(move || {
            let done = root.discard_now(kernel);
            if done.is_err() {
                root.left().insert(kernel);
                root.doubt();
            }
            done
        })
        .await
    }

    /// Discards what could not be discarded. Blocks.
    pub(super) fn discard_left(&self) {
        self.left().retain(|kernel| match self.discard_now(*kernel) {
            Ok(()) => {
                tracing::info!(%kernel, "its scratch directory could be discarded after all");
                false
            }
            Err(_) => true,
        });
    }

    /// Starts the task that empties the trash, what earlier lives of the agent left there included. Once per root;
    /// it ends soon after `cancel`, in the middle of a delete if need be.
    pub fn start_sweeper(&self, cancel: CancellationToken, tracker: &TaskTracker) {
        tracker.spawn(sweep::run(self.clone(), cancel));
    }

    /// Takes the directory away at once. Blocks.
    pub(super) fn discard_now(&self, kernel: KernelId) -> Result<(), ScratchError> {
        let away = self.trash().join(format!("{kernel}.{}", Uuid::new_v4().as_simple()));
        match fs::rename(self.path_of(kernel), away) {
            Ok(()) => {
                self.discarded().notify_one();
                Ok(())
            }
            // Where the trash is gone, too, the whole disk is, and the directory with it for now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.trash().is_dir() => Ok(()),
            Err(source) => Err(ScratchError::Discard { kernel, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn what_could_not_be_discarded_is_discarded_later() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let (old, again) = (KernelId::random(), KernelId::random());
        for kernel in [old, again] {
            root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        }
        // A trash that takes nothing.
        fs::remove_dir(root.trash()).unwrap();
        for kernel in [old, again] {
            root.discard(kernel).await.unwrap_err();
        }
        assert!(root.take_doubt() && !root.take_doubt());
        fs::create_dir(root.trash()).unwrap();
        root.create(again, &BTreeMap::new(), None).await.unwrap();
        root.look().unwrap();
        assert!(!root.path_of(old).exists());
        assert!(root.path_of(again).exists(), "that is a new kernel's");
    }

    #[tokio::test]
    async fn only_old_directories_named_by_an_id_are_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let kernel = KernelId::random();
        root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        fs::create_dir(dir.path().join("0B9E1D3A-1F0C-4A52-9A43-0C7A6F3B2F10")).unwrap();
        fs::write(dir.path().join(KernelId::random().to_string()), "").unwrap();
        fs::create_dir(root.making().join("cut off")).unwrap();
        assert!(root.older_than(Duration::from_secs(60)).unwrap().is_empty());
        assert!(root.making().join("cut off").exists());
        assert_eq!(root.older_than(Duration::ZERO).unwrap(), [kernel]);
        assert!(!root.making().join("cut off").exists());
        root.discard(kernel).await.unwrap();
        root.discard(kernel).await.unwrap();
        assert!(root.older_than(Duration::ZERO).unwrap().is_empty());
    }
}
