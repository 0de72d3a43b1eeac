//! The kernel images, and whether their labels make sense.

use super::finding::Finding;
use crate::docker::Docker;
use crate::images::{ImageLabels, PREFIX};

pub(super) async fn look(docker: &Docker) -> Vec<Finding> {
    // Docker's own topic says why.
    let Ok(images) = docker.images().await else {
        return vec![Finding::bad("images", "", "can't be listed", "see Docker")];
    };
    let is_kernel = |tag: &&String| {
        PREFIX_FRONTS.iter().any(|front| tag.strip_prefix(front).is_some_and(|rest| rest.starts_with(PREFIX)))
    };
    let mut found = Vec::new();
    let mut count = 0;
    for image in &images {
        let Some(tag) = image.tags.iter().find(is_kernel) else { continue };
        count += 1;
        // Some engines leave labels out of lists.
        let labels = match docker.image(tag).await {
            Ok(Some(image)) => image.labels,
            Ok(None) => continue,
            Err(error) => {
                found.push(Finding::doubtful("image", tag, error, "docker image inspect shows more"));
                continue;
            }
        };
        if let Err(error) = ImageLabels::read(&labels) {
            found.push(Finding::doubtful(
                "image",
                tag,
                format!("is left out: {error}"),
                "correct the image's label",
            ));
        }
    }
    found.insert(
        0,
        if count == 0 {
            Finding::doubtful(
                "images",
                "",
                format!("none is called {PREFIX}…, so no kernel can be made"),
                format!("docker pull {PREFIX}python:3.6-debian, or another that the manager's catalogue has"),
            )
        } else {
            Finding::good("images", "", format!("{count} kernel images"))
        },
    );
    found
}

/// What an engine may put in front of a reference.
const PREFIX_FRONTS: [&str; 3] = ["", "docker.io/", "localhost/"];
