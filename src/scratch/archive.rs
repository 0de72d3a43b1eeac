//! A kernel's file or directory as a tar, for `download_file` (PROTOCOL section 3).
//!
//! The answer travels as one message and is held in memory, so it is bounded as the managers expect: below 1 MiB. Files are
//! read piece by piece into the tar, and nothing is read of one that can't fit.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use tar::{Builder, EntryType, Header};

use super::beneath;
use super::error::ScratchError;
use super::listing::{open_dir, os_name};
use super::tree::{LastLink, Place, Tree};

/// The first size of a tar that is too large, in bytes.
const TOO_LARGE: usize = 1024 * 1024;
/// What a tar ends with, in bytes.
const TRAILER: usize = 1024;
/// Directories below each other; each holds two files open.
const MAX_DEPTH: usize = 64;

impl Tree {
    /// The tar of a file, with its base name, or of a directory with all in it. Blocks.
    ///
    /// A link as `path` is followed; one in a directory stays a link. Sockets, devices and FIFOs are left out of a directory,
    /// and refused as `path`, without having been opened.
    pub fn archive(&self, path: &str) -> Result<Vec<u8>, ScratchError> {
        let name = || path.chars().take(256).collect::<String>();
        let place = self.find(path, LastLink::Follow).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                ScratchError::NoSuchFile { name: name() }
            }
            _ => ScratchError::Archive { name: name(), source },
        })?;
        let mut packing = Packing { tree: self, tar: Builder::new(Bounded::default()) };
        packing.tar.follow_symlinks(false);
        let packed = match place.kind() {
            FileType::Directory => packing.directory(&place, &base_name(path, &place), 0),
            FileType::RegularFile => packing.file(&place, &base_name(path, &place)),
            _ => return Err(ScratchError::NotRegular { name: name() }),
        };
        let packed = packed.and_then(|()| packing.tar.into_inner());
        packed.map(|bounded| bounded.bytes).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => ScratchError::ArchiveTooLarge { name: name() },
            io::ErrorKind::NotFound => ScratchError::NoSuchFile { name: name() },
            _ => ScratchError::Archive { name: name(), source },
        })
    }
}

/// What the member is called: as it was asked for, and `.` where that names no directory.
fn base_name(path: &str, place: &Place) -> PathBuf {
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(".");
    match (last, place.below.last()) {
        (".", _) | ("..", None) => PathBuf::from("."),
        ("..", Some(real)) => PathBuf::from(real),
        (name, _) => PathBuf::from(name),
    }
}

struct Packing<'t> {
    tree: &'t Tree,
    tar: Builder<Bounded>,
}

impl Packing<'_> {
    fn directory(&mut self, dir: &Place, name: &Path, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "there are more than {MAX_DEPTH} directories below each other"
            )));
        }
        let mut header = header(dir, EntryType::Directory, 0);
        self.tar.append_data(&mut header, name.join(""), io::empty())?;
        for entry in open_dir(dir)? {
            let entry = entry?;
            let inner = os_name(entry.file_name().to_bytes());
            if inner == "." || inner == ".." {
                continue;
            }
            self.entry(dir, &inner, name, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &Place, inner: &OsStr, name: &Path, depth: usize) -> io::Result<()> {
        // What goes meanwhile is not there.
        let Ok(found) = self.tree.within(dir, inner) else { return Ok(()) };
        let name = name.join(inner);
        match found.kind() {
            FileType::Directory => self.directory(&found, &name, depth + 1),
            FileType::RegularFile => self.file(&found, &name),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&found.fd, "", Vec::new())?;
                let mut header = header(&found, EntryType::Symlink, 0);
                self.tar.append_link(&mut header, name, os_name(target.as_bytes()))
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, file: &Place, name: &Path) -> io::Result<()> {
        let size = u64::try_from(file.stat.st_size).unwrap_or(0);
        // Nothing is read of what can't fit.
        self.tar.get_ref().has_room(size)?;
        let mut header = header(file, EntryType::Regular, size);
        // The file may grow or shrink meanwhile; the member has the size that its header says.
        let bytes = beneath::reopen(&file.fd)?.take(size).chain(io::repeat(0)).take(size);
        self.tar.append_data(&mut header, name, bytes)
    }
}

fn header(place: &Place, kind: EntryType, size: u64) -> Header {
    let stat = &place.stat;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    header
}

/// Takes what fits.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
}

