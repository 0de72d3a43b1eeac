//! Paths among the settings: made absolute, and looked at, whether the file system agrees to them. The one part of
//! reading settings that looks at the machine; it changes nothing there.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::values;

/// Where kernels' directories are when nobody says.
pub(super) const DEFAULT_ROOT: &str = "/var/cache/scratches";

/// The largest file of settings, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Where a kernel runner lies in its source (PROTOCOL section 11).
const RUNNER: &str = "ai/backend/kernel";

/// The directory of all scratch directories. The default is not looked at: the start does that, and the command line's
/// library insists on a default that is always good.
pub(super) fn scratch_root(text: &str) -> Result<PathBuf, String> {
    checked(text, |path| {
        // A disk that is read-only now may be better soon; the agent says so itself, and ends what runs meanwhile.
        if text == DEFAULT_ROOT { None } else { directory(path).or_else(|| refused(path, is_read_only)) }
    })
}

/// The text of a file of settings. One that was named by mistake, such as a log or a device without an end, is not read to its
/// end.
pub(super) fn settings_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 1 MiB, which no file of settings is",
        ));
    }
    Ok(text)
}

/// What is wrong with a directory for new files, if anything.
pub(super) fn refuses_files(path: &Path) -> Option<String> {
    directory(path).or_else(|| writable(path))
}

/// Whether one of the directories of `PATH` has this program.
pub(super) fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|dir| accessat(CWD, dir.join(program), Access::EXEC_OK, AtFlags::EACCESS).is_ok())
}

/// A kernel runner's source.
pub(super) fn debug_kernel(text: &str) -> Result<PathBuf, String> {
    checked(text, |path| {
        let elsewhere = !path.ends_with(RUNNER);
        elsewhere
            .then(|| format!("does not end in {RUNNER}: give that part of a kernel runner's source"))
            .or_else(|| directory(path))
    })
}

/// The log file. Its directory must be writable, too: full files are renamed in it.
pub(super) fn log_file(text: &str) -> Result<PathBuf, String> {
    checked(text, |path| {
        if path.is_dir() {
            return Some("is a directory: give a file in it".to_owned());
        }
        let parent = path.parent()?;
        directory(parent)
            .or_else(|| writable(parent))
            .map(|advice| format!("its directory {advice}"))
            .or_else(|| path.exists().then(|| writable(path)).flatten())
    })
}

/// What to do about a file of settings that holds the secret of this key and that everybody may read.
pub(super) fn is_open(path: &Path, key: &str) -> Option<String> {
    let mode = path.metadata().ok()?.permissions().mode();
    let path = path.display();
    (mode & 0o007 != 0).then(|| format!("{path} holds {key} and may be read by everybody: chmod 640 {path}"))
}

/// The absolute path, unless something is wrong with it.
fn checked(text: &str, wrong: impl Fn(&Path) -> Option<String>) -> Result<PathBuf, String> {
    if values::text(text).is_none() {
        return Err("give a path".to_owned());
    }
    let path = std::path::absolute(text).map_err(|error| format!("cannot be made absolute: {error}"))?;
    wrong(&path).map_or(Ok(path), Err)
}

fn directory(path: &Path) -> Option<String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("is not a directory".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some("does not exist: make it, or give another".to_owned())
        }
        Err(error) => Some(format!("cannot be looked at: {error}")),
    }
}

/// Asks for the effective user, and without making a file; knows read-only file systems, too.
fn writable(path: &Path) -> Option<String> {
    refused(path, |_| false)
}

/// The same, but for a reason that is all right.
fn refused(path: &Path, is_all_right: impl Fn(rustix::io::Errno) -> bool) -> Option<String> {
    let rights = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    let error = accessat(CWD, path, rights, AtFlags::EACCESS).err().filter(|error| !is_all_right(*error))?;
    Some(format!("cannot be written to by the agent's user: {}", std::io::Error::from(error)))
}

fn is_read_only(error: rustix::io::Errno) -> bool {
    error == rustix::io::Errno::ROFS
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn check(read: fn(&str) -> Result<PathBuf, String>, path: &Path, expected: Option<&str>) {
        match (read(path.to_str().unwrap()), expected) {
            (Ok(found), None) => assert_eq!(found, path),
            (Err(text), Some(words)) => assert!(text.contains(words), "{text:?} lacks {words:?}"),
            (found, _) => panic!("{}: {found:?}, not {expected:?}", path.display()),
        }
    }

    #[test]
    fn the_scratch_root_is_a_directory_that_can_be_written_to() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        check(scratch_root, dir.path(), None);
        check(scratch_root, &file, Some("is not a directory"));
        check(scratch_root, &dir.path().join("none"), Some("does not exist"));
        check(scratch_root, &file.join("below"), Some("cannot be looked at"));
        // The kernel lets nobody make a file there, not even root.
        check(scratch_root, Path::new("/proc/sys/kernel"), Some("cannot be written to"));
    }

    #[test]
    fn the_debug_kernel_is_that_part_of_a_source() {
        let dir = TempDir::new().unwrap();
        let runner = dir.path().join(RUNNER);
        check(debug_kernel, &runner, Some("does not exist"));
        fs::create_dir_all(&runner).unwrap();
        check(debug_kernel, &runner, None);
        check(debug_kernel, dir.path(), Some("does not end in"));
        check(debug_kernel, &dir.path().join("xai/backend/kernel"), Some("does not end in"));
    }

    #[test]
    fn the_log_file_may_be_new_but_not_its_directory() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("agent.log");
        check(log_file, &file, None);
        fs::write(&file, "").unwrap();
        check(log_file, &file, None);
        check(log_file, dir.path(), Some("is a directory"));
        check(log_file, &dir.path().join("none/agent.log"), Some("its directory does not exist"));
    }

    #[test]
    fn a_file_of_settings_has_an_end() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("agent.toml");
        let comment = |length| "#".repeat(length);
        fs::write(&file, comment(1 << 20)).unwrap();
        assert_eq!(settings_file(&file).map(|text| text.len()).ok(), Some(1 << 20));
        fs::write(&file, comment((1 << 20) + 1)).unwrap();
        for endless in [&*file, Path::new("/dev/zero")] {
            let error = settings_file(endless).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{}: {error}", endless.display());
        }
    }

    #[test]
    fn a_file_with_a_secret_is_for_few() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(&file, "").unwrap();
        for (mode, told) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let warning = is_open(&file, "raven-uri");
            assert_eq!(warning.is_some(), told, "{mode:o} {warning:?}");
        }
    }

    #[test]
    fn a_path_is_absolute_and_not_blank() {
        let here = std::env::current_dir().unwrap().join("a.log");
        assert_eq!(log_file("a.log"), Ok(here));
        for bad in ["", " ", "a\nb"] {
            assert_eq!(scratch_root(bad), Err("give a path".to_owned()));
        }
        assert_eq!(scratch_root(DEFAULT_ROOT), Ok(DEFAULT_ROOT.into()), "whether it is there or not");
    }
}
