//! Closing the scratch root to the machine's other users at the start, and saying what stays open.

use std::path::PathBuf;

use crate::kernel::account;
use crate::scratch::{Closing, Privacy, ScratchRoot, folder_hosts};

/// Closes it; a line in the log for whatever an operator should know.
pub(super) fn keep(scratch: &ScratchRoot) {
    let root = scratch.path().display();
    match scratch.close() {
        Closing::Was => {}
        Closing::Now => tracing::info!(%root, "closed the scratch root to other users of this machine"),
        Closing::Shared(stranger) => {
            tracing::warn!(
                %root,
                stranger,
                "other users of this machine can look into the scratch root, which is left open: it holds more than kernels; give kernels a directory of their own"
            );
        }
        Closing::Refused(error) => {
            tracing::warn!(%root, %error, "the scratch root can't be closed to other users of this machine; chmod 0700 it");
        }
    }
    match Privacy::of(scratch.path()) {
        // What is open was told above.
        Ok(privacy) => {
            for line in (Privacy { is_open: false, ..privacy }).advice() {
                tracing::info!(%root, "{line}");
            }
        }
        Err(error) => tracing::debug!(%root, %error, "can't look at the scratch root's file system"),
    }
}

/// Says for which virtual folders kernels are root. Waits for as long as the folders' file systems like.
pub(super) async fn advise_on_folders(volumes_mount: PathBuf, wanted: u32) {
    let at = volumes_mount.display().to_string();
    let looking = tokio::task::spawn_blocking(move || folder_hosts(&volumes_mount));
    match looking.await {
        Ok(Ok(hosts)) => {
            if let Some(advice) = account::advice(&hosts, wanted) {
                tracing::info!(volumes = at, "{advice}");
            }
        }
        Ok(Err(error)) => tracing::debug!(volumes = at, %error, "can't look at the folder hosts"),
        Err(error) => tracing::debug!(volumes = at, %error, "did not look at the folder hosts"),
    }
}
