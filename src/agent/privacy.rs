//! Closing the scratch root to the machine's other users at the start, and saying what stays open to whom.

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

/// Says whether the kernels' user is somebody of this machine, who can then end and trace their processes.
pub(super) fn advise_on_user(uid: u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(user) = user_of(&users, uid).filter(|_| uid != 0) {
        tracing::warn!(
            uid,
            user,
            "kernels run as a user of this machine, who can look into their processes; choose a uid that is nobody's with --kernel-uid, unless it is the manager's"
        );
    }
}

/// The name of the user in `/etc/passwd`.
fn user_of(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nodd\nada:x:9001:9001::/home/ada:/bin/sh\n";
        assert_eq!(user_of(users, 9001), Some("ada"));
        assert_eq!((user_of(users, 0), user_of(users, 9002)), (Some("root"), None));
    }
}
