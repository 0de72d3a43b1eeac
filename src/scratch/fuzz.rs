//! What any name of a file, and any environment, must not do, for the fuzzer and for `tests/decoders.rs`: each function panics
//! where they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::path::{RelativePath, is_component};
use super::{Tree, environ, mount_target};

/// A name as it comes with an upload, a folder, or a kernel's output file.
pub fn name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(path) = RelativePath::parse(&text) {
        let parts = path.parents().iter().map(String::as_str).chain([path.name()]);
        assert!(parts.into_iter().all(is_component), "{path:?}");
        assert_eq!(
            RelativePath::parse(&path.joined()).as_ref(),
            Ok(&path),
            "it is another path when read again"
        );
    }
    if let Ok(target) = mount_target(&text) {
        let name = target.strip_prefix("/home/work/");
        assert!(name.is_some_and(|name| is_component(name) && !name.contains(':')), "{target:?}");
    }
}

/// `environ.txt`, which the kernel's user can write to.
pub fn environment(bytes: &[u8]) {
    let (found, _) = environ::parse(bytes);
    if let Ok(text) = environ::render(&found) {
        assert_eq!(environ::parse(text.as_bytes()), (found, 0), "it is another environment when read again");
    }
}

/// The path of a directory to list or of a file to pack, in a tree whose links lead everywhere.
pub fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let place = Place::make();
    assert!(place.is_ok(), "{place:?}");
    let Ok(Place(root)) = &place else { return };
    let home = root.join("home").display().to_string();
    let tree = Tree::of([("/home/work", home.as_str())]);
    let listing = tree.list(&text);
    if let Some(at) = &listing.abspath {
        assert!(at.starts_with("/home/work"), "{at:?} was listed");
    }
    assert!(!listing.files.contains(OUTSIDE), "what lies outside was listed");
    if let Ok(tar) = tree.archive(&text) {
        assert!(
            !tar.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()),
            "what lies outside was packed"
        );
    }
}

/// A file that lies outside.
const OUTSIDE: &str = "another-kernel's";
/// What is in it.
const SECRET: &str = "what nobody else may read";

/// A directory of its own, gone with the value: a kernel's files, and beside them others.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn make() -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("backendai-agent-fuzz-{}-{number}", std::process::id()));
        let home = root.join("home");
        fs::create_dir_all(home.join("d/e"))?;
        let place = Self(root.clone());
        fs::write(root.join(OUTSIDE), SECRET)?;
        fs::write(home.join("d/f"), "the kernel's")?;
        for (target, name) in [
            (Path::new("d"), "a"),
            (Path::new("../.."), "d/u"),
            (Path::new("/"), "r"),
            (Path::new("l"), "l"),
            (&root, "o"),
            (Path::new("/home/work/d/../a"), "h"),
            (&Path::new("..").join(OUTSIDE), "s"),
        ] {
            symlink(target, home.join(name))?;
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
