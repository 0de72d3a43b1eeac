//! Measures scratch directories: a walk with limits, and the one walker that does it.
//!
//! A size is what regular files take on the disk, as `du` counts it: a sparse file of a terabyte takes little. A file with
//! several names counts once. Links are not followed and other file systems not entered, each directory being opened beneath its
//! parent's descriptor: whoever owns the files may swap them for links at any moment.
//!
//! The walker is a thread of its own and not of the runtime's blocking pool, because a file system that hangs would
//! hold it for ever, and the pool would make the end of the process wait for it. There is one for the whole agent,
//! so that measuring never takes more than one core and one place in the disk's queue.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, warn};

use super::pace::pause_after;
use super::reading::ScratchSize;
use crate::ids::KernelId;
use crate::patience::seconds;

/// Each level of a walk holds a descriptor.
const MAX_DEPTH: usize = 128;

/// The unit of `st_blocks`, whatever the file system's own blocks are.
const BLOCK: u64 = 512;

/// When a walk of one scratch directory stops; what was counted by then is the size.
#[derive(Debug, Clone, Copy)]
pub struct WalkLimits {
    /// Directory entries.
    pub entries: u64,
    /// Time.
    pub time: Duration,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self { entries: 200_000, time: Duration::from_secs(2) }
    }
}

/// The result of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measured {
    /// What the files that were seen take on the disk.
    bytes: u64,
    /// Whether nothing was left out: limits were kept and every directory could be read.
    complete: bool,
}

/// What is known of the scratch directories, and the permission to walk. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ScratchMeter {
    /// By kernel. A mutex rather than a task: the walker thread writes it, and no critical section is longer than a
    /// look-up.
    known: Arc<Mutex<HashMap<KernelId, Known>>>,
    /// One permit: whoever has it may walk.
    walker: Arc<Semaphore>,
    /// For each directory.
    limits: WalkLimits,
}

/// One scratch directory.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// What was measured.
    size: ScratchSize,
    /// Not measured again before.
    due: Instant,
    /// Whether a walk that was cut short has been logged.
    logged: bool,
}

impl ScratchMeter {
    pub(super) fn new(limits: WalkLimits) -> Self {
        Self { known: Arc::default(), walker: Arc::new(Semaphore::new(1)), limits }
    }

    /// Measures the directories that are due and waits for it. Giving up waiting leaves the walk going on; its
    /// results are there the next time.
    pub(super) async fn measure(&self, directories: Vec<(KernelId, PathBuf)>) {
        let Ok(permit) = Arc::clone(&self.walker).acquire_owned().await else { return };
        let due = self.due(directories);
        if due.is_empty() {
            return;
        }
        let meter = self.clone();
        let (done, finished) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("scratch-size".into()).spawn(move || {
            for (kernel, path) in due {
                meter.measure_one(kernel, &path);
            }
            drop(permit);
            drop(done);
        });
        match thread {
            Ok(_) => drop(finished.await),
            Err(error) => debug!(%error, "can't start the thread that measures scratch directories"),
        }
    }

    /// The size as known now.
    pub(super) fn size(&self, kernel: KernelId) -> ScratchSize {
        self.lock().get(&kernel).map(|known| known.size).unwrap_or_default()
    }

    /// The kernel is gone.
    pub(super) fn forget(&self, kernel: KernelId) {
        self.lock().remove(&kernel);
    }

    fn due(&self, directories: Vec<(KernelId, PathBuf)>) -> Vec<(KernelId, PathBuf)> {
        let now = Instant::now();
        let mut known = self.lock();
        directories
            .into_iter()
            .filter(|(kernel, _)| {
                let new = Known { size: ScratchSize::default(), due: now, logged: false };
                known.entry(*kernel).or_insert(new).due <= now
            })
            .collect()
    }

