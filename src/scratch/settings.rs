//! What a kernel's runner finds in its directory: `environ.txt`, the environment. Written and read where the kernel has it, which
//! its user may have replaced by anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::directory::{CONFIG_DIR, Scratch};
use super::environ::{self, MAX_ENVIRON_BYTES};
use super::error::{ScratchError, off_runtime};
use super::heir::Heir;
use super::path::RelativePath;
use super::{beneath, environ::EnvironError};

/// The environment's file among the settings.
pub(super) const ENVIRON_FILE: &str = "environ.txt";

impl Scratch {
    /// Makes `environ.txt` say this, for a restart; the old one stays when this can't be carried. Whatever the kernel's user
    /// has put in its place, or where the settings are mounted, is moved beside it, and a file that is right is not written,
    /// so that this works on a full disk.
    pub async fn write_environ(&self, environ: &BTreeMap<String, String>) -> Result<(), ScratchError> {
        let text = environ::render(environ)?;
        let scratch = self.clone();
        off_runtime(move || {
            write(&scratch, text.as_bytes())
                .map_err(|source| ScratchError::WriteEnviron { kernel: scratch.kernel(), source })
        })
        .await
    }

    /// What `environ.txt` says, for a kernel of which nothing else is known; empty when the file is gone.
    ///
    /// The kernel's user can write to this file where it lies among their own. It decides about nothing but their own kernel.
    pub async fn read_environ(&self) -> Result<BTreeMap<String, String>, ScratchError> {
        let scratch = self.clone();
        off_runtime(move || {
            let kernel = scratch.kernel();
            let bytes = match settings(&scratch).and_then(|dir| read(&dir)) {
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

/// The directory of the settings, as far as it is one.
fn settings(scratch: &Scratch) -> io::Result<OwnedFd> {
    match scratch.config() {
        Some(config) => beneath::open_trusted(config),
        None => Ok(beneath::open_dir(beneath::open_trusted(scratch.home())?, CONFIG_DIR)?),
    }
}

/// The file's bytes, at most one more than are allowed.
fn read(settings: &OwnedFd) -> io::Result<Vec<u8>> {
    let name =
        RelativePath::parse(ENVIRON_FILE).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let file = beneath::open_regular(settings, &name)?;
    let mut bytes = Vec::new();
    file.take(MAX_ENVIRON_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes the file, if it says something else.
fn write(scratch: &Scratch, text: &[u8]) -> io::Result<()> {
    // Where the settings are, or where they are mounted.
    let among_files = claim(scratch.home())?;
    let settings = match scratch.config() {
        Some(config) => beneath::open_trusted(config)?,
        None => among_files,
    };
    if read(&settings).is_ok_and(|bytes| bytes == text) {
        return Ok(());
    }
    let top = beneath::open_trusted(scratch.config().unwrap_or(scratch.home()))?;
    let heir = Heir::of(&rustix::fs::fstat(top)?);
    let temporary = format!(".{}.tmp", Uuid::new_v4().as_simple());
    let written = write_beside(&settings, &temporary, text, heir);
    if written.is_err() {
        // The first error is the one to tell.
        let _ = rustix::fs::unlinkat(&settings, &temporary, AtFlags::empty());
    }
    written
}

/// Opens the directory `.config` among the user's files, and makes it where there is none. Nothing that is in the way is opened
/// or followed.
fn claim(home: &Path) -> io::Result<OwnedFd> {
    let top = beneath::open_trusted(home)?;
    let heir = Heir::of(&rustix::fs::fstat(&top)?);
    match beneath::open_dir(&top, CONFIG_DIR) {
        Err(Errno::NOENT) => make_config(&top, heir),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            move_aside(&top, CONFIG_DIR)?;
            make_config(&top, heir)
        }
        opened => Ok(opened?),
    }
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

    use super::super::layout::Layout;
    use super::*;
    use crate::ids::KernelId;

    /// As earlier versions made them: the settings are among the files.
    fn scratch() -> (tempfile::TempDir, Scratch) {
        let dir = tempfile::tempdir().unwrap();
        let kernel = KernelId::random();
        let path = dir.path().join(kernel.to_string());
        fs::create_dir_all(path.join(CONFIG_DIR)).unwrap();
        let layout = Layout::of(kernel, &path, None).unwrap();
        (dir, Scratch::find(kernel, &path, layout).unwrap().unwrap())
    }

    /// As this version makes them.
    fn apart() -> (tempfile::TempDir, Scratch) {
        let dir = tempfile::tempdir().unwrap();
        for part in ["work/.config", "config"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        let found = Scratch::find(KernelId::random(), dir.path(), Layout::NEW);
        (dir, found.unwrap().unwrap())
    }

    #[tokio::test]
    async fn a_missing_file_is_an_empty_environment() {
        let (_dir, scratch) = scratch();
        assert!(scratch.read_environ().await.unwrap().is_empty());
        fs::remove_dir(scratch.home().join(CONFIG_DIR)).unwrap();
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
            let (_dir, scratch) = scratch();
            let file = scratch.home().join(".config/environ.txt");
            scratch.write_environ(&environ).await.unwrap();
            act(&file, outside.path());
            scratch.write_environ(&environ).await.unwrap_or_else(|error| panic!("{n}: {error}"));
            assert_eq!(fs::read_to_string(&file).unwrap(), "A=b\n", "{n}");
            let found = fs::symlink_metadata(&file).unwrap();
            assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o644, "{n}");
            assert!(fs::symlink_metadata(scratch.home().join(".config")).unwrap().is_dir(), "{n}");
        }
        assert_eq!(fs::read_to_string(outside.path().join("environ.txt")).unwrap(), "theirs");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    /// The user's code reaches the settings read-only, and the place on which they are mounted not at all while it runs; between
    /// two containers, and by an upload, anything may come to lie there.
    #[tokio::test]
    async fn settings_apart_stay_where_they_are_whatever_lies_where_they_are_mounted() {
        let outside = tempfile::tempdir().unwrap();
        let environ = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        let acts: [fn(&Path, &Path); 4] = [
            |_, _| {},
            |point, _| fs::remove_dir(point).unwrap(),
            |point, outside| {
                fs::remove_dir(point).unwrap();
                symlink(outside, point).unwrap();
            },
            |point, _| {
                fs::remove_dir(point).unwrap();
                fs::write(point, "a file").unwrap();
            },
        ];
        for (n, act) in acts.iter().enumerate() {
            let (dir, scratch) = apart();
            let point = scratch.home().join(CONFIG_DIR);
            act(&point, outside.path());
            assert!(scratch.read_environ().await.unwrap().is_empty(), "{n}");
            scratch.write_environ(&environ).await.unwrap_or_else(|error| panic!("{n}: {error}"));
            assert_eq!(fs::read_to_string(dir.path().join("config/environ.txt")).unwrap(), "A=b\n", "{n}");
            assert_eq!(scratch.read_environ().await.unwrap(), environ, "{n}");
            assert!(fs::symlink_metadata(&point).unwrap().is_dir(), "{n}");
            assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "{n}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_planted_file_is_an_error_not_a_leak_or_a_hang() {
        let (_dir, scratch) = scratch();
        let file = scratch.home().join(".config/environ.txt");
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
