//! One kernel's scratch directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::ids::KernelId;

use super::environ::{self, MAX_ENVIRON_BYTES};
use super::error::{ScratchError, off_runtime};
use super::heir::Heir;
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
    /// To whom it belonged when it was looked at.
    owner: u32,
}

impl Scratch {
    pub(super) fn new(kernel: KernelId, path: PathBuf, owner: u32) -> Self {
        Self { kernel, path, owner }
    }

    /// The user to whom the directory belonged when it was looked at.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
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

    /// Makes `environ.txt` say this, for a restart; the old one stays when this can't be carried. Whatever the kernel's user
    /// has put in its place is moved beside it, and a file that is right is not written, so that this works on a full disk.
    pub async fn write_environ(&self, environ: &BTreeMap<String, String>) -> Result<(), ScratchError> {
        let text = environ::render(environ)?;
        let Self { kernel, path, .. } = self.clone();
        off_runtime(move || {
            if read_config(&path).is_ok_and(|bytes| bytes == text.as_bytes()) {
                return Ok(());
            }
            write_config(&path, text.as_bytes())
                .map_err(|source| ScratchError::WriteEnviron { kernel, source })
        })
        .await
    }

    /// What `environ.txt` says, for a kernel of which nothing else is known; empty when the file is gone.
    ///
    /// The kernel's user can write to this file. It decides about nothing but their own kernel.
    pub async fn read_environ(&self) -> Result<BTreeMap<String, String>, ScratchError> {
        let Self { kernel, path, .. } = self.clone();
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

/// Writes the file beside its place and renames it. Nothing that is in the way is opened or followed.
fn write_config(scratch: &Path, text: &[u8]) -> io::Result<()> {
    let top = beneath::open_trusted(scratch)?;
    let heir = Heir::of(&rustix::fs::fstat(&top)?);
    let config = match beneath::open_dir(&top, CONFIG_DIR) {
        Err(Errno::NOENT) => make_config(&top, heir)?,
        Err(Errno::NOTDIR | Errno::LOOP) => {
            move_aside(&top, CONFIG_DIR)?;
            make_config(&top, heir)?
        }
        opened => opened?,
    };
    let temporary = format!(".{}.tmp", Uuid::new_v4().as_simple());
    let written = write_beside(&config, &temporary, text, heir);
    if written.is_err() {
        // The first error is the one to tell.
        let _ = rustix::fs::unlinkat(&config, &temporary, AtFlags::empty());
    }
    written
}

/// As closed as the kernel's directory, whatever the umask says.
fn make_config(top: &OwnedFd, heir: Heir) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(top, CONFIG_DIR, Mode::RWXU)?;
    let made = beneath::open_dir(top, CONFIG_DIR)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(if heir.is_open() { 0o755 } else { 0o700 }))?;
    heir.take(&made)?;
    Ok(made)
}

fn write_beside(config: &OwnedFd, temporary: &str, text: &[u8], heir: Heir) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(config, temporary, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(text)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(if heir.is_open() { 0o644 } else { 0o600 }))?;
    heir.take(&file)?;
    match rustix::fs::renameat(config, temporary, config, ENVIRON_FILE) {
        Err(Errno::ISDIR) => {
            move_aside(config, ENVIRON_FILE)?;
            rustix::fs::renameat(config, temporary, config, ENVIRON_FILE)?;
        }
        renamed => renamed?,
    }
    Ok(())
}

/// Gives what has this name another one: it is the user's.
fn move_aside(dir: &OwnedFd, name: &str) -> io::Result<()> {
    let aside = format!("{name}.{}", Uuid::new_v4().as_simple());
    Ok(rustix::fs::renameat(dir, name, dir, aside)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    fn scratch() -> (tempfile::TempDir, Scratch) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(CONFIG_DIR)).unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let scratch = Scratch::new(KernelId::random(), dir.path().to_owned(), owner);
        (dir, scratch)
    }

    #[tokio::test]
    async fn a_missing_file_is_an_empty_environment() {
        let (dir, scratch) = scratch();
        assert!(scratch.read_environ().await.unwrap().is_empty());
        fs::remove_dir(dir.path().join(CONFIG_DIR)).unwrap();
        assert!(scratch.read_environ().await.unwrap().is_empty());
    }

    /// What the kernel's user can do to the file, which lies in their directory.
    #[tokio::test]
    async fn a_file_that_its_user_has_replaced_is_written_anew_and_nothing_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("environ.txt"), "theirs").unwrap();
        let environ = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let acts: [fn(&Path, &Path); 9] = [
            |_, _| {},
            |file, _| fs::remove_file(file).unwrap(),
            |file, _| fs::write(file, "A=c").unwrap(),
            |file, _| {
                fs::remove_file(file).unwrap();
                mknodat(CWD, file, FileType::Fifo, Mode::RWXU, 0).unwrap();
            },
            |file, outside| {
                fs::remove_file(file).unwrap();
                symlink(outside.join("environ.txt"), file).unwrap();
            },
            |file, _| {
                fs::remove_file(file).unwrap();
                fs::create_dir_all(file.join("not/empty")).unwrap();
            },
            |file, _| fs::remove_dir_all(file.parent().unwrap()).unwrap(),
            |file, outside| {
                fs::remove_dir_all(file.parent().unwrap()).unwrap();
                symlink(outside, file.parent().unwrap()).unwrap();
            },
            |file, _| {
                fs::remove_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file.parent().unwrap(), "a file").unwrap();
            },
        ];
        for (n, act) in acts.iter().enumerate() {
            let (dir, scratch) = scratch();
            let file = dir.path().join(".config/environ.txt");
            scratch.write_environ(&environ).await.unwrap();
            act(&file, outside.path());
            scratch.write_environ(&environ).await.unwrap_or_else(|error| panic!("{n}: {error}"));
            assert_eq!(fs::read_to_string(&file).unwrap(), "A=b\n", "{n}");
            let found = fs::symlink_metadata(&file).unwrap();
            assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o644, "{n}");
            assert!(fs::symlink_metadata(dir.path().join(".config")).unwrap().is_dir(), "{n}");
        }
        assert_eq!(fs::read_to_string(outside.path().join("environ.txt")).unwrap(), "theirs");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
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
