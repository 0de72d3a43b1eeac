//! A new container over the same files, in two steps. Knows no kernel's state.
//!
//! [`prepare`] does all that can be refused, or that can fail without the old container being touched: the kernel runs
//! on meanwhile, and goes on running when it fails. Only then [`carry_out`] takes the old container away. Both have a
//! name of the kernel's, so that whatever is left is found by the kernel's id; the new one is called by the usual name
//! as soon as that is free.

use std::sync::Arc;
use std::time::Duration;

use super::container::{self, Granted, Made};
use super::error::KernelError;
use super::labels;
use super::node::{Node, RETRIES};
use super::wall::Wall;
use crate::docker::{ContainerSpec, DockerError};
use crate::ids::{ContainerId, KernelId};
use crate::images::KernelImage;
use crate::resources::Allocation;
use crate::scratch::Scratch;
use crate::wire::config::KernelConfig;

/// How long a container that is not needed after all may take to go; a comparison with Docker's list removes it else.
const GIVE_UP: Duration = Duration::from_secs(3);

/// All that a restart needs, while the kernel still runs.
pub(super) struct Prepared {
    /// What the kernel will be made of.
    pub(super) config: KernelConfig,
    image: KernelImage,
    /// Made, and not started.
    container: ContainerId,
    scratch: Scratch,
}

/// Gets everything ready that a restart needs. `files`: the kernel's, which it keeps where they are.
pub(super) async fn prepare(
    node: &Node,
    kernel: KernelId,
    config: KernelConfig,
    files: &Scratch,
    allocation: &mut Option<Allocation>,
) -> Result<Prepared, KernelError> {
    let image = container::image(node, &config).await?;
    let folders = container::folders(node, &config.mounts).await?;
    let (limits, memory) = container::grant(node, &config, &image)?;
    let held = container::allocate(node, &config, limits, allocation)?;
    let existing = files.again().await?;
    let wall = Wall::around(node, kernel, &image, &folders, existing.as_ref().map(Scratch::owner));
    let scratch = match existing {
        Some(scratch) => scratch,
        // Somebody deleted it; the kernel is better off with an empty one than not at all.
        None => node.scratch.create(kernel, &config.environ, wall.uid).await?,
    };
    let granted = Granted { limits, memory, held, wall };
    let spec = container::specify(node, kernel, &config, &image, &granted, &folders, &scratch).await?;
    let container = create_beside(node, kernel, &config.lang, &spec).await?;
    match scratch.write_environ(&config.environ).await {
        Ok(()) => Ok(Prepared { config, image, container, scratch }),
        Err(error) => {
            give_up(node, kernel, &container).await;
            Err(error.into())
        }
    }
}

/// Replaces the old container by the one that was prepared.
pub(super) async fn carry_out(
    node: &Arc<Node>,
    kernel: KernelId,
    prepared: Prepared,
    allocation: &mut Option<Allocation>,
    old: &ContainerId,
) -> Result<Made, KernelError> {
    let Prepared { config, image, container, scratch } = prepared;
    let limits = image.labels.capped(config.limits);
    let held = container::allocate(node, &config, limits, allocation)?;
    remove(node, kernel, old).await;
    let name = labels::name(&config.lang, kernel);
    if let Err(error) = node.docker.rename(&container, &name).await {
        // It has it already, or works as well under the name it has.
        tracing::debug!(%kernel, %error, "the new container keeps its name");
    }
    container::run(node, kernel, container, &image, held, scratch).await
}

/// Beside the old container, which has one of the kernel's two names.
async fn create_beside(
    node: &Node,
    kernel: KernelId,
    lang: &str,
    spec: &ContainerSpec,
) -> Result<ContainerId, KernelError> {
    match container::create_named(node, kernel, &labels::spare_name(lang, kernel), spec).await {
        Err(KernelError::Docker(DockerError::NameTaken { .. })) => {
            container::create_named(node, kernel, &labels::name(lang, kernel), spec).await
        }
        created => created,
    }
}

/// Removes the old container. A Docker that fails once is asked again, as long as the caller waits: the kernel has no
/// other way to go on.
async fn remove(node: &Node, kernel: KernelId, old: &ContainerId) {
    let mut attempt = 0;
    while let Err(error) = node.docker.remove(old).await {
        tracing::debug!(%kernel, %error, attempt, "can't remove the old container yet");
        attempt += 1;
        tokio::time::sleep(RETRIES.pause(attempt)).await;
    }
}

/// The container is not needed after all.
async fn give_up(node: &Node, kernel: KernelId, container: &ContainerId) {
    let removed = tokio::time::timeout(GIVE_UP, node.docker.remove(container)).await;
    if !matches!(removed, Ok(Ok(()))) {
        tracing::debug!(%kernel, container = container.short(), "a container that was not needed stays for now");
    }
}
