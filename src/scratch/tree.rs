//! What a kernel sees below `/home/work`, found from the host: its own files, and the folders that are mounted among them.
//!
//! Paths mean what they mean inside the container, links too. Whatever the user's code plants meanwhile, a walk only
//! ever opens one name at a time in a directory that it holds open, and never through a link, so that it can't leave what
//! is mounted there.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::beneath;

/// Where the tree begins inside the container.
const HOME: [&str; 2] = ["home", "work"];
/// So many links lead in a circle, as the kernel counts.
const MAX_LINKS: u32 = 40;

/// A kernel's directories: where on the host lies what it sees below `/home/work`.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Names below `/home/work` on the way to a mount, none for itself, and its source.
    mounts: Vec<(Vec<OsString>, PathBuf)>,
}

/// A place inside the container, as a walk found it.
#[derive(Debug)]
pub(super) struct Place {
    /// Open as a place only (`O_PATH`).
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    /// The names from `/home/work` on; none for itself.
    pub(super) below: Vec<OsString>,
}

impl Place {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// What a walk does with a link at the very end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastLink {
    Follow,
    Keep,
}

impl Tree {
    /// From a container's mounts: the paths inside and their sources on the host. Those outside of `/home/work` don't count.
    #[must_use]
    pub fn of<'m>(mounts: impl IntoIterator<Item = (&'m str, &'m str)>) -> Self {
        let below = |target: &str| {
            let names = Path::new(target).strip_prefix("/home/work").ok()?;
            Some(names.iter().map(OsStr::to_owned).collect())
        };
        let one = |(target, source): (&str, &str)| Some((below(target)?, PathBuf::from(source)));
        Self { mounts: mounts.into_iter().filter_map(one).collect() }
    }

    /// The source of what is mounted exactly there.
    pub(super) fn mounted(&self, below: &[OsString]) -> Option<&Path> {
        let mut mounts = self.mounts.iter();
        mounts.find(|(target, _)| target == below).map(|(_, source)| source.as_path())
    }

    /// Walks a path as a program in `/home/work` would. What does not exist, and what lies elsewhere in the container, is
    /// not found.
    pub(super) fn find(&self, path: &str, last: LastLink) -> io::Result<Place> {
        let mut walk = Walk { tree: self, at: Vec::new(), dirs: Vec::new(), links: 0 };
        walk.begin(path.as_bytes())?;
        walk.go(OsStr::new(path), last)
    }

    /// Walks on from a directory that was found, to a name in it.
    pub(super) fn within(&self, dir: &Place, name: &OsStr) -> io::Result<Place> {
        let mut below = dir.below.clone();
        below.push(name.to_owned());
        let fd = match self.mounted(&below) {
            Some(source) => beneath::open_trusted(source)?,
            None => beneath::open_place(&dir.fd, name)?,
        };
        Ok(Place { stat: rustix::fs::fstat(&fd)?, fd, below })
    }

    /// What a link in a directory that was found leads to.
    pub(super) fn through(&self, link: &Place) -> io::Result<Place> {
        let above: PathBuf = Path::new("/home/work").join(link.below.iter().collect::<PathBuf>());
        let walk = Walk { tree: self, at: Vec::new(), dirs: Vec::new(), links: 0 };
        walk.go(above.as_os_str(), LastLink::Follow)
    }
}

/// A walk on its way. While it is below `/home/work` it holds every directory on the way from there open, so that `..` needs
/// nobody's word for where it leads.
struct Walk<'t> {
    tree: &'t Tree,
    /// The names from `/` on.
    at: Vec<OsString>,
    /// `/home/work` and what is below it on the way; empty while the walk is elsewhere.
    dirs: Vec<OwnedFd>,
    links: u32,
}

