//! Files for notes on a disk that takes no new ones: full, without inodes, or at a quota.
//!
//! `reserve/` holds [`FILES`] files of [`BYTES`] bytes each, written and synced while there was room, so that their blocks and inodes
//! are the agent's. A note that finds no room is written over one of them, which then takes the note's name. A note of that name changes
//! places with it and becomes a file of the reserve: only a kernel's first note costs one. What is missing is made again when
//! there is room. On a file system that writes nothing in place (btrfs, ZFS) a full disk may refuse all the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, RenameFlags};

/// How many notes: first ones of ends while there is no room at all. A node has some tens of kernels.
const FILES: usize = 64;

/// The size of each: a note of an end has some hundred bytes.
const BYTES: usize = 4096;

/// The reserve of one directory.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
    /// Names of files that are free. A std mutex, held for a look at the list.
    free: Mutex<Vec<String>>,
}

/// Whether there was no room for a write.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Reserve {
    /// The reserve in `dir`, with what an earlier life left of it. Blocks.
    pub(super) fn open(dir: PathBuf) -> Self {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let whole = entries.filter(|entry| {
            entry.metadata().is_ok_and(|found| found.is_file() && found.len() == BYTES as u64)
        });
        let free =
            whole.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_ours(name));
        Self { free: Mutex::new(free.collect()), dir }
    }

    /// Makes what is missing. Ends at the first that finds no room. Blocks; costs nothing while it is whole.
    pub(super) fn fill(&self) -> io::Result<()> {
        let missing = {
            let free = self.free();
            let names = (0..FILES).map(|n| n.to_string()).filter(|name| !free.contains(name));
            names.collect::<Vec<_>>()
        };
        let mut made = Vec::new();
        let mut result = Ok(());
        for name in missing {
            let path = self.dir.join(&name);
            match make(&path) {
                Ok(file) => made.push((name, file)),
                Err(error) => {
                    // A file of less than its size is none.
                    let _ = fs::remove_file(&path);
                    result = Err(error);
                    break;
                }
            }
        }
        // All are on their way by now, so that the first costs as much as all.
        for (name, file) in made {
            file.sync_all()?;
            self.free().push(name);
        }
        result
    }

    /// Writes `bytes` as the file `to`, whole or not at all, and synced. Blocks.
    pub(super) fn write(&self, to: &Path, bytes: &[u8]) -> io::Result<()> {
        let used_up = || io::Error::from(io::ErrorKind::StorageFull);
        // JSON minds no white space behind it. Always of one length, so that no block is given back.
        let mut text = bytes.to_vec();
        if text.len() > BYTES {
            return Err(used_up());
        }
        text.resize(BYTES, b' ');
        let Some(name) = self.free().pop() else { return Err(used_up()) };
        let path = self.dir.join(&name);
        let written = overwrite(&path, &text).and_then(|()| self.give_name(&path, to));
        if path.exists() {
            // It is free still, or changed places with an older note. That may be shorter, and then is made to measure, if that can be.
            let is_whole =
                fs::metadata(&path).is_ok_and(|found| found.len() == BYTES as u64) || fill_up(&path).is_ok();
            if is_whole {
                self.free().push(name);
            } else {
                let _ = fs::remove_file(&path);
            }
        }
        written
    }

    fn give_name(&self, path: &Path, to: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, path, CWD, to, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // There is no older one; or the file system can't exchange.
            Err(_) => match fs::rename(path, to) {
                // The directory itself may have to grow.
                Err(error) if is_full(&error) && self.release_one() => fs::rename(path, to),
                renamed => renamed,
            },
        }
    }

    fn release_one(&self) -> bool {
        let Some(name) = self.free().pop() else { return false };
        fs::remove_file(self.dir.join(name)).is_ok()
    }

    fn free(&self) -> MutexGuard<'_, Vec<String>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_ours(name: &str) -> bool {
    name.parse::<usize>().is_ok_and(|n| n < FILES && name == n.to_string())
}

/// Not zeros, which some file systems don't store.
fn make(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&[b' '; BYTES])?;
    Ok(file)
}

fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(text, 0)?;
    file.sync_all()
}

fn fill_up(path: &Path) -> io::Result<()> {
    overwrite(path, &[b' '; BYTES])?;
    File::options().write(true).open(path)?.set_len(BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap().trim_end().to_owned()
    }

    #[test]
    fn only_a_first_note_costs_a_file_and_what_is_missing_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, reserve_dir) = (dir.path().join("notes"), dir.path().join("reserve"));
        fs::create_dir(&notes).unwrap();
        fs::create_dir(&reserve_dir).unwrap();
        let reserve = Reserve::open(reserve_dir.clone());
        assert!(is_full(&reserve.write(&notes.join("a"), b"{}").unwrap_err()), "it is empty");
        reserve.fill().unwrap();
        // What is there is smaller, as notes are that found room.
        fs::write(notes.join("old"), "{\"old\":1}").unwrap();
        for round in 0..3 * FILES {
            for name in ["old", "new"] {
                reserve.write(&notes.join(name), format!("{name} {round}").as_bytes()).unwrap();
                assert_eq!(text(&notes.join(name)), format!("{name} {round}"));
            }
        }
        assert_eq!(reserve.free().len(), FILES - 1);
        assert_eq!(Reserve::open(reserve_dir.clone()).free().len(), FILES - 1, "as the next life finds it");
        reserve.fill().unwrap();
        assert_eq!(fs::read_dir(&reserve_dir).unwrap().count(), FILES);
    }

    #[test]
    fn as_many_first_notes_as_there_are_files_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, reserve_dir) = (dir.path().join("notes"), dir.path().join("reserve"));
        fs::create_dir(&notes).unwrap();
        fs::create_dir(&reserve_dir).unwrap();
        let reserve = Reserve::open(reserve_dir);
        reserve.fill().unwrap();
        for n in 0..FILES {
            reserve.write(&notes.join(n.to_string()), b"{}").unwrap();
        }
        assert!(is_full(&reserve.write(&notes.join("more"), b"{}").unwrap_err()));
        assert!(is_full(&reserve.write(&notes.join("0"), &[b'x'; BYTES + 1]).unwrap_err()), "too long");
        assert_eq!(text(&notes.join("0")), "{}");
    }
}
