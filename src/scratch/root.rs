//! The directory that holds every kernel's directory, and the agent's own below `.agent`: found usable, and followed while its
//! disk does well or not.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::iter;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::ids::KernelId;

use super::error::ScratchError;
use super::quota::Limit;

/// The agent's own directory below the scratch root.
pub(super) const AGENT_DIR: &str = ".agent";

/// The directories in it. All are made together, so that a disk that has taken them once need not take more for a kernel's end.
const DIRS: [&str; 7] = ["trash", "making", "endings", "kernels", "runs", "reserve", "projects"];

/// The scratch root, checked to be usable. Clones mean the same one.
///
/// Agents of several names may have it one after the other: [`older_than`](Self::older_than) then shows the kernels of all.
#[derive(Debug, Clone)]
pub struct ScratchRoot {
    /// Where it is, absolute and free of links, as Docker wants a bind's source.
    path: PathBuf,
    /// Tells the sweeper that something was put into the trash.
    discarded: Arc<Notify>,
    /// How the disk does.
    state: Arc<State>,
}

/// What is known of the disk below the root.
#[derive(Debug, Default)]
struct State {
    /// The agent's own directory as it was found; `None` until it is whole. A std mutex, held for a look-up.
    home: Mutex<Option<Home>>,
    /// Why what is there is not the root that it should be, if it is not. A std mutex, held for a look-up.
    away: Mutex<Option<String>>,
    /// Something could not be written.
    doubt: AtomicBool,
    /// The same, for whoever waits for it.
    doubted: Notify,
    /// Kernels whose directories could not be discarded. Held while they are: no disk access waits for it on the runtime.
    left: Mutex<BTreeSet<KernelId>>,
    /// What each kernel may take; not set where there is no limit.
    limit: OnceLock<Limit>,
}

impl State {
    fn home(&self) -> MutexGuard<'_, Option<Home>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, Option<String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which directory of which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Home {
    device: u64,
    inode: u64,
}

impl Home {
    fn of(dir: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(dir)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }
}

impl ScratchRoot {
    /// Takes the existing directory `path` and makes `{root}/.agent` with its directories. A disk that takes nothing at present
    /// (full, without inodes, read-only, broken) is no error: [`ScratchRoot::look`] says so until it is better, and the agent can
    /// end what runs. Blocks; meant for the start.
    pub fn open(path: &Path) -> Result<Self, ScratchError> {
        let uid = rustix::process::geteuid().as_raw();
        let path = path.canonicalize().map_err(|source| ScratchError::RootMissing {
            path: path.to_owned(),
            uid,
            source,
        })?;
        if !path.is_dir() {
            return Err(ScratchError::RootNotDirectory { path });
        }
        let root = Self { path, discarded: Arc::default(), state: Arc::default() };
        let not_writable = |source| ScratchError::RootNotWritable { path: root.path.clone(), uid, source };
        match root.prepare().and_then(|()| root.try_writing().map_err(not_writable)) {
            Err(ScratchError::RootNotWritable { source, .. }) if may_pass(&source) => {}
            other => other?,
        }
        Ok(root)
    }

