//! What stands between one kernel and all else: decided from its image, its folders and its files, and told to the log
//! where it is less than usual.

use super::account::{Account, Circumstances, Folder, Instead};
use super::node::Node;
use crate::docker::Confinement;
use crate::ids::KernelId;
use crate::images::KernelImage;

/// What stands between a kernel and all else.
pub(super) struct Wall {
    pub(super) confinement: Confinement,
    /// The user whom its image is told to run as.
    pub(super) uid: Option<u32>,
}

impl Wall {
    /// Decides; the log tells of kernels that get less of it. `files` is to whom the files belong at a restart.
    pub(super) fn around(
        node: &Node,
        kernel: KernelId,
        image: &KernelImage,
        folders: &[Folder],
        files: Option<u32>,
    ) -> Self {
        let hardened = node.config.hardening && image.labels.hardening;
        if !hardened {
            let by = if node.config.hardening { "its image's label" } else { "--container-hardening off" };
            tracing::warn!(%kernel, image = image.reference, by, "this kernel is not hardened");
        }
        let account = Account::of(Circumstances {
            wanted: node.config.uid,
            agent: node.uid,
            hardened,
            matches_uid: image.labels.matches_uid,
            folders,
            files,
        });
        if let Account::Agents(Instead::Folder { host, owner }) = &account {
            let uid = node.uid;
            tracing::info!(%kernel, uid, host, owner, "this kernel runs as the agent's user: its folders belong to others");
        }
        Self { confinement: node.hardening.confinement(hardened), uid: account.uid(node.uid) }
    }
}
