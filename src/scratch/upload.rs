//! A file from the manager, put among a kernel's files (PROTOCOL section 12, item 16).
//!
//! The file is written under a temporary name beside its place and renamed, so that the user's code never reads
//! half of it, and so that whatever was planted under the real name (a FIFO, a device, a link) is replaced
//! rather than opened. A link on the way is followed while it stays inside; a link at the very end is replaced
//! if it stays inside and refused if it leads out.

use std::io::{self, Write};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::Mode;
use rustix::io::Errno;
use uuid::Uuid;

use super::beneath;
use super::directory::{CONFIG_DIR, Scratch};
use super::error::{ScratchError, off_runtime};
use super::heir::Heir;
use super::path::RelativePath;

impl Scratch {
    /// Writes `{filename}` among the user's files (mode 0644), making directories on the way (0755). What is made belongs to the
    /// user to whom they belong. An existing file is replaced at once or, on any error, left as it was.
    pub async fn upload(&self, filename: &str, data: Bytes) -> Result<(), ScratchError> {
        let target =
            RelativePath::parse(filename).map_err(|fault| ScratchError::from_path_fault(filename, fault))?;
        let scratch = self.clone();
        // What is written there would lie below the mount, where nobody finds it.
        let is_hidden = scratch.config().is_some() && target.first() == CONFIG_DIR;
        if is_hidden {
            return Err(ScratchError::BadName {
                name: target.joined(),
                reason: ".config holds the session's own settings, which nobody changes",
            });
        }
        off_runtime(move || {
            let root = Dir::open_ambient_dir(scratch.home(), ambient_authority())
                .map_err(|_| ScratchError::Gone { kernel: scratch.kernel() })?;
            place(&root, &target, &data).map_err(|error| explain(error, &target, data.len()))?;
            tracing::debug!(kernel = %scratch.kernel(), bytes = data.len(), "file uploaded");
            Ok(())
        })
        .await
    }
}

fn place(root: &Dir, target: &RelativePath, data: &[u8]) -> io::Result<()> {
    // The system lets root write above a kernel's limit (CAP_SYS_RESOURCE, on ext4), so that the agent has to look itself.
    let left = rustix::fs::fstatvfs(root)?;
    if data.len() as u64 > left.f_bavail.saturating_mul(left.f_frsize) {
        return Err(Errno::NOSPC.into());
    }
    let heir = Heir::of(&rustix::fs::fstat(root)?);
    make_parents(root, target.parents(), heir)?;
    let full = target.joined();
    match root.metadata(&full) {
        Ok(found) if found.is_dir() => return Err(Errno::ISDIR.into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let dir = match target.parent() {
        Some(parent) => root.open_dir(parent)?,
        None => root.try_clone()?,
    };
    let temporary = Temporary { dir: &dir, name: format!(".{}.uploading", Uuid::new_v4().as_simple()) };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = dir.open_with(&temporary.name, &options)?;
    file.write_all(data)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    heir.take(&file)?;
    dir.rename(&temporary.name, &dir, target.name())
}

/// Makes what is missing on the way. Directories that are there keep their mode.
fn make_parents(root: &Dir, parents: &[String], heir: Heir) -> io::Result<()> {
    let mut way = String::new();
    for part in parents {
        way.push_str(part);
        match root.create_dir(&way) {
            // The umask may have taken what the runner's user needs.
            Ok(()) => {
                let made = root.open_dir(&way)?;
                beneath::chmod_opened(&made, Mode::from_raw_mode(0o755))?;
                heir.take(&made)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        way.push('/');
    }
    Ok(())
}

/// A half-written file, removed when something fails; after the rename there is nothing of its name.
struct Temporary<'a> {
    dir: &'a Dir,
    name: String,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = self.dir.remove_file(&self.name);
    }
}

fn explain(error: io::Error, target: &RelativePath, bytes: usize) -> ScratchError {
    let name = target.joined();
    let Some(code) = error.raw_os_error() else {
        // cap-std makes this one up when a path leads out; the system's own refusals carry a code.
        return match error.kind() {
            io::ErrorKind::PermissionDenied => ScratchError::Escape { name },
            _ => ScratchError::Upload { name, source: error },
        };
    };
    match Errno::from_raw_os_error(code) {
        Errno::NOSPC | Errno::DQUOT => ScratchError::DiskFull { name, bytes },
        Errno::ISDIR => ScratchError::IsDirectory { name },
        Errno::NOTDIR => ScratchError::NotDirectory { name },
        Errno::LOOP => ScratchError::BadName { name, reason: "its links lead in a circle" },
        Errno::NAMETOOLONG => ScratchError::BadName { name, reason: "it is too long" },
        _ => ScratchError::Upload { name, source: error },
    }
}

#[cfg(test)]
mod tests;
