//! Deleting one tree, whatever is in it. Blocks.
//!
//! A container may still be running in the tree, so it changes under our hands. Each directory is opened by its
//! one name in a parent that is open already, without following links or crossing a mount, and everything is
//! removed relative to that. Code in a container can nest directories far deeper than a path or a stack allows:
//! below [`MAX_DEPTH`] a directory is moved up into the trash, to be deleted as a tree of its own.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;
use uuid::Uuid;

use super::beneath;

/// How what lay too deep is called in the trash.
pub(super) const DEEP: &str = "deep.";

/// Directories held open below each other.
const MAX_DEPTH: usize = 32;

/// What came of deleting one tree.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// Entries deleted.
    pub(super) deleted: u64,
    /// Entries that could not be deleted.
    pub(super) failed: u64,
    /// The first of these failures: the entry's name and what the system said.
    pub(super) first: Option<(String, io::Error)>,
    /// The removal was told to stop before the end.
    pub(super) stopped: bool,
}

/// Deletes `name` in the open directory `trash` with all that is below it. Failures are noted and the rest goes on.
/// `stop` is asked before each entry.
pub(super) fn remove_tree(trash: BorrowedFd<'_>, name: &CStr, stop: &dyn Fn() -> bool) -> Removal {
    let mut remover = Remover { trash, stop, so_far: Removal::default() };
    // An entry of the trash is most often a directory; a wrong guess costs one call.
    remover.remove(trash, name, FileType::Unknown, MAX_DEPTH);
    remover.so_far
}

struct Remover<'a> {
    trash: BorrowedFd<'a>,
    stop: &'a dyn Fn() -> bool,
    so_far: Removal,
}

