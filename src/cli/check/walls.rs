//! What kernels can't be kept from on this machine, and what its other users see of them.

use std::path::Path;

use super::finding::Finding;
use crate::docker::Docker;
use crate::kernel::Hardening;
use crate::scratch::Privacy;

pub(super) async fn look(docker: &Docker, root: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Ok(info) = docker.info().await {
        let gaps = Hardening::gaps(&info).into_iter();
        found.extend(gaps.map(|gap| Finding::doubtful("kernels' walls", "", gap, "see SECURITY.md")));
    }
    let root = root.to_owned();
    let at = root.display().to_string();
    let looked = tokio::task::spawn_blocking(move || Privacy::of(&root)).await;
    if let Ok(Ok(privacy)) = looked {
        let advice = privacy.advice().into_iter();
        found.extend(advice.map(|line| Finding::good("privacy", at.clone(), line)));
    }
    if found.is_empty() {
        found.push(Finding::good("kernels' walls", "", "good"));
    }
    found
}
