//! One kernel's scratch directory.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::ids::KernelId;

use super::environ::{self, MAX_ENVIRON_BYTES};
use super::error::{ScratchError, off_runtime};
use super::path::RelativePath;
use super::{beneath, environ::EnvironError};

/// Where the runner looks for its settings, below the kernel's directory.
pub(super) const CONFIG_DIR: &str = ".config";
/// The environment's file in [`CONFIG_DIR`].
pub(super) const ENVIRON_FILE: &str = "environ.txt";

/// A kernel's directory: `/home/work` in its container. Knows a place, holds nothing open.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Whose it is.
    kernel: KernelId,
    /// `{root}/{kernel id}`.
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new(kernel: KernelId, path: PathBuf) -> Self {
        Self { kernel, path }
    }

    /// Whose directory it is.
    #[must_use]
    pub fn kernel(&self) -> KernelId {
        self.kernel
    }

    /// `{root}/{kernel id}`, absolute: the source of the bind to `/home/work`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When it was made; `None` where its file system does not know.
    pub async fn born(&self) -> Option<SystemTime> {
        let path = self.path.clone();
        off_runtime(move || Ok(std::fs::metadata(path).and_then(|found| found.created()).ok()))
            .await
            .ok()
            .flatten()
    }

    /// Writes another environment, for a restart; the old one stays when this can't be carried.
    pub async fn write_environ(&self, environ: &BTreeMap<String, String>) -> Result<(), ScratchError> {
        let text = environ::render(environ)?;
        self.upload(&format!("{CONFIG_DIR}/{ENVIRON_FILE}"), text.into()).await
    }

    /// The environment written at the kernel's creation, for a restart or a recovery; empty when the file is gone.
    ///
    /// The kernel's user can write to this file. It decides about nothing but their own kernel.
    pub async fn read_environ(&self) -> Result<BTreeMap<String, String>, ScratchError> {
        let Self { kernel, path } = self.clone();
        off_runtime(move || {
            let bytes = match read_config(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
                Err(source) => return Err(ScratchError::ReadEnviron { kernel, source }),
            };
            if bytes.len() > MAX_ENVIRON_BYTES {
                return Err(EnvironError::TooLarge { bytes: bytes.len() }.into());
            }
            let (environ, skipped) = environ::parse(&bytes);
            if skipped > 0 {
                tracing::warn!(%kernel, skipped, "environ.txt has lines that are no NAME=value; they are left out");
            }
            Ok(environ)
        })
        .await
    }
}

/// The file's bytes, at most one more than are allowed.
fn read_config(scratch: &Path) -> io::Result<Vec<u8>> {
    let name = RelativePath::parse(&format!("{CONFIG_DIR}/{ENVIRON_FILE}"))
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let file = beneath::open_regular(beneath::open_trusted(scratch)?, &name)?;
    let mut bytes = Vec::new();
    file.take(MAX_ENVIRON_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn scratch() -> (tempfile::TempDir, Scratch) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(CONFIG_DIR)).unwrap();
        let scratch = Scratch::new(KernelId::random(), dir.path().to_owned());
        (dir, scratch)
    }

    #[tokio::test]
    async fn a_missing_file_is_an_empty_environment() {
        let (dir, scratch) = scratch();
        assert!(scratch.read_environ().await.unwrap().is_empty());
        fs::remove_dir(dir.path().join(CONFIG_DIR)).unwrap();
        assert!(scratch.read_environ().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_planted_file_is_an_error_not_a_leak_or_a_hang() {
        let (dir, scratch) = scratch();
        let file = dir.path().join(".config/environ.txt");
        symlink("/proc/self/environ", &file).unwrap();
        assert!(scratch.read_environ().await.is_err());
        fs::remove_file(&file).unwrap();
        mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(scratch.read_environ().await.is_err());
        fs::remove_file(&file).unwrap();
        fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        let error = scratch.read_environ().await.unwrap_err();
        assert!(matches!(error, ScratchError::Environ(EnvironError::TooLarge { .. })), "{error}");
    }
}
