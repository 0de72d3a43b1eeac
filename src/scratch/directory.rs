//! One kernel's scratch directory: where its user's files and its runner's settings are, whoever made it (`layout`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::ids::KernelId;

use super::error::{ScratchError, off_runtime};
use super::layout::Layout;

/// Where runners look for their settings, below the user's files.
pub(super) const CONFIG_DIR: &str = ".config";

/// A kernel's directory: its user's files and its runner's settings. Knows places, holds nothing open.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Whose it is.
    kernel: KernelId,
    /// `/home/work` in its container.
    home: PathBuf,
    /// Its runner's settings, where they lie apart from the user's files.
    config: Option<PathBuf>,
    /// To whom the user's files belonged when they were looked at.
    owner: u32,
}

impl Scratch {
    /// The kernel's directory is `path`.
    pub(super) fn new(kernel: KernelId, path: &Path, layout: Layout, owner: u32) -> Self {
        Self { kernel, home: layout.home(path), config: layout.config(path), owner }
    }

    /// The same, if the user's files are there. Blocks.
    pub(super) fn find(kernel: KernelId, path: &Path, layout: Layout) -> io::Result<Option<Self>> {
        let found = Self::new(kernel, path, layout, 0);
        Ok(owner(&found.home)?.map(|owner| Self { owner, ..found }))
    }

    /// Looks again, since its files may have been given to another user or deleted; `None` where they are gone.
    pub async fn again(&self) -> Result<Option<Self>, ScratchError> {
        let old = self.clone();
        off_runtime(move || {
            let owner =
                owner(&old.home).map_err(|source| ScratchError::Look { kernel: old.kernel, source })?;
            Ok(owner.map(|owner| Self { owner, ..old }))
        })
        .await
    }

    /// The user to whom the files belonged when they were looked at.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Whose directory it is.
    #[must_use]
    pub fn kernel(&self) -> KernelId {
        self.kernel
    }

    /// The user's files, absolute: the source of the bind to `/home/work`.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The runner's settings where they lie apart, absolute: mounted read-only wherever a runner looks for them.
    #[must_use]
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// When it was made; `None` where its file system does not know.
    pub async fn born(&self) -> Option<SystemTime> {
        let home = self.home.clone();
        off_runtime(move || Ok(fs::metadata(home).and_then(|found| found.created()).ok()))
            .await
            .ok()
            .flatten()
    }
}

/// To whom a directory belongs; `None` where there is none of that name.
fn owner(dir: &Path) -> io::Result<Option<u32>> {
    match fs::symlink_metadata(dir) {
        Ok(found) => Ok(found.is_dir().then(|| found.uid())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
