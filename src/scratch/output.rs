//! What a run leaves for its user: the files below `.output` that are new or newer at its end (PROTOCOL section 8).
//!
//! The user's code may fill the directory with anything, so a walk has limits in entries, depth and time; a walk
//! that met one says so in the log and is still good for what it saw.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Stat};

use super::beneath;
use super::directory::Scratch;
use super::error::ScratchError;
use super::path::RelativePath;

/// Among the user's files: where runs leave some.
const OUTPUT_DIR: &str = ".output";
/// Files over this are skipped, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 100 * 1024 * 1024;
/// Entries looked at in one walk.
const MAX_ENTRIES: usize = 10_000;
/// Directories below each other.
const MAX_DEPTH: usize = 32;
/// Paths over this are no key in S3; in bytes.
const MAX_PATH: usize = 1024;
/// All paths of one walk together, in bytes: a client may collect them late, and several walks' at a time are kept.
const MAX_NAMES: usize = 1024 * 1024;
/// One walk.
const MAX_TIME: Duration = Duration::from_secs(2);
/// After this a walk is given up, for a file system that hangs.
const GIVE_UP: Duration = Duration::from_secs(5);
/// File times come from a clock that is late by up to one tick of the system.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// The files below `.output` at one moment.
#[derive(Debug, Clone)]
pub struct OutputSnapshot {
    /// By path below `.output`.
    files: BTreeMap<String, Stamp>,
    /// A limit was met: a file that is not in here may have been there all the same.
    cut: bool,
    /// When the walk began; tells old files from new ones after a walk that was cut.
    began: SystemTime,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    /// Last change of content or attributes, likewise; unlike `modified`, the user can't set it.
    changed: (i64, i64),
    /// In bytes.
    size: u64,
    /// Tells a replaced file from the old one.
    inode: u64,
}

/// A file that a run made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Path below `.output`, with `/`.
    pub relative: String,
    /// In bytes, when it was seen.
    pub size: u64,
}

impl Scratch {
    /// The files below `.output` now; to be taken before a run. A missing directory has none. Never fails: what
    /// can't be read is not there.
    pub async fn output_snapshot(&self) -> OutputSnapshot {
        let path = self.home().to_owned();
        let began = SystemTime::now();
        let walk = tokio::task::spawn_blocking(move || Walk::new().run(&path));
        let found = match tokio::time::timeout(GIVE_UP, walk).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(kernel = %self.kernel(), %error, "the walk over the output files broke off");
                Walk::new()
            }
            Err(_) => {
                tracing::warn!(kernel = %self.kernel(), limit_s = GIVE_UP.as_secs(), "the walk over the output files hangs");
                Walk { cut: true, ..Walk::new() }
            }
        };
        if found.cut {
            tracing::warn!(
                kernel = %self.kernel(),
                files = found.files.len(),
                entries = found.entries,
                "too much below .output: the walk was cut and some files may not be delivered"
            );
        }
        if found.too_large + found.unnamed > 0 {
            tracing::debug!(
                kernel = %self.kernel(),
                too_large = found.too_large,
                names_not_utf8_or_too_long = found.unnamed,
                "output files skipped"
            );
        }
        OutputSnapshot { files: found.files, cut: found.cut, began }
    }

    /// The files that are new or differ from `before`, sorted by name; to be asked at a run's end.
    pub async fn output_changes(&self, before: &OutputSnapshot) -> Vec<OutputFile> {
        changes(before, &self.output_snapshot().await)
    }

    /// Opens a file below `.output` for reading; regular files only, and no link is followed. Blocks on the disk.
    pub fn open_output(&self, relative: &str) -> Result<File, ScratchError> {
        let path =
            RelativePath::parse(relative).map_err(|fault| ScratchError::from_path_fault(relative, fault))?;
        beneath::open_trusted(self.home())
            .and_then(|top| Ok(beneath::open_dir(top, OUTPUT_DIR)?))
            .and_then(|output| beneath::open_regular(output, &path))
            .map_err(|source| match source.kind() {
                io::ErrorKind::InvalidInput => ScratchError::NotRegular { name: path.joined() },
                _ => ScratchError::OpenOutput { name: path.joined(), source },
            })
    }
}

fn changes(before: &OutputSnapshot, after: &OutputSnapshot) -> Vec<OutputFile> {
    let run_began = before.began.checked_sub(CLOCK_TICK).unwrap_or(SystemTime::UNIX_EPOCH);
    let since = run_began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()));
    let is_change = |name: &String, stamp: &Stamp| match before.files.get(name) {
        Some(old) => (old.modified, old.size, old.inode) != (stamp.modified, stamp.size, stamp.inode),
        None if before.cut => stamp.changed >= since,
        None => true,
    };
    let changed = after.files.iter().filter(|(name, stamp)| is_change(name, stamp));
    changed.map(|(name, stamp)| OutputFile { relative: name.clone(), size: stamp.size }).collect()
}

/// A walk and what it has found.
struct Walk {
    files: BTreeMap<String, Stamp>,
    cut: bool,
    /// Entries looked at, of any kind.
    entries: usize,
    /// Bytes of the paths in `files`.
    named: usize,
    /// Files over the size limit.
    too_large: usize,
    /// Names that no answer could carry.
    unnamed: usize,
    deadline: Instant,
}

impl Walk {
    fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            cut: false,
            entries: 0,
            named: 0,
            too_large: 0,
            unnamed: 0,
            deadline: Instant::now() + MAX_TIME,
        }
    }

    fn run(mut self, home: &Path) -> Self {
        let output = beneath::open_trusted(home).and_then(|top| Ok(beneath::open_dir(top, OUTPUT_DIR)?));
        if let Ok(output) = output
            && let Ok(dir) = Dir::new(output)
        {
            self.visit(dir, "", MAX_DEPTH);
        }
        self
    }

    /// `levels`: directories that may still be entered below each other.
    fn visit(&mut self, mut dir: Dir, prefix: &str, levels: usize) {
        while let Some(Ok(entry)) = dir.read() {
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            if self.entries == MAX_ENTRIES || self.named > MAX_NAMES || Instant::now() >= self.deadline {
                self.cut = true;
                return;
            }
            self.entries += 1;
            let Ok(text) = name.to_str() else {
                self.unnamed += 1;
                continue;
            };
            let Ok(fd) = dir.fd() else { return };
            let Ok(stat) = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if prefix.len() + text.len() > MAX_PATH {
                self.unnamed += 1;
                continue;
            }
            let path = format!("{prefix}{text}");
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.note(path, &stat),
                FileType::Directory if levels == 0 => self.cut = true,
                FileType::Directory => self.enter(fd.as_fd(), name, &path, levels - 1),
                _ => {}
            }
        }
    }

    fn enter(&mut self, parent: impl AsFd, name: &std::ffi::CStr, path: &str, levels: usize) {
        // Gone, a link by now, or locked by the user: then it has no output.
        if let Ok(opened) = beneath::open_dir(parent, name)
            && let Ok(below) = Dir::new(opened)
        {
            self.visit(below, &format!("{path}/"), levels);
        }
    }

    fn note(&mut self, path: String, stat: &Stat) {
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > MAX_FILE_BYTES {
            self.too_large += 1;
            return;
        }
        #[allow(clippy::cast_possible_wrap, reason = "nanoseconds stay below 10^9")]
        let stamp = Stamp {
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
            size,
            inode: stat.st_ino,
        };
        self.named += path.len();
        self.files.insert(path, stamp);
    }
}

#[cfg(test)]
mod tests;
