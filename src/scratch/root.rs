//! The directory that holds every kernel's directory, and the agent's own below `.agent`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::iter;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::ids::KernelId;

use super::directory::{CONFIG_DIR, ENVIRON_FILE, Scratch};
use super::environ;
use super::error::{ScratchError, off_runtime};
use super::sweep;

/// The agent's own directory below the scratch root.
pub(super) const AGENT_DIR: &str = ".agent";

/// The directories in it. All are made together, so that a disk that has taken them once need not take more for a kernel's end.
const DIRS: [&str; 6] = ["trash", "making", "endings", "kernels", "runs", "reserve"];

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
    /// Something could not be written.
    doubt: AtomicBool,
    /// The same, for whoever waits for it.
    doubted: Notify,
    /// Kernels whose directories could not be discarded. Held while they are: no disk access waits for it on the runtime.
    left: Mutex<BTreeSet<KernelId>>,
}

impl State {
    fn home(&self) -> MutexGuard<'_, Option<Home>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<KernelId>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Makes `{root}/{kernel}` with `.config/environ.txt` in it. All of it belongs to `owner` and is closed to everybody
    /// else; where `None`, whose images choose their user themselves, it belongs to the agent and is open to all. A
    /// leftover of that name is moved to the trash first; a failure leaves nothing of that name behind.
    ///
    /// Dropping the future does not stop a file system that is late. What it makes then is taken away again, and never
    /// what a later call has made under the same name: a directory gets its name when it is whole, and only while
    /// somebody waits for it.
    pub async fn create(
        &self,
        kernel: KernelId,
        environ: &BTreeMap<String, String>,
        owner: Option<u32>,
    ) -> Result<Scratch, ScratchError> {
        let environ = environ::render(environ)?;
        let root = self.clone();
        let (answer, answered) = oneshot::channel();
        let work = tokio::task::spawn_blocking(move || root.make(kernel, &environ, owner, answer));
        match answered.await {
            Ok(made) => made,
            Err(_) => match work.await {
                Err(source) => Err(ScratchError::BrokenOff { source }),
                // The blocking task always answers.
                Ok(()) => Err(ScratchError::Create { kernel, source: io::ErrorKind::Interrupted.into() }),
            },
        }
    }