impl Walk<'_> {
    /// At `/home/work`, unless the path says where it begins.
    fn begin(&mut self, path: &[u8]) -> io::Result<()> {
        if !path.starts_with(b"/") {
            for name in HOME {
                self.enter(OsStr::new(name))?;
            }
        }
        Ok(())
    }

    fn go(mut self, path: &OsStr, last: LastLink) -> io::Result<Place> {
        let mut ahead = names(path);
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                self.at.pop();
                self.dirs.pop();
                continue;
            }
            let Some(found) = self.enter(&name)? else { continue };
            let is_last = ahead.is_empty();
            if found.kind() == FileType::Symlink && !(is_last && last == LastLink::Keep) {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&found.fd, "", Vec::new())?;
                let target = OsStr::from_bytes(target.as_bytes());
                if target.as_bytes().starts_with(b"/") {
                    self.at.clear();
                    self.dirs.clear();
                }
                let mut longer = names(target);
                longer.append(&mut ahead);
                ahead = longer;
            } else if is_last {
                return Ok(found);
            } else {
                return Err(Errno::NOTDIR.into());
            }
        }
        let fd = self.dirs.pop().ok_or(Errno::NOENT)?;
        Ok(Place { stat: rustix::fs::fstat(&fd)?, fd, below: self.at.split_off(HOME.len()) })
    }

    /// Goes on into the directory `name`. What is there, if it is none.
    fn enter(&mut self, name: &OsStr) -> io::Result<Option<Place>> {
        let mut below: Vec<OsString> = Vec::new();
        let fd = match self.dirs.last() {
            // Elsewhere there is only the way back.
            None if HOME.get(self.at.len()).is_some_and(|part| *part == name) => {
                self.at.push(name.to_owned());
                if self.at.len() < HOME.len() {
                    return Ok(None);
                }
                let home = self.tree.mounted(&[]).ok_or(Errno::NOENT)?;
                self.dirs.push(beneath::open_trusted(home)?);
                return Ok(None);
            }
            None => return Err(Errno::NOENT.into()),
            Some(dir) => {
                below.extend(self.at.iter().skip(HOME.len()).cloned());
                below.push(name.to_owned());
                match self.tree.mounted(&below) {
                    Some(source) => beneath::open_trusted(source)?,
                    None => beneath::open_place(dir, name)?,
                }
            }
        };
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Some(Place { fd, stat, below }));
        }
        self.at.push(name.to_owned());
        self.dirs.push(fd);
        Ok(None)
    }
}

