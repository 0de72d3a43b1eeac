//! What a directory of a kernel's holds, as `list_files` tells it (PROTOCOL section 3).

use std::io;
use std::time::{Duration, Instant};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use serde::Serialize;

use super::tree::{LastLink, Place, Tree};
use crate::wire::reply::Listing;

/// Entries told of one directory; each takes some 150 bytes.
const MAX_ENTRIES: usize = 20_000;
/// One listing; the manager of 1.4 waits 5 s.
const MAX_TIME: Duration = Duration::from_secs(3);

/// One entry, in the order of keys that clients know.
#[derive(Serialize)]
struct Entry {
    mode: String,
    size: i64,
    ctime: f64,
    mtime: f64,
    atime: f64,
    filename: String,
}

impl Tree {
    /// Lists a directory. Blocks; what can't be listed is told in the listing, not as an error.
    #[must_use]
    pub fn list(&self, path: &str) -> Listing {
        let place = match self.find(path, LastLink::Follow) {
            Ok(place) => place,
            Err(error) => return Listing { errors: told(&error), ..Listing::default() },
        };
        let mut abspath = "/home/work".to_owned();
        for name in &place.below {
            abspath = format!("{abspath}/{}", name.to_string_lossy());
        }
        if place.kind() != FileType::Directory {
            let errors = "Not a directory".to_owned();
            return Listing { errors, abspath: Some(abspath + "\n"), files: String::new() };
        }
        let abspath = Some(abspath + "/\n");
        match self.entries(&place) {
            Ok((entries, errors)) => {
                let json = serde_json::to_string(&entries).unwrap_or_default();
                Listing { files: json + "\n", errors, abspath }
            }
            Err(error) => Listing { files: String::new(), errors: told(&error), abspath },
        }
    }

    /// The entries, and what is to be said of those that are left out.
    fn entries(&self, place: &Place) -> io::Result<(Vec<Entry>, String)> {
        let until = Instant::now() + MAX_TIME;
        let mut entries = Vec::new();
        let cut = |reason: &str| format!("the directory has more entries; {reason}");
        for entry in open_dir(place)? {
            let entry = entry?;
            let name = os_name(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if entries.len() >= MAX_ENTRIES {
                return Ok((entries, cut("the first 20000 are listed")));
            }
            if Instant::now() > until {
                return Ok((entries, cut("there was no time for them")));
            }
            // What goes meanwhile is not there.
            let Ok(found) = self.within(place, &name) else { continue };
            let stat = match found.kind() {
                // One that leads out, or nowhere, is told as itself.
                FileType::Symlink => self.through(&found).map_or(found.stat, |target| target.stat),
                _ => found.stat,
            };
            entries.push(described(&stat, name.to_string_lossy().into_owned()));
        }
        Ok((entries, String::new()))
    }
}

/// The entries of a directory that was found.
pub(super) fn open_dir(place: &Place) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Dir::new(rustix::fs::openat(&place.fd, ".", flags, Mode::empty())?)?)
}

/// A name of a directory's entry.
pub(super) fn os_name(bytes: &[u8]) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).to_owned()
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "Not a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn described(stat: &Stat, filename: String) -> Entry {
    let time = |seconds: i64, nanos: u64| {
        // Exact enough: a float of this size counts in less than a microsecond.
        #[allow(clippy::cast_precision_loss)]
        let time = seconds as f64 + nanos as f64 / 1e9;
        time
    };
    Entry {
        mode: mode_text(stat.st_mode),
        size: stat.st_size,
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        filename,
    }
}