    fn measure_one(&self, kernel: KernelId, path: &Path) {
        let started = Instant::now();
        let measured = walk(path, self.limits);
        let ended = Instant::now();
        let mut all = self.lock();
        // Gone means forgotten in the meantime.
        let Some(known) = all.get_mut(&kernel) else { return };
        known.due = ended + pause_after(ended - started);
        let incomplete = match &measured {
            Ok(measured) => {
                known.size.measured(measured.bytes);
                !measured.complete
            }
            Err(_) => true,
        };
        let first_time = incomplete && !std::mem::replace(&mut known.logged, incomplete);
        drop(all);
        match measured {
            Ok(measured) if first_time => {
                debug!(%kernel, bytes = measured.bytes, seconds = seconds(ended - started), "a scratch directory is too large, too \
                    deep or unreadable in part; its size is reported too low");
            }
            Err(error) if first_time => {
                warn!(%kernel, path = %path.display(), %error, "can't measure a scratch directory, keeping its last size");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KernelId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sums up the files below `root`.
fn walk(root: &Path, limits: WalkLimits) -> io::Result<Measured> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let started = Instant::now();
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let device = rustix::fs::fstat(&root)?.st_dev;
    let mut found = Measured { bytes: 0, complete: true };
    let mut entries = 0;
    let mut counted_links = HashSet::new();
    let mut levels = vec![Dir::new(root)?];
    while let Some(level) = levels.last_mut() {
        let entry = match level.read() {
            Some(Ok(entry)) => entry,
            ended => {
                found.complete &= ended.is_none();
                levels.pop();
                continue;
            }
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        entries += 1;
        if entries > limits.entries || started.elapsed() > limits.time {
            found.complete = false;
            break;
        }
        let parent = level.fd()?;
        // An entry that has vanished since is no longer part of the size.
        let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_dev != device {
            continue;
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink < 2 || counted_links.insert(stat.st_ino) => {
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                found.bytes = found.bytes.saturating_add(blocks.saturating_mul(BLOCK));
            }
            FileType::Directory => {
                let opened = rustix::fs::openat(parent, name, flags, Mode::empty()).and_then(Dir::new);
                match opened {
                    Ok(below) if levels.len() < MAX_DEPTH => levels.push(below),
                    _ => found.complete = false,
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// What this file system takes for a file, which depends on its block size.
    fn taken(file: &Path) -> u64 {
        fs::metadata(file).unwrap().blocks() * BLOCK
    }

    fn full(bytes: u64) -> Measured {
        Measured { bytes, complete: true }
    }

    #[test]
    fn what_files_take_counts_once_without_holes_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), [0; 5000]).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/one"), [0; 100]).unwrap();
        fs::write(dir.path().join("a/b/.hidden"), [0; 11]).unwrap();
        fs::hard_link(dir.path().join("a/one"), dir.path().join("again")).unwrap();
        symlink(outside.path(), dir.path().join("a/dir")).unwrap();
        symlink(outside.path().join("big"), dir.path().join("a/file")).unwrap();
        symlink("..", dir.path().join("a/b/round")).unwrap();
        let sparse = dir.path().join("sparse");
        fs::write(&sparse, [1; 9000]).unwrap();
        fs::File::options().write(true).open(&sparse).unwrap().set_len(1 << 40).unwrap();
        let files = [sparse, dir.path().join("a/one"), dir.path().join("a/b/.hidden")];
        let measured = walk(dir.path(), WalkLimits::default()).unwrap();
        assert_eq!(measured, full(files.iter().map(|file| taken(file)).sum()));
        assert!((9111..1 << 20).contains(&measured.bytes), "{measured:?}");
        assert!(walk(&dir.path().join("a/dir"), WalkLimits::default()).is_err());
    }

    #[test]
    fn limits_end_a_walk() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..50 {
            fs::write(dir.path().join(number.to_string()), "x").unwrap();
        }
        let one = taken(&dir.path().join("0"));
        let cut = |files| Measured { bytes: files * one, complete: false };
        let limits = |entries, seconds| WalkLimits { entries, time: Duration::from_secs(seconds) };
        assert_eq!(walk(dir.path(), limits(50, 60)).unwrap(), full(50 * one));
        assert_eq!(walk(dir.path(), limits(20, 60)).unwrap(), cut(20));
        assert_eq!(walk(dir.path(), limits(50, 0)).unwrap(), cut(0));
    }

    #[test]
    fn a_very_deep_tree_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_owned();
        for _ in 0..300 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let seen = dir.path().join("file");
        fs::write(&seen, "xy").unwrap();
        let expected = Measured { bytes: taken(&seen), complete: false };
        assert_eq!(walk(dir.path(), WalkLimits::default()).unwrap(), expected);
    }

    #[tokio::test]
    async fn the_meter_remembers_the_most() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let kernel = KernelId::random();
        let meter = ScratchMeter::new(WalkLimits::default());
        let wait_for = async |length: usize, max: Option<u64>| {
            fs::write(&file, vec![1; length]).unwrap();
            let current = taken(&file);
            let size = ScratchSize { current, max: max.unwrap_or(current) };
            let seen = async {
                while meter.size(kernel) != size {
                    meter.measure(vec![(kernel, dir.path().to_owned())]).await;
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
            size
        };
        let large = wait_for(100_000, None).await;
        let small = wait_for(30, Some(large.max)).await;
        assert!(small.current < large.current);
        // A directory that is gone keeps its last size.
        fs::remove_dir_all(dir.path()).unwrap();
        let other = KernelId::random();
        meter.measure(vec![(kernel, dir.path().to_owned()), (other, dir.path().to_owned())]).await;
        assert_eq!(meter.size(kernel), small);
        assert_eq!(meter.size(other), ScratchSize::default());
        meter.forget(kernel);
        assert_eq!(meter.size(kernel), ScratchSize::default());
    }
}