impl Remover<'_> {
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, kind: FileType, levels: usize) {
        let removed = match kind {
            FileType::Directory | FileType::Unknown => match self.remove_dir(parent, name, levels) {
                Err(Errno::NOTDIR | Errno::LOOP) => unlink(parent, name, AtFlags::empty()),
                removed => removed,
            },
            _ => match unlink(parent, name, AtFlags::empty()) {
                // A directory has taken the file's place.
                Err(Errno::ISDIR) => self.remove_dir(parent, name, levels),
                removed => removed,
            },
        };
        match removed {
            Ok(()) => self.so_far.deleted += 1,
            Err(Errno::NOENT) => {}
            // What keeps the directory from being empty was noted already, or it is the stop.
            Err(Errno::NOTEMPTY) if self.so_far.failed > 0 || self.so_far.stopped => {}
            Err(error) => {
                self.so_far.failed += 1;
                let name = name.to_string_lossy().into_owned();
                self.so_far.first.get_or_insert_with(|| (name, error.into()));
            }
        }
    }

    fn remove_dir(&mut self, parent: BorrowedFd<'_>, name: &CStr, levels: usize) -> rustix::io::Result<()> {
        if levels == 0 {
            let away = format!("{DEEP}{}", Uuid::new_v4().as_simple());
            return match rustix::fs::renameat(parent, name, self.trash, &away) {
                // Moving a directory writes to it (its `..`).
                Err(Errno::ACCESS) => {
                    beneath::unlock_dir(parent, name)?;
                    rustix::fs::fchmod(parent, Mode::RWXU)?;
                    rustix::fs::renameat(parent, name, self.trash, &away)
                }
                moved => moved,
            };
        }
        let opened = match beneath::open_dir(parent, name) {
            Err(Errno::ACCESS) => {
                beneath::unlock_dir(parent, name)?;
                beneath::open_dir(parent, name)?
            }
            opened => opened?,
        };
        let mut dir = Dir::new(opened)?;
        while let Some(entry) = dir.read() {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if (self.stop)() {
                self.so_far.stopped = true;
                break;
            }
            self.remove(dir.fd()?.as_fd(), entry.file_name(), entry.file_type(), levels - 1);
        }
        if self.so_far.stopped {
            return Err(Errno::NOTEMPTY);
        }
        unlink(parent, name, AtFlags::REMOVEDIR)
    }
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, flags) {
        // The user's code made the directory read-only, and the agent is not root.
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(parent, Mode::RWXU)?;
            rustix::fs::unlinkat(parent, name, flags)
        }
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, mknodat, renameat_with};

    use super::*;

    fn remove(trash: &Path, name: &CStr) -> Removal {
        let dir = beneath::open_trusted(trash).unwrap();
        remove_tree(dir.as_fd(), name, &|| false)
    }

    /// Empties the trash as the sweeper does: until nothing is left or nothing goes.
    fn empty(trash: &Path) -> u64 {
        let mut deleted = 0;
        while let Some(entry) = fs::read_dir(trash).unwrap().next() {
            let name = std::ffi::CString::new(entry.unwrap().file_name().into_encoded_bytes()).unwrap();
            let removal = remove(trash, &name);
            assert!(removal.deleted > 0, "{removal:?}");
            deleted += removal.deleted;
        }
        deleted
    }

    #[test]
    fn all_kinds_of_entries_go_and_links_lead_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let trash = tempfile::tempdir().unwrap();
        let tree = trash.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), "").unwrap();
        symlink(outside.path(), tree.join("a/b/link")).unwrap();
        symlink(outside.path().join("kept"), tree.join("a/b/filelink")).unwrap();
        mknodat(CWD, tree.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        // The two modes below hold up only an agent that is not root.
        fs::set_permissions(tree.join("a/b"), PermissionsExt::from_mode(0o555)).unwrap();
        fs::set_permissions(tree.join("a"), PermissionsExt::from_mode(0o000)).unwrap();
        let removal = remove(trash.path(), c"tree");
        assert_eq!((removal.deleted, removal.failed), (7, 0), "{removal:?}");
        assert!(!tree.exists());
        assert!(outside.path().join("kept").exists());
        symlink(outside.path(), &tree).unwrap();
        assert_eq!(remove(trash.path(), c"tree").deleted, 1);
        assert!(outside.path().join("kept").exists());
        assert_eq!(remove(trash.path(), c"tree").failed, 0, "what is gone is no failure");
    }

    #[test]
    fn a_nest_deeper_than_any_path_is_deleted() {
        let trash = tempfile::tempdir().unwrap();
        fs::create_dir(trash.path().join("tree")).unwrap();
        let mut dir = beneath::open_trusted(&trash.path().join("tree")).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = beneath::open_dir(&dir, "d").unwrap();
        }
        drop(dir);
        assert!(empty(trash.path()) >= 5001);
    }

    #[test]
    fn nothing_outside_goes_while_directories_and_links_change_places() {
        let outside = tempfile::tempdir().unwrap();
        let trash = tempfile::tempdir().unwrap();
        let tree = trash.path().join("tree");
        for number in 0..200 {
            fs::write(outside.path().join(format!("f{number}")), "").unwrap();
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, tree.join("d"), CWD, tree.join("link"), RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..200 {
                fs::create_dir_all(tree.join("d")).unwrap();
                for number in 0..20 {
                    let _ = fs::write(tree.join(format!("d/f{number}")), "");
                }
                let _ = symlink(outside.path(), tree.join("link"));
                remove(trash.path(), c"tree");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 200);
    }

    #[test]
    fn a_stop_leaves_the_rest_for_later() {
        let trash = tempfile::tempdir().unwrap();
        fs::create_dir(trash.path().join("tree")).unwrap();
        for number in 0..50 {
            fs::write(trash.path().join(format!("tree/f{number}")), "").unwrap();
        }
        let dir = beneath::open_trusted(trash.path()).unwrap();
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 10
        };
        let removal = remove_tree(dir.as_fd(), c"tree", &stop);
        assert!(removal.stopped);
        assert_eq!((removal.deleted, removal.failed), (10, 0), "{removal:?}");
        assert_eq!(fs::read_dir(trash.path().join("tree")).unwrap().count(), 40);
    }
}
