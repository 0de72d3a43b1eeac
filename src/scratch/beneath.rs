//! Opening what hostile code may have put there: one name at a time, never through a link, never onto another
//! mount, and never a device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::path::RelativePath;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Opens a directory that the agent itself put there.
pub(super) fn open_trusted(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `parent`. `name` must be one name. A link fails as ENOTDIR or ELOOP, a mount
/// point as EXDEV.
pub(super) fn open_dir(parent: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(&parent, name, DIRECTORY, Mode::empty(), resolve) {
        // Kernels before 5.6, and seccomp filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let dir = rustix::fs::openat(&parent, name, DIRECTORY, Mode::empty())?;
            let same = rustix::fs::fstat(&dir)?.st_dev == rustix::fs::fstat(&parent)?.st_dev;
            if same { Ok(dir) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

/// Gives the directory `name` in `parent` back to its owner: mode 0700. For directories that the user's code made
/// unreadable; works on the directory that was found, whatever has its name by now.
pub(super) fn unlock_dir(parent: impl AsFd, name: impl Arg) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    chmod_opened(found, Mode::RWXU)
}

/// Sets the mode of what is open as `fd`; unlike `fchmod`, also when it is open only as a place (`O_PATH`).
pub(super) fn chmod_opened(fd: impl AsFd, mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()), mode)
}

/// Opens the regular file at `path` below `top` for reading.
///
/// Anything else fails as [`io::ErrorKind::InvalidInput`] without having been opened: opening a FIFO may wait for
/// ever, and opening a device may act.
pub(super) fn open_regular(top: impl AsFd, path: &RelativePath) -> io::Result<File> {
    let mut above: Option<OwnedFd> = None;
    for part in path.parents() {
        let next = match &above {
            Some(dir) => open_dir(dir, part.as_str())?,
            None => open_dir(&top, part.as_str())?,
        };
        above = Some(next);
    }
    let dir = above.as_ref().map_or(top.as_fd(), AsFd::as_fd);
    reopen(open_place(dir, path.name())?)
}

/// Opens whatever has the name `name` in `parent`, as a place only: nothing is waited for, and no device acts. A link is
/// opened itself; a mount point fails as EXDEV. `name` must be one name.
pub(super) fn open_place(parent: impl AsFd, name: impl Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(&parent, name, flags, Mode::empty(), resolve) {
        // As for directories.
        Err(Errno::NOSYS | Errno::PERM) => {
            let place = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            let same = rustix::fs::fstat(&place)?.st_dev == rustix::fs::fstat(&parent)?.st_dev;
            if same { Ok(place) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

/// Opens for reading what is open as a place; only a regular file.
pub(super) fn reopen(place: impl AsFd) -> io::Result<File> {
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // What was looked at is what is opened: the name may mean something else by now.
    let through = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(CWD, through, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::mknodat;

    use super::*;

    fn open(top: &Path, path: &str) -> io::Result<String> {
        let mut text = String::new();
        open_regular(open_trusted(top)?, &RelativePath::parse(path).unwrap())?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn links_are_not_followed_at_any_level() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("real")).unwrap();
        std::fs::write(top.path().join("real/file"), "mine").unwrap();
        symlink(outside.path(), top.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), top.path().join("real/link")).unwrap();
        symlink(outside.path(), top.path().join("real/deep")).unwrap();
        assert_eq!(open(top.path(), "real/file").unwrap(), "mine");
        for path in ["out/secret", "real/link", "real/deep/secret"] {
            assert!(open(top.path(), path).is_err(), "{path} was opened");
        }
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_its_writer() {
        let top = tempfile::tempdir().unwrap();
        mknodat(CWD, top.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(open(top.path(), "fifo").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(open(Path::new("/dev"), "null").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn unlocking_never_reaches_through_a_link() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let top = tempfile::tempdir().unwrap();
        symlink(outside.path(), top.path().join("link")).unwrap();
        std::fs::create_dir(top.path().join("locked")).unwrap();
        std::fs::set_permissions(top.path().join("locked"), PermissionsExt::from_mode(0o000)).unwrap();
        let dir = open_trusted(top.path()).unwrap();
        assert!(unlock_dir(&dir, "link").is_err());
        unlock_dir(&dir, "locked").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(outside.path()), 0o711);
        assert_eq!(mode(&top.path().join("locked")), 0o700);
    }
}
