//! A second place for ends, on another file system: beside the agent's local socket, in memory as a rule.
//!
//! An end that the scratch root doesn't take (read-only, not mounted) is kept here until it does, so that a kill of the agent
//! meanwhile has no end told twice, nor with another reason. What is here is newer than what is there.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::entries::Ending;
use super::files::{file, read_all, remove, write_small};
use crate::ids::KernelId;

/// The second place of one agent; `None` where there is none.
#[derive(Debug)]
pub(super) struct Shelter(pub(super) Option<PathBuf>);

impl Shelter {
    /// Keeps an end that the first place refused.
    pub(super) fn keep(&self, kernel: KernelId, entry: &Ending) -> io::Result<()> {
        let Some(dir) = &self.0 else { return Err(io::ErrorKind::NotFound.into()) };
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        write_small(dir, kernel, entry)
    }

    /// The first place has it now, or nobody needs it any more.
    pub(super) fn forget(&self, kernel: KernelId) {
        if let Some(dir) = &self.0 {
            remove(&file(dir, kernel));
        }
    }

    /// What an earlier life kept here.
    pub(super) fn found(&self, owner: &str) -> Vec<(KernelId, Ending)> {
        let Some(dir) = &self.0 else { return Vec::new() };
        read_all(dir, owner).unwrap_or_else(|error| {
            tracing::warn!(path = %dir.display(), %error, "can't read ends that the scratch root did not take");
            Vec::new()
        })
    }
}
