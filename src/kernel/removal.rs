//! What there is of a kernel, taken away: found by the kernel's id alone, whoever made it and whenever.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::labels;
use super::node::{Node, RETRIES};
use crate::docker::{ContainerSummary, DockerError, ListFilter};
use crate::ids::{ContainerId, KernelId};

/// After so many attempts (about 6 s) a container that is dead counts as gone.
const DEAD_ATTEMPTS: u32 = 5;
/// How long taking a scratch directory away may take: it is one rename.
const DISCARD_LIMIT: Duration = Duration::from_secs(2);

/// Removes every container of the kernel; `known` is the one that it runs in, where that is known. Tries until it is done, or until
/// nothing of it runs any more and Docker can't remove the dead, which the comparison with its list goes on trying.
pub(super) async fn clear(node: &Node, kernel: KernelId, known: Option<&ContainerId>) {
    let mut attempt = 0;
    loop {
        // After a failure the list tells what there is.
        match remove_containers(node, kernel, known.filter(|_| attempt == 0)).await {
            Ok(()) => break,
            Err(error) if attempt == 0 => {
                tracing::warn!(%kernel, %error, "can't remove the container yet; trying until that works");
            }
            Err(error) => tracing::debug!(%kernel, %error, attempt, "still can't remove its container"),
        }
        if attempt >= DEAD_ATTEMPTS && nothing_runs(node, kernel).await {
            tracing::warn!(%kernel, "the container is dead and Docker can't remove it; going on without");
            return;
        }
        attempt += 1;
        sleep(RETRIES.pause(attempt)).await;
    }
    if attempt > 0 {
        tracing::info!(%kernel, attempts = attempt + 1, "the container is removed");
    }
}

async fn nothing_runs(node: &Node, kernel: KernelId) -> bool {
    match containers_of(node, kernel).await {
        Ok(found) => found.iter().all(|container| !container.state.is_alive()),
        Err(_) => false,
    }
}

/// Takes the kernel's files away; a disk that hangs is not waited for.
pub(super) async fn discard(node: &Node, kernel: KernelId) {
    match timeout(DISCARD_LIMIT, node.scratch.discard(kernel)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%kernel, %error, "can't remove the scratch directory; remove it by hand");
        }
        Err(_) => {
            tracing::warn!(%kernel, "the scratch directory is slow to go; check the disk below the scratch root");
        }
    }
}

async fn remove_containers(
    node: &Node,
    kernel: KernelId,
    known: Option<&ContainerId>,
) -> Result<(), DockerError> {
    let Some(known) = known else {
        let found: Vec<_> = containers_of(node, kernel).await?.into_iter().map(|found| found.id).collect();
        return remove_all(node, &found).await;
    };
    // Beside it there are only those that a restart or a late create left, which have the kernel's name.
    let (removed, named) =
        tokio::join!(remove_all(node, std::slice::from_ref(known)), named_after(node, kernel));
    removed?;
    let rest: Vec<_> = named?.into_iter().map(|found| found.id).filter(|id| id != known).collect();
    remove_all(node, &rest).await
}

async fn remove_all(node: &Node, containers: &[ContainerId]) -> Result<(), DockerError> {
    for container in containers {
        node.docker.remove(container).await?;
        node.wants.forget(container);
    }
    Ok(())
}

/// Found by their names, and by their labels, since a container may have been renamed. Never another agent's.
async fn containers_of(node: &Node, kernel: KernelId) -> Result<Vec<ContainerSummary>, DockerError> {
    let mut found = named_after(node, kernel).await?;
    let mut labels = node.owner.filter();
    labels.push(("ai.backend.kernel-id".to_owned(), kernel.to_string()));
    let labelled = node.docker.list(ListFilter { all: true, labels, name: None }).await?;
    let is_new = |container: &ContainerSummary| !found.iter().any(|f| f.id == container.id);
    let renamed: Vec<_> = labelled.into_iter().filter(is_new).collect();
    found.extend(renamed);
    Ok(found)
}

/// Those whose names hold the kernel's id: also what a restart or a late create left, and what the Python agent made.
async fn named_after(node: &Node, kernel: KernelId) -> Result<Vec<ContainerSummary>, DockerError> {
    let filter = ListFilter { all: true, labels: Vec::new(), name: Some(kernel.to_string()) };
    let mut found = node.docker.list(filter).await?;
    found.retain(|container| {
        let is_named = labels::from_name(&container.name).is_some_and(|(_, id)| id == kernel);
        let is_foreign = labels::is_labelled(&container.labels) && !node.owner.owns(&container.labels);
        (is_named || labels::kernel(&container.labels) == Some(kernel)) && !is_foreign
    });
    Ok(found)
}
