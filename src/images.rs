//! The kernel images of this machine: which there are, what they declare, and newer ones pulled.
//!
//! An image whose reference starts with `lablup/kernel-` is a kernel image (PROTOCOL section 4). The manager
//! schedules by the list that the heartbeat carries, so it must be there early and stay when Docker hangs.
//!
//! Tasks, all ended by the cancellation token and tracked:
//!
//! - the scanner (`scan.rs`) lists the images at the start, when somebody calls [`ImagesHandle::rescan_soon`] (the
//!   owner of Docker's event stream does, on image events), and every [`ImagesConfig::rescan_every`]. In: a
//!   `Notify`. Out: a `watch` of [`ImageList`] and one of [`ScanHealth`].
//! - the fetcher (`fetch.rs`), while [`Updates::are_on`], pulls what a create needs and is not here, in a task each. In: calls
//!   of [`ImagesHandle::fetch`]. Out: a `watch` of how the pull ended.
//! - the updater (`update.rs`), while [`Updates::are_on`], pulls what the catalogue wants newer, two at a
//!   time and never inside a create. In: the list's `watch` and the one of the catalogue. Out: the scanner's `Notify`, and a `watch` of [`Pulls`].

mod config;
mod declared;
mod fetch;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod handle;
mod labels;
mod list;
mod plan;
mod progress;
mod pulls;
mod registry;
mod scan;
mod start;
mod update;

#[cfg(test)]
mod tests;

pub use config::{ImagesConfig, Updates};
pub use handle::{ImagesError, ImagesHandle};
pub use labels::{ImageLabels, KernelImage};
pub use list::{ImageEntry, ImageList, PREFIX};
pub use plan::WantedImage;
pub use pulls::Pulls;
pub use registry::Registry;
pub use scan::ScanHealth;
pub use start::Images;
