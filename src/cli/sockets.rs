//! Where agents of this machine have their local sockets, and where the commands look for them.
//!
//! Root's agents have them in [`SYSTEM`], and so has whoever else may write there. An ordinary user's agent, such as a `dev`,
//! has a directory of that user's own, which the same user's commands look into.

use std::path::{Path, PathBuf};

use super::paths;
use crate::agent::config::SocketPlace;

/// Where agents have their sockets as a rule.
pub(super) const SYSTEM: &str = "/run/backendai-agent";

/// Whose directories are meant.
#[derive(Debug, Clone)]
pub(super) struct User {
    is_root: bool,
    /// Where the system keeps what lives as long as the user's session, `XDG_RUNTIME_DIR`.
    runtime: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl User {
    /// Who this process is.
    pub(super) fn of_this_process() -> Self {
        Self {
            is_root: rustix::process::geteuid().is_root(),
            runtime: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            home: std::env::home_dir(),
        }
    }

    /// Where this user's commands look, the usual place first.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let system = PathBuf::from(SYSTEM);
        if self.is_root {
            return vec![system];
        }
        let runtime = self.runtime.as_ref().map(|directory| directory.join("backendai-agent"));
        let home = self.home.as_ref().map(|home| home.join(".cache/backendai-agent/run"));
        let own = [runtime, home].into_iter().flatten().filter(|directory| directory.is_absolute());
        [system].into_iter().chain(own).collect()
    }

    /// Where this user's agent has its socket when nobody says: the first place that takes one.
    pub(super) fn place(&self) -> SocketPlace {
        let directories = self.directories();
        let first = directories.iter().find(|directory| takes(directory)).or_else(|| directories.first());
        SocketPlace::In(first.cloned().unwrap_or_else(|| SYSTEM.into()))
    }
}

/// Whether a file can be made there, for which directories that are missing would be made.
fn takes(directory: &Path) -> bool {
    let there = directory.ancestors().find(|ancestor| ancestor.exists());
    there.is_some_and(|there| paths::refuses_files(there).is_none())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn user(runtime: Option<&Path>, home: Option<&Path>) -> User {
        User { is_root: false, runtime: runtime.map(Path::to_owned), home: home.map(Path::to_owned) }
    }

    #[test]
    fn an_ordinary_user_has_places_and_root_has_one() {
        let user = user(Some(Path::new("/run/user/5")), Some(Path::new("/home/ann")));
        let own =
            ["/run/backendai-agent", "/run/user/5/backendai-agent", "/home/ann/.cache/backendai-agent/run"];
        assert_eq!(user.directories(), own.map(PathBuf::from));
        assert_eq!(User { is_root: true, ..user }.directories(), [PathBuf::from(SYSTEM)]);
    }

    #[test]
    fn what_is_no_whole_path_or_is_not_there_is_no_place() {
        let directories = user(Some(Path::new("run")), None).directories();
        assert_eq!(directories, [PathBuf::from(SYSTEM)]);
    }

    #[test]
    fn a_place_that_takes_no_file_takes_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        assert!(takes(&dir.path().join("run/deeper")));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(!takes(&file.join("below")));
        assert!(!takes(Path::new("/proc/sys/kernel/backendai-agent")));
        // Root may write into it all the same.
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(takes(&closed), rustix::process::geteuid().is_root());
    }
}
