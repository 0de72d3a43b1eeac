//! Closing the scratch root to the machine's other users at the start, and saying what stays open.

use crate::scratch::{Closing, Privacy, ScratchRoot};

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