impl Bounded {
    fn has_room(&self, more: u64) -> io::Result<()> {
        let used = (self.bytes.len() + TRAILER) as u64;
        if used.saturating_add(more) < TOO_LARGE as u64 {
            Ok(())
        } else {
            Err(io::ErrorKind::FileTooLarge.into())
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() >= TOO_LARGE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mknodat};

    use super::super::tree::tests::Kernel;
    use super::*;

    /// Name, kind and contents (or target) of each member.
    fn members(tar: &[u8]) -> Vec<(String, EntryType, String)> {
        assert_eq!(tar.len() % 512, 0);
        let mut members = Vec::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                text = target.to_str().unwrap().to_owned();
            }
            let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
            members.push((name, entry.header().entry_type(), text));
        }
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members
    }

    fn names(tar: &[u8]) -> Vec<String> {
        members(tar).into_iter().map(|member| member.0).collect()
    }

    #[test]
    fn a_file_is_one_member_of_its_base_name() {
        let kernel = Kernel::new();
        kernel.write("work/sub/data.txt", "some data\n");
        kernel.link("sub/data.txt", "work/link");
        let expected = |name: &str| vec![(name.to_owned(), EntryType::Regular, "some data\n".to_owned())];
        assert_eq!(members(&kernel.tree.archive("sub/data.txt").unwrap()), expected("data.txt"));
        assert_eq!(members(&kernel.tree.archive("/home/work/link").unwrap()), expected("link"));
    }

    #[test]
    fn a_directory_comes_with_all_in_it_and_with_what_is_mounted_there() {
        let kernel = Kernel::new();
        kernel.write("work/sub/data.txt", "x");
        kernel.write("folder/deep/file", "of the folder");
        kernel.link("/etc/passwd", "work/sub/out");
        mknodat(CWD, kernel.path("work/sub/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let sub = members(&kernel.tree.archive("sub").unwrap());
        assert_eq!(
            sub,
            [
                ("sub/".to_owned(), EntryType::Directory, String::new()),
                ("sub/data.txt".to_owned(), EntryType::Regular, "x".to_owned()),
                ("sub/out".to_owned(), EntryType::Symlink, "/etc/passwd".to_owned()),
            ]
        );
        assert_eq!(names(&kernel.tree.archive("data").unwrap()), ["data/", "data/deep/", "data/deep/file"]);
        let all = names(&kernel.tree.archive(".").unwrap());
        assert!(all.iter().any(|name| name.ends_with("data/deep/file")), "{all:?}");
    }

    #[test]
    fn what_is_not_there_outside_or_no_file_is_refused() {
        let kernel = Kernel::new();
        kernel.link("/etc/passwd", "work/out");
        mknodat(CWD, kernel.path("work/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for path in ["nothing", "../../etc/hostname", "/etc/passwd", "out", "sub/x/y"] {
            let refused = kernel.tree.archive(path).unwrap_err();
            assert!(matches!(refused, ScratchError::NoSuchFile { .. }), "{path}: {refused}");
        }
        assert!(matches!(kernel.tree.archive("fifo"), Err(ScratchError::NotRegular { .. })));
    }

    #[test]
    fn a_tar_stays_below_a_mebibyte() {
        let kernel = Kernel::new();
        let fits = TOO_LARGE - 512 - TRAILER - 512;
        kernel.write("work/fits", vec![b'x'; fits]);
        assert_eq!(kernel.tree.archive("fits").unwrap().len(), TOO_LARGE - 512);
        for large in [fits + 1, 1_200_000] {
            kernel.write("work/large", vec![b'x'; large]);
            let refused = kernel.tree.archive("large").unwrap_err();
            assert!(matches!(refused, ScratchError::ArchiveTooLarge { .. }), "{large}: {refused}");
        }
        fs::File::create(kernel.path("work/sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(kernel.tree.archive("sparse"), Err(ScratchError::ArchiveTooLarge { .. })));
        for n in 0..2100 {
            kernel.write(&format!("work/sub/{n}"), "");
        }
        assert!(matches!(kernel.tree.archive("sub"), Err(ScratchError::ArchiveTooLarge { .. })));
    }

    #[test]
    fn names_that_are_long_survive_and_depth_has_an_end() {
        let kernel = Kernel::new();
        let long = "n".repeat(200);
        kernel.write(&format!("work/sub/{long}"), "x");
        assert!(names(&kernel.tree.archive("sub").unwrap()).contains(&format!("sub/{long}")));
        let deep: PathBuf = std::iter::repeat_n("d", MAX_DEPTH + 2).collect();
        fs::create_dir_all(kernel.path("work/deep").join(deep)).unwrap();
        assert!(matches!(kernel.tree.archive("deep"), Err(ScratchError::Archive { .. })));
    }
}