/// `-rw-r--r--`, as `ls -l` shows it.
fn mode_text(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Unknown => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 == 0, mode & special == 0) {
            (true, true) => '-',
            (false, true) => 'x',
            (true, false) => letter.to_ascii_uppercase(),
            (false, false) => letter,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, mknodat};
    use serde_json::Value as Json;

    use super::super::tree::tests::Kernel;
    use super::*;

    fn listed(kernel: &Kernel, path: &str) -> Vec<(String, String, u64)> {
        let listing = kernel.tree.list(path);
        assert_eq!(listing.errors, "", "{path}");
        assert!(listing.files.ends_with('\n'));
        let Ok(Json::Array(entries)) = serde_json::from_str(&listing.files) else { panic!("{listing:?}") };
        let mut entries: Vec<_> = entries
            .iter()
            .map(|e| {
                assert!(["ctime", "mtime", "atime"].iter().all(|time| e[time].as_f64().unwrap() > 1e9));
                let text = |key: &str| e[key].as_str().unwrap().to_owned();
                (text("filename"), text("mode"), e["size"].as_u64().unwrap())
            })
            .collect();
        entries.sort();
        entries
    }

    #[test]
    fn a_directory_is_listed_with_what_is_mounted_in_it() {
        let kernel = Kernel::new();
        kernel.write("work/main.py", "print(1)");
        kernel.write("work/.hidden", "");
        kernel.write("work/sub/data.txt", "data");
        kernel.write("folder/in", "xy");
        fs::set_permissions(kernel.path("folder"), PermissionsExt::from_mode(0o700)).unwrap();
        let names = |path: &str| listed(&kernel, path).into_iter().map(|e| e.0).collect::<Vec<_>>();
        assert_eq!(names("."), [".hidden", "data", "main.py", "sub"]);
        assert_eq!(listed(&kernel, "sub"), [("data.txt".into(), "-rw-r--r--".into(), 4)]);
        assert_eq!(names("/home/work/data"), ["deep", "in"]);
        let modes: Vec<_> = listed(&kernel, "").into_iter().map(|e| (e.0, e.1)).collect();
        assert_eq!(modes[1], ("data".into(), "drwx------".into()), "the folder's own");
        assert_eq!(kernel.tree.list("sub/..").abspath.as_deref(), Some("/home/work/\n"));
        assert_eq!(kernel.tree.list("data/deep").abspath.as_deref(), Some("/home/work/data/deep/\n"));
    }

    #[test]
    fn what_is_not_there_or_no_directory_is_told() {
        let kernel = Kernel::new();
        kernel.write("work/main.py", "");
        for path in ["/etc", "nothing", "../..", "/proc/self"] {
            let missing = Listing { errors: "No such file or directory".into(), ..Listing::default() };
            assert_eq!(kernel.tree.list(path), missing, "{path}");
        }
        let file = kernel.tree.list("main.py");
        assert_eq!((file.files.as_str(), file.abspath.as_deref()), ("", Some("/home/work/main.py\n")));
        assert!(!file.errors.is_empty());
    }

    #[test]
    fn links_are_followed_and_what_is_no_file_does_not_block() {
        let kernel = Kernel::new();
        kernel.write("work/main.py", "12345");
        kernel.link("main.py", "work/link");
        kernel.link("/etc/passwd", "work/out");
        kernel.link("gone", "work/dangling");
        mknodat(CWD, kernel.path("work/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let entries = listed(&kernel, ".");
        let of = |name: &str| {
            let found = entries.iter().find(|e| e.0 == name).unwrap();
            (found.1.chars().next().unwrap(), found.2)
        };
        assert_eq!(of("link"), ('-', 5));
        assert_eq!((of("out"), of("dangling").0, of("fifo").0), (('l', 11), 'l', 'p'));
    }

    #[test]
    fn a_huge_directory_is_cut_and_says_so() {
        let kernel = Kernel::new();
        for n in 0..=MAX_ENTRIES {
            kernel.write(&format!("work/sub/{n}"), "");
        }
        let listing = kernel.tree.list("sub");
        let Ok(Json::Array(entries)) = serde_json::from_str(&listing.files) else { panic!() };
        assert!(entries.len() <= MAX_ENTRIES && !entries.is_empty());
        assert!(listing.errors.contains("more entries"), "{}", listing.errors);
    }

    #[test]
    fn modes_look_as_ls_shows_them() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o120_777, "lrwxrwxrwx"),
            (0o010_000, "p---------"),
        ] {
            assert_eq!(mode_text(mode), text);
        }
    }
}