    /// Makes the agent's own directories, and remembers which file system has them.
    fn prepare(&self) -> Result<(), ScratchError> {
        let uid = rustix::process::geteuid().as_raw();
        let not_writable = |source| ScratchError::RootNotWritable { path: self.path.clone(), uid, source };
        let agent_dir = self.agent_dir();
        let dirs = iter::once(agent_dir.clone()).chain(DIRS.map(|dir| agent_dir.join(dir)));
        for dir in dirs {
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(not_writable(source));
                }
                _ => {}
            }
            // In a root that others can write to, somebody may have planted a link here.
            let found = fs::symlink_metadata(&dir).map_err(not_writable)?;
            if !found.is_dir() || found.uid() != uid {
                return Err(ScratchError::AgentDirForeign { path: dir, uid });
            }
            if found.mode() & 0o777 != 0o700 {
                fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(not_writable)?;
            }
        }
        *self.state.home() = Some(Home::of(&agent_dir).map_err(not_writable)?);
        Ok(())
    }

    /// Whether any of these kernels has a directory here. Blocks.
    #[must_use]
    pub fn has_any(&self, kernels: &[KernelId]) -> bool {
        kernels.iter().any(|kernel| fs::symlink_metadata(self.path_of(*kernel)).is_ok())
    }

    /// The root was not the one that it should be: whatever is there at the next look is taken for it. With a `reason`, no kernel can be
    /// made until this is said again without.
    pub fn begin_anew(&self, reason: Option<String>) {
        *self.state.home() = None;
        *self.state.away() = reason;
        self.doubt();
    }

    /// Why nothing can be written below the root, as far as that shows without writing. Makes up for what could not be made at the
    /// start, and discards what could not be discarded. Blocks.
    pub(super) fn look(&self) -> Result<(), String> {
        let path = self.path.display();
        let agent_dir = self.agent_dir();
        let home = *self.state.home();
        match (home, Home::of(&agent_dir)) {
            (None, _) => self.prepare().map_err(|error| with_cause(&error))?,
            (Some(home), Ok(found)) if home == found => {}
            (Some(_), Ok(_)) => {
                return Err(format!(
                    "the scratch root {path} is not the one that this agent began with: mount that again, or restart the agent"
                ));
            }
            // Never made anew: below a mount point that lost its file system it would be lost when that is back.
            (Some(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!(
                    "the agent's own directory {} is gone: is the file system of the scratch root mounted?",
                    agent_dir.display()
                ));
            }
            (Some(_), Err(error)) => return Err(format!("can't look at the scratch root {path}: {error}")),
        }
        let is_read_only = rustix::fs::statvfs(&self.path)
            .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        if is_read_only {
            return Err(format!(
                "the scratch root {path} is on a read-only file system: see dmesg for why, then mount it again with rw"
            ));
        }
        // In its own statement: what is left to discard may be on a disk that hangs.
        let away = self.state.away().clone();
        if let Some(away) = away {
            return Err(away);
        }
        self.discard_left();
        Ok(())
    }

    /// Writes a small file and removes it; permissions can't be judged by looking (quotas, ACLs, broken disks). Blocks.
    pub(super) fn write_something(&self) -> Result<(), String> {
        let path = self.path.display();
        self.try_writing().map_err(|error| format!("can't write below the scratch root {path}: {error}"))
    }

    fn try_writing(&self) -> io::Result<()> {
        try_writing(&self.path, &self.agent_dir())
    }

    /// Something could not be written below the root: whoever watches the disk looks soon, and tries to write.
    pub fn doubt(&self) {
        self.state.doubt.store(true, Ordering::Relaxed);
        self.state.doubted.notify_one();
    }

    /// Whether something could not be written since this was asked last.
    pub(super) fn take_doubt(&self) -> bool {
        self.state.doubt.swap(false, Ordering::Relaxed)
    }

    /// Waits for the next [`ScratchRoot::doubt`].
    pub(super) async fn doubted(&self) {
        self.state.doubted.notified().await;
    }

    /// Where it is: absolute, free of links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `{root}/.agent`: mode 0700, for what the agent has to remember.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.path.join(AGENT_DIR)
    }

    /// Tells the sweeper that something was put into the trash.
    pub(super) fn discarded(&self) -> &Arc<Notify> {
        &self.discarded
    }

    /// Kernels whose directories could not be discarded. To be held on blocking threads only.
    pub(super) fn left(&self) -> MutexGuard<'_, BTreeSet<KernelId>> {
        self.state.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `{root}/{kernel}`.
    pub(super) fn path_of(&self, kernel: KernelId) -> PathBuf {
        self.path.join(kernel.to_string())
    }

    /// What each kernel may take.
    pub(super) fn limit(&self) -> &OnceLock<Limit> {
        &self.state.limit
    }

    /// Whose which project is.
    pub(super) fn projects(&self) -> PathBuf {
        self.agent_dir().join("projects")
    }

    /// Where directories are made.
    pub(super) fn making(&self) -> PathBuf {
        self.agent_dir().join("making")
    }

    /// Where directories wait for the sweeper.
    pub(super) fn trash(&self) -> PathBuf {
        self.agent_dir().join("trash")
    }
}

/// Whether a disk that refuses like this may take writes again without anybody changing the agent's settings.
fn may_pass(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// An error and what is behind it, in one line.
fn with_cause(error: &ScratchError) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn try_writing(root: &Path, agent_dir: &Path) -> io::Result<()> {
    rustix::fs::access(root, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    let probe = agent_dir.join(format!("probe.{}", Uuid::new_v4().as_simple()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&probe)
        .and_then(|mut file| file.write_all(b"writable\n"));
    let removed = fs::remove_file(&probe);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_missing_root_says_how_to_make_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = ScratchRoot::open(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("mkdir -p"), "{error}");
    }

    #[test]
    fn a_file_is_no_root_and_makes_no_agent_dir() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = ScratchRoot::open(&dir.path().join("file")).unwrap_err();
        assert!(matches!(error, ScratchError::RootNotDirectory { .. }), "{error}");
        fs::write(dir.path().join(AGENT_DIR), "").unwrap();
        let error = ScratchRoot::open(dir.path()).unwrap_err();
        assert!(matches!(error, ScratchError::AgentDirForeign { .. }), "{error}");
    }

    #[test]
    fn a_planted_agent_dir_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), dir.path().join(AGENT_DIR)).unwrap();
        let error = ScratchRoot::open(dir.path()).unwrap_err();
        assert!(matches!(error, ScratchError::AgentDirForeign { .. }), "{error}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_root_that_can_not_be_written_is_found_by_trying() {
        // sysfs takes no directories from anybody, root included.
        let error = ScratchRoot::open(Path::new("/sys/kernel")).unwrap_err();
        assert!(matches!(error, ScratchError::RootNotWritable { .. }), "{error}");
    }

    #[test]
    fn opening_leaves_private_directories_and_no_probe() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        assert_eq!(mode(&root.agent_dir()), 0o700);
        let mut names: Vec<_> =
            fs::read_dir(root.agent_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["endings", "kernels", "making", "projects", "reserve", "runs", "trash"]);
        ScratchRoot::open(dir.path()).unwrap();
    }

    #[test]
    fn a_root_that_lost_its_own_directory_says_so_until_that_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        assert_eq!(root.look(), Ok(()));
        let away = dir.path().join("away");
        fs::rename(root.agent_dir(), &away).unwrap();
        let text = root.look().unwrap_err();
        assert!(text.contains("is gone"), "{text}");
        assert!(!root.agent_dir().exists(), "not made below a mount point");
        fs::create_dir(root.agent_dir()).unwrap();
        let text = root.look().unwrap_err();
        assert!(text.contains("not the one that this agent began with"), "{text}");
        fs::remove_dir(root.agent_dir()).unwrap();
        fs::rename(&away, root.agent_dir()).unwrap();
        assert_eq!((root.look(), root.write_something()), (Ok(()), Ok(())));
    }
}
