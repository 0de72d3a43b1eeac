//! Keeping a scratch root from the other users of the machine, who would find secrets in kernels' environments there, users'
//! files, and programs that run as whoever left them.
//!
//! Containers need no way through the root: what is mounted into one is found by dockerd, and stays mounted whatever becomes of
//! the directories above it. So a root can be closed under running kernels.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use super::root::{AGENT_DIR, ScratchRoot};
use crate::ids::KernelId;

/// What a new file system has by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// How well a scratch root is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privacy {
    /// Whether other users of the machine get in.
    pub is_open: bool,
    /// Whether programs on its file system may run as their owners (no `nosuid`).
    pub runs_as_owner: bool,
    /// Whether device files on it work (no `nodev`).
    pub has_devices: bool,
}

impl Privacy {
    /// Looks. Blocks.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mode = fs::metadata(root)?.permissions().mode();
        let flags = rustix::fs::statvfs(root)?.f_flag;
        Ok(Self {
            is_open: mode & 0o077 != 0,
            runs_as_owner: !flags.contains(StatVfsMountFlags::NOSUID),
            has_devices: !flags.contains(StatVfsMountFlags::NODEV),
        })
    }

    /// What an operator should do about it, a line each.
    #[must_use]
    pub fn advice(self) -> Vec<&'static str> {
        let mount = "a file system of its own, mounted with nosuid,nodev, would make programs and devices that kernels leave there harmless";
        let lines = [
            (
                self.is_open,
                "other users of this machine can look into the scratch root; chmod 0700 closes it",
            ),
            (self.runs_as_owner || self.has_devices, mount),
        ];
        lines.into_iter().filter(|(applies, _)| *applies).map(|(_, line)| line).collect()
    }
}

/// What became of closing a root.
#[derive(Debug)]
pub enum Closing {
    /// It was closed before.
    Was,
    /// It is closed now.
    Now,
    /// It holds something that is no kernel's, so that its mode is somebody else's business.
    Shared(String),
    /// The system refused.
    Refused(io::Error),
}

impl ScratchRoot {
    /// Takes other users' rights to the root away, unless it is more than a scratch root. Blocks.
    #[must_use]
    pub fn close(&self) -> Closing {
        let closing = || {
            if !Privacy::of(self.path())?.is_open {
                return Ok(Closing::Was);
            }
            if let Some(stranger) = stranger(self.path())? {
                return Ok(Closing::Shared(stranger));
            }
            fs::set_permissions(self.path(), Permissions::from_mode(0o700))?;
            Ok(Closing::Now)
        };
        closing().unwrap_or_else(Closing::Refused)
    }
}

/// A name below the root that is neither a kernel's nor the agent's.
fn stranger(root: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_ours = name == AGENT_DIR || name == LOST_AND_FOUND || name.parse::<KernelId>().is_ok();
        if !is_ours {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn open(mode: u32) -> (tempfile::TempDir, ScratchRoot) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_root_of_kernels_is_closed_and_what_is_below_left_as_it_is() {
        let (dir, root) = open(0o755);
        let kernel = dir.path().join(KernelId::random().to_string());
        fs::create_dir(&kernel).unwrap();
        fs::set_permissions(&kernel, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join(LOST_AND_FOUND)).unwrap();
        assert!(Privacy::of(dir.path()).unwrap().is_open);
        assert!(matches!(root.close(), Closing::Now));
        assert_eq!((mode(dir.path()), mode(&kernel)), (0o700, 0o755));
        assert!(matches!(root.close(), Closing::Was));
        assert!(!Privacy::of(dir.path()).unwrap().is_open);
    }

    #[test]
    fn a_directory_that_others_use_keeps_its_mode() {
        let (dir, root) = open(0o1777);
        fs::write(dir.path().join("x.sock"), "").unwrap();
        assert!(matches!(root.close(), Closing::Shared(name) if name == "x.sock"));
        assert_eq!(mode(dir.path()), 0o1777);
    }

    #[test]
    fn advice_is_given_where_there_is_something_to_do() {
        let good = Privacy { is_open: false, runs_as_owner: false, has_devices: false };
        assert!(good.advice().is_empty());
        assert!(Privacy { is_open: true, ..good }.advice()[0].contains("chmod 0700"));
        for half in [Privacy { runs_as_owner: true, ..good }, Privacy { has_devices: true, ..good }] {
            assert!(half.advice()[0].contains("nosuid,nodev"));
        }
    }
}
