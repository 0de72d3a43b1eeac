//! Making a kernel's directory, so that it has its name only when it is whole and while somebody waits for it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::ids::KernelId;

use super::directory::{CONFIG_DIR, Scratch};
use super::environ;
use super::error::ScratchError;
use super::layout::Layout;
use super::root::ScratchRoot;
use super::settings::ENVIRON_FILE;

impl ScratchRoot {
    /// Makes `{root}/{kernel}` with the user's files (`work`) and the runner's settings (`config`) in it. Both belong to `owner`
    /// and are closed to everybody else; where `None`, whose images choose their user themselves, they belong to the agent and
    /// are open to all. What holds the two is the agent's own in any case. A leftover of that name is moved to the trash first; a
    /// failure leaves nothing of that name behind.
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
    pub(super) fn make(
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
        self.left().remove(&kernel);
        let filled = fs::create_dir(&making).and_then(|()| {
            self.hold_to_limit(&kernel.to_string(), &making);
            fill(&making, environ, owner)
        });
        let named = filled.map_err(failed).and_then(|()| {
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
        if answer.send(named.map(|_| Scratch::new(kernel, &path, Layout::NEW, owner))).is_err()
            && let Some(made) = made
            && fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == made)
        {
            tracing::info!(%kernel, "its scratch directory came after it was given up; taking it away");
            if let Err(error) = self.discard_now(kernel) {
                tracing::warn!(%kernel, %error, "could not take a late scratch directory away");
            }
        }
    }

    /// The directory of a kernel whose container has `home` at `/home/work`, and `config` where its runner looks for its
    /// settings; `None` where that is no directory of the kernel's, or not there below this root. Off the runtime: the disk may
    /// hang.
    pub async fn mounted(&self, kernel: KernelId, home: &Path, config: Option<&Path>) -> Option<Scratch> {
        let (layout, path) = (Layout::of(kernel, home, config)?, self.path_of(kernel));
        let looking = tokio::task::spawn_blocking(move || Scratch::find(kernel, &path, layout));
        looking.await.ok()?.ok()?
    }
}

/// What a kernel finds in its directory. No other code runs there yet. Modes are these whatever the umask says:
/// the runner may be another user than the agent.
fn fill(path: &Path, environ: &str, owner: Option<u32>) -> io::Result<()> {
    let (dir_mode, file_mode) = if owner.is_some() { (0o700, 0o600) } else { (0o755, 0o644) };
    let home = Layout::NEW.home(path);
    // Where the settings are mounted; Docker would make it as root's.
    let mount_point = home.join(CONFIG_DIR);
    for dir in [&home, &mount_point] {
        fs::create_dir(dir)?;
    }
    let mut made = vec![(mount_point, dir_mode), (home, dir_mode)];
    if let Some(config) = Layout::NEW.config(path) {
        fs::create_dir(&config)?;
        let file = config.join(ENVIRON_FILE);
        let mut text = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        text.write_all(environ.as_bytes())?;
        made.extend([(file, file_mode), (config, dir_mode)]);
    }
    for (path, mode) in made {
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&path, Some(owner), Some(owner))?;
        }
    }
    // The agent's own, so that nobody puts anything else in the place of the two.
    fs::set_permissions(path, Permissions::from_mode(dir_mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_kernel_gets_its_directory_and_environment() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let kernel = KernelId::random();
        let path = root.path().join(kernel.to_string());
        let (home, config) = (path.join("work"), path.join("config"));
        assert!(root.mounted(kernel, &home, Some(&config)).await.is_none());
        let environ = BTreeMap::from([("MY_ENV".to_owned(), "hello=world".to_owned())]);
        let scratch = root.create(kernel, &environ, None).await.unwrap();
        assert_eq!((scratch.home(), scratch.config()), (home.as_path(), Some(config.as_path())));
        let file = config.join("environ.txt");
        assert_eq!(fs::read_to_string(&file).unwrap(), "MY_ENV=hello=world\n");
        assert_eq!([&path, &home, &home.join(".config"), &config].map(|dir| mode(dir)), [0o755; 4]);
        assert_eq!(mode(&file), 0o644);
        let again = root.mounted(kernel, &home, Some(&config)).await.unwrap();
        assert_eq!(again.read_environ().await.unwrap(), environ);
    }

    #[tokio::test]
    async fn a_kernel_s_own_directory_is_closed_to_everybody_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let me = rustix::process::geteuid().as_raw();
        let environ = BTreeMap::from([("TOKEN".to_owned(), "1".to_owned())]);
        let scratch = root.create(KernelId::random(), &environ, Some(me)).await.unwrap();
        let (home, config) = (scratch.home(), scratch.config().unwrap());
        let (above, file) = (home.parent().unwrap(), config.join("environ.txt"));
        let modes = || [above, home, &home.join(".config"), config, &file].map(mode);
        assert_eq!(modes(), [0o700, 0o700, 0o700, 0o700, 0o600]);
        for value in ["2", "3"] {
            scratch.write_environ(&BTreeMap::from([("TOKEN".to_owned(), value.to_owned())])).await.unwrap();
            assert_eq!(modes(), [0o700, 0o700, 0o700, 0o700, 0o600], "also after a restart");
        }
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
        assert!(!root.path_of(kernel).exists());
    }

    #[tokio::test]
    async fn a_leftover_moves_to_the_trash_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let kernel = KernelId::random();
        let path = root.path().join(kernel.to_string());
        for round in 1..=2 {
            let scratch = root.create(kernel, &BTreeMap::new(), None).await.unwrap();
            fs::write(scratch.home().join("old"), "").unwrap();
            root.create(kernel, &BTreeMap::new(), None).await.unwrap();
            assert!(!path.join("work/old").exists());
            root.discard(kernel).await.unwrap();
            assert_eq!(fs::read_dir(root.trash()).unwrap().count(), round * 2);
        }
        symlink("/etc", &path).unwrap();
        assert!(root.mounted(kernel, &path, None).await.is_none(), "a link is no scratch directory");
        root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_dir());
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
        assert_eq!(fs::read_to_string(root.path_of(again).join("config/environ.txt")).unwrap(), "");
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
