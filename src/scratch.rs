//! Kernels' scratch directories: made, filled, watched for output, and taken away (PROTOCOL sections 7, 8 and 12).
//!
//! ```text
//! {root}/                            0700: no other user of the machine gets in (`privacy`)
//! {root}/{kernel id}/                0700, the agent's own
//! {root}/{kernel id}/work/           the kernel's /home/work, 0700, belongs to the user that its code runs as
//! {root}/{kernel id}/work/.output/   what a run leaves for the user
//! {root}/{kernel id}/config/environ.txt
//!                                    likewise; read-only in the kernel, at /home/work/.config and /home/config
//! {root}/.agent/                     0700, never inside a container
//! {root}/.agent/lock                one agent at a time (kept by the agent room)
//! {root}/.agent/endings/             the journal of endings; kernels/ and runs/ beside it (kept by the kernel room)
//! {root}/.agent/reserve/             files for the journal on a full disk (likewise)
//! {root}/.agent/projects/            whose which project of the file system is (`project`)
//! {root}/.agent/making/{kernel id}.* directories that get their name when they are whole
//! {root}/.agent/trash/{kernel id}.*  directories on their way out
//! ```
//!
//! Kernels of earlier versions and of the Python agents have these elsewhere below `{root}/{kernel id}` (`layout`).
//!
//! Everything below `{root}/{kernel id}/work` belongs to code that may be hostile and runs *while* the agent works
//! there: a path that was checked a moment ago may be a link, a FIFO or a device now. So nothing here trusts a
//! path twice. Uploads go through a directory handle that can't be left (cap-std); walks, deletes and reads open
//! one name at a time and never follow a link (`beneath`); a file is looked at before it is opened,
//! because opening a device can already do harm.
//!
//! File work runs on the runtime's blocking threads, so that neither a 100 MB upload nor a slow disk delays a
//! heartbeat. The room owns two tasks: [`ScratchRoot::start_sweeper`] empties the trash (`sweep`); it is woken
//! through a `Notify` by [`ScratchRoot::discard`] and ends with its cancellation token. [`DiskWatch::run`] says in a `watch` why the
//! disks can't have new kernels (`watch`, `space`).

mod archive;
mod beneath;
mod directory;
mod discarding;
mod environ;
mod error;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod heir;
mod layout;
mod listing;
mod making;
mod mount;
mod mounts;
mod output;
mod path;
mod privacy;
mod project;
mod quota;
mod remove;
mod root;
mod s3;
mod settings;
mod space;
mod sweep;
mod tree;
mod upload;
mod watch;

pub use directory::Scratch;
pub use environ::EnvironError;
pub use error::ScratchError;
pub use mount::{MountError, MountSource, folder_hosts, mount_source, mount_target};
pub use mounts::Mount;
pub use output::{OutputFile, OutputSnapshot};
pub use privacy::{Closing, Privacy};
pub use project::{Unlimited, unlimited};
pub use quota::{Quota, Unfit};
pub use root::ScratchRoot;
pub use s3::{Acl, BadKeyPrefix, BucketError, KeyPrefix, OutputStore, S3Config, S3Keys};
pub use space::{MinFree, Space};
pub use tree::Tree;
pub use watch::{DiskWatch, space_of};
