//! To whom belongs what the agent makes in a kernel's directory: to whom the directory itself belongs.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Stat, Uid};

/// The user to whom the agent gives what it makes in a kernel's directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heir {
    /// `None`: the agent's own user, who has it already.
    owner: Option<(Uid, Gid)>,
    /// Whether the directory is open to other users.
    is_open: bool,
}

impl Heir {
    /// Reads it off the directory.
    pub(super) fn of(home: &Stat) -> Self {
        let is_own = home.st_uid == rustix::process::geteuid().as_raw();
        let owner = (!is_own).then(|| (Uid::from_raw(home.st_uid), Gid::from_raw(home.st_gid)));
        Self { owner, is_open: home.st_mode & 0o077 != 0 }
    }

    /// Whether other users get into the directory, so that what is made there for all to read is read.
    pub(super) fn is_open(self) -> bool {
        self.is_open
    }

    /// Gives it away.
    pub(super) fn take(self, made: impl AsFd) -> io::Result<()> {
        match self.owner {
            // Unlike `fchown`, also for what is open only as a place.
            Some((uid, gid)) => Ok(rustix::fs::chownat(made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?),
            None => Ok(()),
        }
    }
}
