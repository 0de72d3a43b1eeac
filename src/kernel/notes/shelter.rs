//! A second place for the journal and the notes of runs, on another file system: beside the agent's local socket, in memory as a rule.
//!
//! What the scratch root doesn't take (read-only, not mounted) is kept here until it does, so that a kill of the agent
//! meanwhile has no end told twice, nor with another reason, and no run forgotten. What is here is newer than what is there.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::files::{NoteFile, file, read_all, read_one, remove, write_small};
use crate::ids::KernelId;
use crate::kernel::labels::Owner;

/// The second place of one agent's notes of one kind.
#[derive(Debug)]
pub(super) struct Shelter {
    /// `None` where there is none.
    dir: Option<PathBuf>,
    /// Whether a note was ever kept here, in this life or an earlier one: otherwise there is nothing to forget, which is asked with each
    /// run.
    is_used: AtomicBool,
}

impl Shelter {
    /// Of this kind of notes, in `dir`.
    pub(super) fn new(dir: Option<&Path>, kind: &str, owner: &Owner) -> Self {
        let dir = dir.map(|dir| dir.join(format!("{kind}.{}.{}", owner.namespace, owner.instance)));
        let is_used = AtomicBool::new(dir.as_ref().is_some_and(|dir| dir.exists()));
        Self { dir, is_used }
    }

    /// Keeps a note that the first place refused.
    pub(super) fn keep(&self, kernel: KernelId, note: &impl Serialize) {
        let Some(dir) = &self.dir else { return };
        // Notes of one kernel are written one after the other, so that whoever forgets this one sees it.
        self.is_used.store(true, Ordering::Relaxed);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        if let Err(error) = made.and_then(|()| write_small(dir, kernel, note)) {
            tracing::debug!(%kernel, path = %dir.display(), %error, "no second place for a note");
        }
    }

    /// The first place has it now, or nobody needs it any more.
    pub(super) fn forget(&self, kernel: KernelId) {
        if let Some(dir) = &self.dir
            && self.is_used.load(Ordering::Relaxed)
        {
            remove(&file(dir, kernel));
        }
    }

    /// What an earlier life kept here of one kernel.
    pub(super) fn one<T: NoteFile>(&self, kernel: KernelId, owner: &str) -> Option<T> {
        read_one(self.dir.as_ref()?, kernel, owner)
    }

    /// All that an earlier life kept here.
    pub(super) fn found<T: NoteFile>(&self, owner: &str) -> Vec<(KernelId, T)> {
        let Some(dir) = &self.dir else { return Vec::new() };
        read_all(dir, owner).unwrap_or_else(|error: io::Error| {
            tracing::warn!(path = %dir.display(), %error, "can't read notes that the scratch root did not take");
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;
    use crate::kernel::notes::RunNote;
    use crate::runner::GoingRun;

    #[test]
    fn what_this_life_or_an_earlier_one_kept_is_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let owner = Owner { namespace: "n".to_owned(), instance: InstanceId::new("i") };
        let open = || Shelter::new(Some(parent.path()), "runs", &owner);
        let kernel = KernelId::random();
        let note = RunNote::new(kernel, &GoingRun::default());
        let (first, count) = (open(), |shelter: &Shelter| shelter.found::<RunNote>(&owner.to_string()).len());
        first.forget(kernel);
        first.keep(kernel, &note);
        assert_eq!(count(&first), 1);
        first.forget(kernel);
        assert_eq!(count(&first), 0);
        first.keep(kernel, &note);
        let second = open();
        assert_eq!(count(&second), 1);
        second.forget(kernel);
        assert_eq!(count(&second), 0);
    }
}
