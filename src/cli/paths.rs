//! Whether the file system agrees to the paths among the settings. The one part of reading settings that looks at
//! the machine; it changes nothing there.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::config::PathSetting;
use super::report::Problem;
use super::settings::{DEBUG_KERNEL, LOG_FILE, SCRATCH_ROOT};

/// Where a kernel runner lies in its source (PROTOCOL section 11).
const RUNNER: &str = "ai/backend/kernel";

/// Looks at every path.
pub(super) fn check(paths: &[PathSetting]) -> Vec<Problem> {
    paths.iter().filter_map(problem).collect()
}

fn problem(PathSetting { setting, origin, path }: &PathSetting) -> Option<Problem> {
    let advice = match *setting {
        SCRATCH_ROOT => scratch_root(path),
        DEBUG_KERNEL => debug_kernel(path),
        LOG_FILE => log_file(path),
        _ => None,
    };
    advice.map(|advice| Problem::new(setting, *origin, &path.to_string_lossy(), advice))
}

fn scratch_root(path: &Path) -> Option<String> {
    directory(path).or_else(|| writable(path))
}

fn debug_kernel(path: &Path) -> Option<String> {
    let elsewhere = !path.ends_with(RUNNER);
    elsewhere
        .then(|| format!("does not end in {RUNNER}: give that part of a kernel runner's source"))
        .or_else(|| directory(path))
}

/// The directory must be writable, too: full files are renamed in it.
fn log_file(path: &Path) -> Option<String> {
    if path.is_dir() {
        return Some("is a directory: give a file in it".to_owned());
    }
    let parent = path.parent()?;
    directory(parent)
        .or_else(|| writable(parent))
        .map(|advice| format!("its directory {advice}"))
        .or_else(|| path.exists().then(|| writable(path)).flatten())
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
    let rights = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    let error = accessat(CWD, path, rights, AtFlags::EACCESS).err()?;
    Some(format!("cannot be written to by the agent's user: {}", std::io::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::report::Origin;
    use super::super::settings::Setting;
    use super::*;

    fn check_one(setting: Setting, path: &Path, expected: Option<&str>) {
        let found = check(&[PathSetting { setting, origin: Origin::Flag, path: path.to_owned() }]);
        match expected {
            None => assert_eq!(found, [], "{}", path.display()),
            Some(words) => {
                let text = found.iter().map(ToString::to_string).collect::<String>();
                assert!(text.starts_with(setting.flag) && text.contains(words), "{text:?} lacks {words:?}");
            }
        }
    }

    #[test]
    fn the_scratch_root_is_a_directory_that_can_be_written_to() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        check_one(SCRATCH_ROOT, dir.path(), None);
        check_one(SCRATCH_ROOT, &file, Some("is not a directory"));
        check_one(SCRATCH_ROOT, &dir.path().join("none"), Some("does not exist"));
        check_one(SCRATCH_ROOT, &file.join("below"), Some("cannot be looked at"));
        // The kernel lets nobody make a file there, not even root.
        check_one(SCRATCH_ROOT, Path::new("/proc/sys/kernel"), Some("cannot be written to"));
    }

    #[test]
    fn the_debug_kernel_is_that_part_of_a_source() {
        let dir = TempDir::new().unwrap();
        let runner = dir.path().join(RUNNER);
        check_one(DEBUG_KERNEL, &runner, Some("does not exist"));
        fs::create_dir_all(&runner).unwrap();
        check_one(DEBUG_KERNEL, &runner, None);
        check_one(DEBUG_KERNEL, dir.path(), Some("does not end in"));
        check_one(DEBUG_KERNEL, &dir.path().join("xai/backend/kernel"), Some("does not end in"));
    }

    #[test]
    fn the_log_file_may_be_new_but_not_its_directory() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("agent.log");
        check_one(LOG_FILE, &file, None);
        fs::write(&file, "").unwrap();
        check_one(LOG_FILE, &file, None);
        check_one(LOG_FILE, dir.path(), Some("is a directory"));
        check_one(LOG_FILE, &dir.path().join("none/agent.log"), Some("its directory does not exist"));
    }
}
