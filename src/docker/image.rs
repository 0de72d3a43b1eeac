//! Images listed, looked at and pulled.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use futures_util::TryStreamExt;

use super::engine::missing_is_none;
use super::{Docker, DockerError, names};

/// One line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Its references, `lablup/kernel-python:latest`; empty for an image that lost its name.
    pub tags: Vec<String>,
    /// Its labels; some engines leave them out of lists.
    pub labels: BTreeMap<String, String>,
}

/// What an image declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Docker {
    /// Lists the images, without those that are only layers of others.
    pub async fn images(&self) -> Result<Vec<ImageSummary>, DockerError> {
        let answer = self
            .connection
            .call("list images".to_owned(), self.deadlines.list, |engine| async move {
                engine.list_images(None::<ListImagesOptions>).await
            })
            .await?;
        let read = |image: bollard::models::ImageSummary| ImageSummary {
            id: image.id,
            tags: image.repo_tags,
            labels: image.labels.into_iter().collect(),
        };
        Ok(answer.into_iter().map(read).collect())
    }

    /// Looks at one image, by reference or id; `None` if it is not on this machine.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, DockerError> {
        let step = names::checked_image(format!("inspect image {reference}"), reference)?;
        let answer = self
            .connection
            .call(step, self.deadlines.quick, |engine| async move {
                missing_is_none(engine.inspect_image(reference).await)
            })
            .await?;
        Ok(answer.map(|image| Image {
            id: image.id.unwrap_or_default(),
            labels: image.config.unwrap_or_default().labels.unwrap_or_default().into_iter().collect(),
        }))
    }

    /// Pulls one image from its registry, without credentials.
    ///
    /// Dropping the future or running into the deadline ends the pull in the engine, too.
    pub async fn pull(&self, reference: &str, limit: Duration) -> Result<(), DockerError> {
        let step = names::checked_image(format!("pull image {reference}"), reference)?;
        let options = CreateImageOptionsBuilder::new().from_image(&names::with_tag(reference)).build();
        self.connection
            .call(step, limit, |engine| {
                let options = options.clone();
                async move {
                    // Progress messages are read and dropped one by one; the last one tells of a failure.
                    engine.create_image(Some(options), None, None).try_for_each(async |_| Ok(())).await
                }
            })
            .await
    }
}
