//! What can go wrong in a scratch directory.

use std::io;
use std::path::PathBuf;

use crate::ids::KernelId;

use super::environ::EnvironError;
use super::path::PathFault;

/// A failed step, with what an operator or a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The scratch root is not there.
    #[error(
        "the scratch root {path} can't be opened; make it (mkdir -p {path} && chown {uid} {path}) or choose \
         another one with --scratch-root"
    )]
    RootMissing {
        /// The scratch root.
        path: PathBuf,
        /// The user the agent runs as.
        uid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The scratch root is a file or something else.
    #[error("the scratch root {path} is not a directory; choose another one with --scratch-root")]
    RootNotDirectory {
        /// The scratch root.
        path: PathBuf,
    },
    /// The agent can't write below the scratch root; found by trying.
    #[error(
        "the agent (uid {uid}) can't write below the scratch root {path}; check that the file system is \
         writable and has space, and give it to the agent (chown {uid} {path})"
    )]
    RootNotWritable {
        /// The scratch root.
        path: PathBuf,
        /// The user the agent runs as.
        uid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else has the name of the agent's own directory, or another user owns it.
    #[error(
        "{path} must be a directory that belongs to the agent (uid {uid}); move what is there out of the way"
    )]
    AgentDirForeign {
        /// `{root}/.agent` or a directory in it.
        path: PathBuf,
        /// The user the agent runs as.
        uid: u32,
    },
    /// The environment can't be written down.
    #[error(transparent)]
    Environ(#[from] EnvironError),
    /// A kernel's directory could not be made.
    #[error("making the scratch directory of kernel {kernel} failed: {source}")]
    Create {
        /// Whose.
        kernel: KernelId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kernel's directory could not be moved to the trash.
    #[error("moving the scratch directory of kernel {kernel} to the trash failed: {source}")]
    Discard {
        /// Whose.
        kernel: KernelId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kernel's environment could not be read back.
    #[error("reading environ.txt of kernel {kernel} failed: {source}")]
    ReadEnviron {
        /// Whose.
        kernel: KernelId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kernel's environment could not be written for its runner.
    #[error("writing environ.txt of kernel {kernel} failed: {source}; check the disk below the scratch root")]
    WriteEnviron {
        /// Whose.
        kernel: KernelId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kernel's files could not be looked at.
    #[error(
        "looking at the files of kernel {kernel} failed: {source}; check the disk below the scratch root"
    )]
    Look {
        /// Whose.
        kernel: KernelId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel's directory is gone.
    #[error("kernel {kernel} has no scratch directory any more")]
    Gone {
        /// Whose.
        kernel: KernelId,
    },
    /// The name leads out of the kernel's directory: by `..`, a leading `/`, or a link.
    #[error("{name:?} leads out of the kernel's directory")]
    Escape {
        /// The name as given.
        name: String,
    },
    /// The name can't be a file's.
    #[error("{name:?} can't be a file's name: {reason}")]
    BadName {
        /// The name as given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is a directory of that name.
    #[error("{name:?} is a directory")]
    IsDirectory {
        /// The name as given.
        name: String,
    },
    /// A part on the way exists and is no directory.
    #[error("a part of {name:?} is a file, not a directory")]
    NotDirectory {
        /// The name as given.
        name: String,
    },
    /// The file is a FIFO, a socket, a device, a link or a directory.
    #[error("{name:?} is not a regular file")]
    NotRegular {
        /// The name as given.
        name: String,
    },
    /// No space or quota left; what was written of the file was removed again.
    #[error("no space left in the scratch directory for the {bytes} bytes of {name:?}")]
    DiskFull {
        /// The name as given.
        name: String,
        /// The size of the upload.
        bytes: usize,
    },
    /// Writing an uploaded file failed.
    #[error("writing the uploaded file {name:?} failed: {source}")]
    Upload {
        /// The name as given.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no such file, or none that the kernel's user may fetch.
    #[error("there is no {name:?} in /home/work")]
    NoSuchFile {
        /// The path as given.
        name: String,
    },
    /// More than an answer may hold.
    #[error("{name:?} is too large: its archive must stay below 1 MiB; put it on a virtual folder")]
    ArchiveTooLarge {
        /// The path as given.
        name: String,
    },
    /// A file could not be packed.
    #[error("packing {name:?} failed: {source}")]
    Archive {
        /// The path as given.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An output file could not be opened.
    #[error("opening the output file {name:?} failed: {source}")]
    OpenOutput {
        /// Path below `.output`.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that did the work panicked, or the agent is stopping.
    #[error("the work on the scratch directory was broken off: {source}")]
    BrokenOff {
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl ScratchError {
    /// Whether the request was wrong, rather than the node: such a call is refused (`builtins.AssertionError`,
    /// PROTOCOL section 2), and trying again would not help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Environ(_)
                | Self::Escape { .. }
                | Self::BadName { .. }
                | Self::IsDirectory { .. }
                | Self::NotDirectory { .. }
                | Self::NotRegular { .. }
                | Self::ArchiveTooLarge { .. }
        )
    }

    pub(super) fn from_path_fault(name: &str, fault: PathFault) -> Self {
        let name = name.chars().take(256).collect();
        match fault {
            PathFault::Escape => Self::Escape { name },
            PathFault::Bad(reason) => Self::BadName { name, reason },
        }
    }
}

/// Runs blocking file work on a thread made for it.
pub(super) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ScratchError> + Send + 'static,
) -> Result<T, ScratchError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| Err(ScratchError::BrokenOff { source }))
}
