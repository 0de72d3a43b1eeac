//! Images listed, looked at and pulled.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptions, RemoveImageOptions, TagImageOptionsBuilder,
};
use futures_util::TryStreamExt;

use super::engine::missing_is_none;
use super::{Docker, DockerError, names};
use crate::secret::Secret;

/// One line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image's id, `sha256:…`.
    pub id: String,
    /// The image's references, `lablup/kernel-python:latest`; empty for an image that lost its name.
    pub tags: Vec<String>,
    /// The image's labels; some engines leave them out of lists.
    pub labels: BTreeMap<String, String>,
}

/// What an image declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's id, `sha256:…`.
    pub id: String,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
}

/// What opens a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The registry's name.
    registry: String,
    /// User and password, or a token.
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Password { user: String, password: Secret },
    Token(Secret),
}

impl Credentials {
    /// A user and a password.
    #[must_use]
    pub fn password(registry: &str, user: &str, password: Secret) -> Self {
        Self { registry: registry.to_owned(), proof: Proof::Password { user: user.to_owned(), password } }
    }

    /// A token that stands for both.
    #[must_use]
    pub fn token(registry: &str, token: Secret) -> Self {
        Self { registry: registry.to_owned(), proof: Proof::Token(token) }
    }

    fn for_engine(&self) -> DockerCredentials {
        let base =
            DockerCredentials { serveraddress: Some(self.registry.clone()), ..DockerCredentials::default() };
        match &self.proof {
            Proof::Password { user, password } => DockerCredentials {
                username: Some(user.clone()),
                password: Some(password.expose().clone()),
                ..base
            },
            Proof::Token(token) => DockerCredentials { identitytoken: Some(token.expose().clone()), ..base },
        }
    }
}

/// How far one layer of a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullStep {
    /// The layer, by the engine's short name.
    pub layer: String,
    /// Bytes that are here.
    pub done: u64,
    /// All of its bytes; 0 while that is not known.
    pub total: u64,
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

    /// Pulls one image from its registry, and tells `progress` each step.
    ///
    /// Dropping the future or running into the deadline ends the pull in the engine, too.
    pub async fn pull(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
        limit: Duration,
        progress: &(dyn Fn(PullStep) + Send + Sync),
    ) -> Result<(), DockerError> {
        let step = names::checked_image(format!("pull image {reference}"), reference)?;
        let options = CreateImageOptionsBuilder::new().from_image(&names::with_tag(reference)).build();
        self.connection
            .call(step, limit, |engine| {
                let options = options.clone();
                async move {
                    // Messages are read one by one; the last one tells of a failure.
                    let messages =
                        engine.create_image(Some(options), None, credentials.map(Credentials::for_engine));
                    let told = messages.try_for_each(async |message| {
                        if let Some(step) = step_of(message) {
                            progress(step);
                        }
                        Ok(())
                    });
                    told.await
                }
            })
            .await
    }

    /// Gives an image another name, which is taken from the image that has it.
    pub async fn tag(&self, image: &str, reference: &str) -> Result<(), DockerError> {
        let step = names::checked_image(format!("tag image {image} as {reference}"), image)?;
        let step = names::checked_image(step, reference)?;
        let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.connection
            .call(step, self.deadlines.quick, |engine| {
                let options = options.clone();
                async move { engine.tag_image(image, Some(options)).await }
            })
            .await
    }

    /// Takes a name away, and the image with its last one, unless a container has it. One that is gone is fine.
    pub async fn remove_image(&self, reference: &str) -> Result<(), DockerError> {
        let step = names::checked_image(format!("remove image {reference}"), reference)?;
        self.connection
            .call(step, self.deadlines.remove, |engine| async move {
                let removed = engine.remove_image(reference, None::<RemoveImageOptions>, None).await;
                missing_is_none(removed).map(drop)
            })
            .await
    }
}

fn step_of(message: CreateImageInfo) -> Option<PullStep> {
    let detail = message.progress_detail.unwrap_or_default();
    let bytes = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
    Some(PullStep { layer: message.id?, done: bytes(detail.current), total: bytes(detail.total) })
}