    /// Makes it in a place of its own, then gives it its name. Looks before each step whether somebody still waits.
    fn make(
        &self,
        kernel: KernelId,
        environ: &str,
        owner: Option<u32>,
        answer: oneshot::Sender<Result<Scratch, ScratchError>>,
    ) {
        let failed = |source| ScratchError::Create { kernel, source };
        let making = self.making().join(format!("{kernel}.{}", Uuid::new_v4().as_simple()));
        let path = self.path_of(kernel);
        // From here on the name is the new kernel's.
        self.state.left().remove(&kernel);
        let named = fill(&making, environ, owner).map_err(failed).and_then(|()| {
            if !answer.is_closed() && fs::symlink_metadata(&path).is_ok() {
                tracing::warn!(%kernel, "a scratch directory was left over from an earlier kernel of this id");
                self.discard_now(kernel)?;
            }
            if answer.is_closed() {
                return Err(failed(io::ErrorKind::Interrupted.into()));
            }
            let made = fs::symlink_metadata(&making).map_err(failed)?.ino();
            fs::rename(&making, &path).map_err(failed)?;
            Ok(made)
        });
        let made = named.as_ref().ok().copied();
        if made.is_none() {
            // The first error is the one to tell; what can't go now is swept later.
            let _ = fs::remove_dir_all(&making);
        }
        let owner = owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        if answer.send(named.map(|_| Scratch::new(kernel, path.clone(), owner))).is_err()
            && let Some(made) = made
            && fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == made)
        {
            tracing::info!(%kernel, "its scratch directory came after it was given up; taking it away");
            if let Err(error) = self.discard_now(kernel) {
                tracing::warn!(%kernel, %error, "could not take a late scratch directory away");
            }
        }
    }

    /// The directory of a kernel, if it is there. One `stat`, off the runtime: the disk may hang.
    pub async fn existing(&self, kernel: KernelId) -> Option<Scratch> {
        let path = self.path_of(kernel);
        let found = path.clone();
        let looking = tokio::task::spawn_blocking(move || fs::symlink_metadata(found));
        let found = looking.await.ok()?.ok().filter(fs::Metadata::is_dir)?;
        Some(Scratch::new(kernel, path, found.uid()))
    }

    /// The kernels that have had a directory here for at least `age`; whatever has another name is not ours. What was in
    /// the making for so long belongs to a create that nobody waits for, and goes. Blocks.
    pub fn older_than(&self, age: Duration) -> io::Result<Vec<KernelId>> {
        let is_old =
            |found: &fs::Metadata| found.modified().is_ok_and(|at| at.elapsed().unwrap_or_default() >= age);
        for entry in fs::read_dir(self.making())? {
            let entry = entry?;
            if entry.metadata().is_ok_and(|found| is_old(&found)) {
                fs::rename(entry.path(), self.trash().join(entry.file_name()))?;
                self.discarded.notify_one();
            }
        }
        let mut kernels = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(kernel) = name.to_str().and_then(|name| name.parse::<KernelId>().ok()) else { continue };
            // A UUID has several spellings; the directory has one.
            let is_ours = name.to_str() == Some(&kernel.to_string());
            if is_ours && entry.metadata().is_ok_and(|found| found.is_dir() && is_old(&found)) {
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
                root.state.left().insert(kernel);
                root.doubt();
            }
            done
        })
        .await
    }

    fn discard_left(&self) {
        self.state.left().retain(|kernel| match self.discard_now(*kernel) {
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
        tracker.spawn(sweep::run(self.trash(), Arc::clone(&self.discarded), cancel));
    }

    fn path_of(&self, kernel: KernelId) -> PathBuf {
        self.path.join(kernel.to_string())
    }

    fn making(&self) -> PathBuf {
        self.agent_dir().join("making")
    }

    fn trash(&self) -> PathBuf {
        self.agent_dir().join("trash")
    }

    fn discard_now(&self, kernel: KernelId) -> Result<(), ScratchError> {
        let away = self.trash().join(format!("{kernel}.{}", Uuid::new_v4().as_simple()));
        match fs::rename(self.path_of(kernel), away) {
            Ok(()) => {
                self.discarded.notify_one();
                Ok(())
            }
            // Where the trash is gone, too, the whole disk is, and the directory with it for now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.trash().is_dir() => Ok(()),
            Err(source) => Err(ScratchError::Discard { kernel, source }),
        }
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

/// A kernel's directory, and what it finds there. No other code runs there yet. Modes are these whatever the umask says:
/// the runner may be another user than the agent.
fn fill(path: &Path, environ: &str, owner: Option<u32>) -> io::Result<()> {
    let (dir_mode, file_mode) = if owner.is_some() { (0o700, 0o600) } else { (0o755, 0o644) };
    let config = path.join(CONFIG_DIR);
    let file = config.join(ENVIRON_FILE);
    fs::create_dir(path)?;
    fs::create_dir(&config)?;
    let mut text = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    text.write_all(environ.as_bytes())?;
    for (path, mode) in [(file.as_path(), file_mode), (&config, dir_mode), (path, dir_mode)] {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(path, Some(owner), Some(owner))?;
        }
    }
    Ok(())
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
        assert_eq!(names, ["endings", "kernels", "making", "reserve", "runs", "trash"]);
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
        assert!(root.existing(old).await.is_none());
        assert!(root.existing(again).await.is_some(), "that is a new kernel's");
    }

    #[tokio::test]
    async fn a_kernel_gets_its_directory_and_environment() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let kernel = KernelId::random();
        assert!(root.existing(kernel).await.is_none());
        let environ = BTreeMap::from([("MY_ENV".to_owned(), "hello=world".to_owned())]);
        let scratch = root.create(kernel, &environ, None).await.unwrap();
        assert_eq!(scratch.path(), root.path().join(kernel.to_string()));
        assert_eq!(mode(scratch.path()), 0o755);
        let file = scratch.path().join(".config/environ.txt");
        assert_eq!(fs::read_to_string(&file).unwrap(), "MY_ENV=hello=world\n");
        assert_eq!((mode(&scratch.path().join(".config")), mode(&file)), (0o755, 0o644));
        assert_eq!(root.existing(kernel).await.unwrap().read_environ().await.unwrap(), environ);
    }

    #[tokio::test]
    async fn a_kernel_s_own_directory_is_closed_to_everybody_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let me = rustix::process::geteuid().as_raw();
        let environ = BTreeMap::from([("TOKEN".to_owned(), "1".to_owned())]);
        let scratch = root.create(KernelId::random(), &environ, Some(me)).await.unwrap();
        let config = scratch.path().join(".config");
        let modes = || [scratch.path(), &config, &config.join("environ.txt")].map(mode);
        assert_eq!(modes(), [0o700, 0o700, 0o600]);
        scratch.write_environ(&environ).await.unwrap();
        assert_eq!(modes(), [0o700, 0o700, 0o600], "also after a restart");
        assert_eq!(scratch.owner(), me);
    }

    #[tokio::test]
    async fn a_bad_environment_makes_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let kernel = KernelId::random();
        let environ = BTreeMap::from([("A".to_owned(), "x\nB=y".to_owned())]);
        let error = root.create(kernel, &environ, None).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert!(root.existing(kernel).await.is_none());
    }

    #[tokio::test]
    async fn a_leftover_moves_to_the_trash_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let kernel = KernelId::random();
        let path = root.path().join(kernel.to_string());
        for round in 1..=2 {
            let scratch = root.create(kernel, &BTreeMap::new(), None).await.unwrap();
            fs::write(scratch.path().join("old"), "").unwrap();
            root.create(kernel, &BTreeMap::new(), None).await.unwrap();
            assert!(!path.join("old").exists());
            root.discard(kernel).await.unwrap();
            assert_eq!(fs::read_dir(root.trash()).unwrap().count(), round * 2);
        }
        symlink("/etc", &path).unwrap();
        assert!(root.existing(kernel).await.is_none(), "a link is no scratch directory");
        let scratch = root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        assert!(fs::symlink_metadata(scratch.path()).unwrap().is_dir());
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

    /// A file system that does a create's work long after it was given up: here the only thread for such work is busy.
    #[test]
    fn a_create_that_was_given_up_leaves_nothing_however_late_the_file_system_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (alone, again) = (KernelId::random(), KernelId::random());
        runtime.block_on(async {
            let (disk, hangs) = std::sync::mpsc::channel::<()>();
            let hanging = tokio::task::spawn_blocking(move || hangs.recv());
            let environ = BTreeMap::from([("OF".to_owned(), "the first".to_owned())]);
            for kernel in [alone, again] {
                let create = root.create(kernel, &environ, None);
                assert!(tokio::time::timeout(Duration::from_millis(20), create).await.is_err());
                root.discard_now(kernel).unwrap();
            }
            // The kernel of this id was made again meanwhile.
            let (answer, mut made) = oneshot::channel();
            root.make(again, "", None, answer);
            made.try_recv().unwrap().unwrap();
            disk.send(()).unwrap();
            hanging.await.unwrap().unwrap();
            // Behind what was late.
            tokio::task::spawn_blocking(|| {}).await.unwrap();
        });
        assert_eq!(root.older_than(Duration::ZERO).unwrap(), [again]);
        assert_eq!(fs::read_to_string(root.path_of(again).join(".config/environ.txt")).unwrap(), "");
        assert_eq!(fs::read_dir(root.making()).unwrap().count(), 0);
    }

    /// The file system is late between the last look and the name.
    #[test]
    fn a_directory_that_nobody_waits_for_any_more_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        for _ in 0..200 {
            let kernel = KernelId::random();
            let (answer, made) = oneshot::channel();
            let giving_up = std::thread::spawn(move || drop(made));
            root.make(kernel, "", None, answer);
            giving_up.join().unwrap();
            // What undoing a kernel does: it may have been whole just before it was given up.
            root.discard_now(kernel).unwrap();
        }
        assert!(root.older_than(Duration::ZERO).unwrap().is_empty());
        assert_eq!(fs::read_dir(root.making()).unwrap().count(), 0);
    }
}