fn names(path: &OsStr) -> VecDeque<OsString> {
    let names = path.as_bytes().split(|byte| *byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A kernel's files with a folder among them, and something outside that is nobody's business.
    pub(in super::super) struct Kernel {
        pub(in super::super) dir: tempfile::TempDir,
        pub(in super::super) tree: Tree,
    }

    impl Kernel {
        pub(in super::super) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for part in ["work/data", "work/sub", "folder/deep", "outside"] {
                fs::create_dir_all(dir.path().join(part)).unwrap();
            }
            fs::write(dir.path().join("outside/secret"), "secret").unwrap();
            let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
            let (work, folder) = (path("work"), path("folder"));
            let mounts =
                [("/home/work/data", folder.as_str()), ("/home/work", &work), ("/home/config", "/etc")];
            Self { tree: Tree::of(mounts), dir }
        }

        pub(in super::super) fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        pub(in super::super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            fs::write(self.path(name), text).unwrap();
        }

        pub(in super::super) fn link(&self, target: &str, name: &str) {
            symlink(target, self.path(name)).unwrap();
        }

        fn find(&self, path: &str) -> Result<String, Option<i32>> {
            let place = self.tree.find(path, LastLink::Follow).map_err(|error| error.raw_os_error())?;
            Ok(place.below.iter().collect::<PathBuf>().to_str().unwrap().to_owned())
        }
    }

    const NOENT: Result<String, Option<i32>> = Err(Some(2));

    #[test]
    fn paths_mean_what_they_mean_inside() {
        let kernel = Kernel::new();
        kernel.write("work/main.py", "");
        kernel.write("folder/deep/file", "");
        for (path, real) in [
            ("", ""),
            (".", ""),
            ("/home/work", ""),
            ("/home/work/", ""),
            ("main.py", "main.py"),
            ("./sub//../main.py", "main.py"),
            ("../work/main.py", "main.py"),
            ("/../home/./work/main.py", "main.py"),
            ("data", "data"),
            ("data/deep/file", "data/deep/file"),
            ("data/deep/../../sub", "sub"),
            ("../../home/work/data/deep", "data/deep"),
        ] {
            assert_eq!(kernel.find(path).as_deref(), Ok(real), "{path}");
        }
        for elsewhere in
            ["/", "..", "/etc/passwd", "../../etc", "/home", "/home/config", "../config/x", "nothing"]
        {
            assert_eq!(kernel.find(elsewhere), NOENT, "{elsewhere}");
        }
        assert_eq!(kernel.find("main.py/x"), Err(Some(20)));
    }

    #[test]
    fn links_lead_where_they_lead_inside_and_never_out() {
        let kernel = Kernel::new();
        kernel.write("work/main.py", "");
        kernel.write("folder/deep/file", "");
        kernel.link("main.py", "work/plain");
        kernel.link("/home/work/data/deep", "work/across");
        kernel.link("../sub/../plain", "work/sub/chain");
        kernel.link("../main.py", "folder/up");
        kernel.link(kernel.path("outside").to_str().unwrap(), "work/out");
        kernel.link("../outside/secret", "work/beside");
        kernel.link("../../../../../../etc/passwd", "work/far");
        kernel.link("circle", "work/circle");
        kernel.link("/", "work/root");
        for (path, real) in [
            ("plain", "main.py"),
            ("across/file", "data/deep/file"),
            ("sub/chain", "main.py"),
            ("data/up", "main.py"),
            ("root/home/work/main.py", "main.py"),
        ] {
            assert_eq!(kernel.find(path).as_deref(), Ok(real), "{path}");
        }
        for out in ["out", "out/secret", "beside", "far", "root", "root/etc"] {
            assert_eq!(kernel.find(out), NOENT, "{out}");
        }
        assert_eq!(kernel.find("circle"), Err(Some(40)));
        let link = kernel.tree.find("out", LastLink::Keep).unwrap();
        assert_eq!(link.kind(), FileType::Symlink);
    }

    #[test]
    fn what_lies_under_a_mount_is_hidden() {
        let kernel = Kernel::new();
        kernel.write("work/data/hidden", "");
        assert_eq!(kernel.find("data/hidden"), NOENT);
        let home = kernel.tree.find(".", LastLink::Follow).unwrap();
        let data = kernel.tree.within(&home, OsStr::new("data")).unwrap();
        assert!(kernel.tree.within(&data, OsStr::new("deep")).is_ok());
    }

    /// A directory that becomes a link between two looks leads nowhere.
    #[test]
    fn a_swap_of_a_directory_for_a_link_never_leads_out() {
        let kernel = Kernel::new();
        fs::create_dir(kernel.path("work/real")).unwrap();
        kernel.write("work/real/secret", "mine");
        kernel.link(kernel.path("outside").to_str().unwrap(), "work/fake");
        let (real, fake, seen) =
            (kernel.path("work/real"), kernel.path("work/fake"), kernel.path("work/seen"));
        fs::rename(&real, &seen).unwrap();
        std::thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                for _ in 0..2_000 {
                    fs::rename(&seen, &real).unwrap();
                    fs::rename(&fake, &seen).unwrap();
                    fs::rename(&seen, &fake).unwrap();
                    fs::rename(&real, &seen).unwrap();
                }
            });
            let mut found = 0;
            while !swapper.is_finished() {
                if let Ok(place) = kernel.tree.find("seen/secret", LastLink::Follow) {
                    assert_eq!(place.stat.st_size, 4, "what is outside has six bytes");
                    found += 1;
                }
            }
            assert!(found > 0);
        });
    }
}
