//! One small JSON file per kernel: written beside and renamed, read with suspicion, set aside when not understood.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reserve::{Reserve, is_full};
use crate::ids::KernelId;
use crate::wire::sample::Sample;

/// The version of both kinds of files.
pub(super) const VERSION: u32 = 1;

/// As many bytes, from a file's beginning, are written whole or not at all when the agent is killed: the system copies a page
/// in one go.
const PAGE: usize = 4096;

/// Counts writes, for the names of temporary files.
static WRITES: AtomicU64 = AtomicU64::new(0);

pub(super) fn file(dir: &Path, kernel: KernelId) -> PathBuf {
    dir.join(format!("{kernel}.json"))
}

/// Whether it is gone.
pub(super) fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), %error, "could not remove a note");
            false
        }
        _ => true,
    }
}

/// Writes it beside and renames it; on a disk without room it takes a file of the reserve.
pub(super) fn write(
    dir: &Path,
    kernel: KernelId,
    value: &impl Serialize,
    durable: bool,
    reserve: &Reserve,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let path = file(dir, kernel);
    let temporary = temporary(dir, kernel);
    let written = write_beside(&temporary, &bytes, durable).and_then(|()| fs::rename(&temporary, &path));
    match written {
        Ok(()) => {}
        Err(error) => {
            // What there is of it would take room.
            let _ = fs::remove_file(&temporary);
            if !is_full(&error) {
                return Err(error);
            }
            reserve.write(&path, &bytes)?;
        }
    }
    if durable {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// The same, not synced, over the bytes that are there, where both fit into a page: of a new file in the place of an older one, some
/// file systems (ext4) begin to write the bytes to the disk before the rename returns.
pub(super) fn write_over(
    dir: &Path,
    kernel: KernelId,
    value: &impl Serialize,
    reserve: &Reserve,
) -> io::Result<()> {
    match over(&file(dir, kernel), serde_json::to_vec(value)?) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => write(dir, kernel, value, false, reserve),
    }
}

/// Whether it was done. What is longer than the new bytes becomes spaces, which mean nothing there.
fn over(path: &Path, mut bytes: Vec<u8>) -> io::Result<bool> {
    let there = OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(there.metadata()?.len()).unwrap_or(usize::MAX).max(bytes.len());
    if length > PAGE {
        return Ok(false);
    }
    bytes.resize(length, b' ');
    Ok(there.write_at(&bytes, 0)? == length)
}

/// Writes it beside and renames it, without a reserve, and not synced.
pub(super) fn write_small(dir: &Path, kernel: KernelId, value: &impl Serialize) -> io::Result<()> {
    let temporary = temporary(dir, kernel);
    write_beside(&temporary, &serde_json::to_vec(value)?, false)
        .and_then(|()| fs::rename(&temporary, file(dir, kernel)))
}

/// One of its own for each write: a slow disk may still be at the one before.
fn temporary(dir: &Path, kernel: KernelId) -> PathBuf {
    dir.join(format!("{kernel}.{}.tmp", WRITES.fetch_add(1, Ordering::Relaxed)))
}

fn write_beside(temporary: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    // An environment may hold secrets.
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    out.write_all(bytes)?;
    if durable { out.sync_all() } else { Ok(()) }
}

/// What both kinds of files have in common.
pub(super) trait NoteFile: DeserializeOwned {
    /// The version of the note, the kernel that the note speaks of, and whose the note is, which is taken out of it.
    fn head(&mut self) -> (u32, &str, Option<String>);
}

pub(super) fn read_all<T: NoteFile>(dir: &Path, owner: &str) -> io::Result<Vec<(KernelId, T)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        // A disk that took nothing at the start has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|e| e.to_str());
        if extension == Some("tmp") {
            // The write was cut off before the rename; what it should have replaced is still there.
            remove(&path);
        } else if let Some(stem) = name.strip_suffix(".json") {
            match read(&path, stem, owner) {
                Ok(one) => found.extend(one),
                Err(reason) => set_aside(&path, &reason),
            }
        }
    }
    Ok(found)
}

/// `None`: there is none that can be understood, or it is another agent's.
pub(super) fn read_one<T: NoteFile>(dir: &Path, kernel: KernelId, owner: &str) -> Option<T> {
    let found = read(&file(dir, kernel), &kernel.to_string(), owner).ok()??;
    Some(found.1)
}

/// `None`: it is another agent's.
fn read<T: NoteFile>(path: &Path, stem: &str, owner: &str) -> Result<Option<(KernelId, T)>, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    understood(&bytes, stem, owner)
}

/// The same of a file's bytes.
pub(super) fn understood<T: NoteFile>(
    bytes: &[u8],
    stem: &str,
    owner: &str,
) -> Result<Option<(KernelId, T)>, String> {
    let mut value: T = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let (version, kernel, written_by) = value.head();
    if version != VERSION {
        return Err(format!("it is of version {version}, this agent knows version {VERSION}"));
    }
    if kernel != stem {
        return Err(format!("it speaks of kernel {kernel}"));
    }
    let id = stem.parse::<KernelId>().map_err(|e| e.to_string())?;
    // Older ones say nothing; then there was one agent only.
    let is_ours = written_by.is_none_or(|by| by == owner);
    Ok(is_ours.then_some((id, value)))
}

/// The last statistics, out of their file's bytes.
pub(super) fn samples(bytes: &[u8]) -> serde_json::Result<HashMap<KernelId, Sample>> {
    let found: HashMap<String, Sample> = serde_json::from_slice(bytes)?;
    Ok(found.into_iter().filter_map(|(kernel, sample)| Some((kernel.parse().ok()?, sample))).collect())
}

pub(super) fn set_aside(path: &Path, reason: &str) {
    let aside = path.with_extension("json.set-aside");
    let moved = fs::rename(path, &aside);
    tracing::warn!(path = %path.display(), reason, moved = moved.is_ok(), "set a note aside that can't be understood");
}
