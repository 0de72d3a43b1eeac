//! A second place for the journal and the notes of runs, on another file system: beside the agent's local socket, in memory as a rule.
//!
//! What the scratch root doesn't take (read-only, not mounted) is kept here until it does, so that a kill of the agent
//! meanwhile has no end told twice, nor with another reason, and no run forgotten. What is here is newer than what is there.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{NoteFile, file, read_all, read_one, remove, write_small};
use crate::ids::KernelId;
use crate::kernel::labels::Owner;

/// The second place of one agent's notes of one kind; `None` where there is none.
#[derive(Debug)]
pub(super) struct Shelter(Option<PathBuf>);

impl Shelter {
    /// Of this kind of notes, in `dir`.
    pub(super) fn new(dir: Option<&Path>, kind: &str, owner: &Owner) -> Self {
        Self(dir.map(|dir| dir.join(format!("{kind}.{}.{}", owner.namespace, owner.instance))))
    }

    /// Keeps a note that the first place refused.
    pub(super) fn keep(&self, kernel: KernelId, note: &impl Serialize) {
        let Some(dir) = &self.0 else { return };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        if let Err(error) = made.and_then(|()| write_small(dir, kernel, note)) {
            tracing::debug!(%kernel, path = %dir.display(), %error, "no second place for a note");
        }
    }

    /// The first place has it now, or nobody needs it any more.
    pub(super) fn forget(&self, kernel: KernelId) {
        if let Some(dir) = &self.0 {
            remove(&file(dir, kernel));
        }
    }

    /// What an earlier life kept here of one kernel.
    pub(super) fn one<T: NoteFile>(&self, kernel: KernelId, owner: &str) -> Option<T> {
        read_one(self.0.as_ref()?, kernel, owner)
    }

    /// All that an earlier life kept here.
    pub(super) fn found<T: NoteFile>(&self, owner: &str) -> Vec<(KernelId, T)> {
        let Some(dir) = &self.0 else { return Vec::new() };
        read_all(dir, owner).unwrap_or_else(|error: io::Error| {
            tracing::warn!(path = %dir.display(), %error, "can't read notes that the scratch root did not take");
            Vec::new()
        })
    }
}
