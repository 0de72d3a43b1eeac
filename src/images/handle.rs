//! What the rest of the agent asks about the images.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::declared::{Declared, lock};
use super::fetch::{FetchError, Fetcher};
use super::labels::{BadLabel, ImageLabels, KernelImage};
use super::list::{ImageList, references};
use super::pulls::Pulls;
use super::scan::ScanHealth;
use crate::docker::{Docker, DockerError};
use crate::wire::lang;

/// What went wrong with the images.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// No scan succeeded in time.
    #[error(
        "could not list the kernel images within {} s of the start: {}; check that dockerd answers (`docker images`)",
        .limit.as_secs_f64(),
        .last_error.as_deref().unwrap_or("Docker did not answer yet")
    )]
    NoFirstScan {
        /// How long was waited.
        limit: Duration,
        /// What the latest attempt failed with.
        last_error: Option<String>,
    },
    /// An image that was not in the list could not be looked up.
    #[error("could not look up the image of {lang:?}: {source}")]
    Lookup {
        /// The language, `python:3.6-debian`.
        lang: String,
        /// Docker's failure.
        #[source]
        source: DockerError,
    },
    /// It is not here, and could not be pulled.
    #[error(
        "the image {} is not on this machine and could not be pulled: {source}; check that its registry answers, and who pulls \
         from there (--docker-config, or nodes/docker_registry/user in etcd)",
        lang::reference(.lang)
    )]
    Fetch {
        /// The language, `python:3.6-debian`.
        lang: String,
        /// Why.
        #[source]
        source: Arc<FetchError>,
    },
    /// It is not here, and on its way for longer than the create waits.
    #[error("the image {} is still being pulled to this machine; try again later", lang::reference(.0))]
    OnItsWay(String),
    /// The image is here, and what it declares makes no sense.
    #[error("the image of {lang:?} is broken: {source}; correct the image")]
    Broken {
        /// The language, `python:3.6-debian`.
        lang: String,
        /// The label that is wrong.
        #[source]
        source: BadLabel,
    },
}

/// Answers questions about the images; cheap to clone.
#[derive(Debug, Clone)]
pub struct ImagesHandle {
    /// For images that the last scan did not see.
    pub(super) docker: Docker,
    /// Wakes the scanner.
    pub(super) rescan: Arc<Notify>,
    /// Pulls what is missing.
    pub(super) fetcher: Arc<Fetcher>,
    /// What the images declare, so that a lookup costs no Docker call.
    pub(super) declared: Declared,
    /// The newest list; stays when scans fail.
    pub(super) list: watch::Receiver<ImageList>,
    /// The pulls that go on.
    pub(super) pulls: watch::Receiver<Pulls>,
    /// How the scans go.
    pub(super) health: watch::Receiver<ScanHealth>,
}

impl ImagesHandle {
    /// Follows the list.
    #[must_use]
    pub fn list(&self) -> watch::Receiver<ImageList> {
        self.list.clone()
    }

    /// Follows the pulls that go on.
    #[must_use]
    pub fn pulls(&self) -> watch::Receiver<Pulls> {
        self.pulls.clone()
    }

    /// Follows how the scans go.
    #[cfg(test)]
    pub(super) fn health(&self) -> watch::Receiver<ScanHealth> {
        self.health.clone()
    }

    /// Asks for a scan; many calls in a short time make one scan.
    pub fn rescan_soon(&self) {
        self.rescan.notify_one();
    }

    /// Waits until a scan has succeeded.
    pub async fn first_scan(&self, limit: Duration) -> Result<(), ImagesError> {
        let mut health = self.health.clone();
        let scanned = tokio::time::timeout(limit, health.wait_for(|health| health.last_good.is_some())).await;
        // An error of the wait itself means that the scanner was stopped; then there will be no scan either.
        if matches!(scanned, Ok(Ok(_))) {
            return Ok(());
        }
        let last_error = self.health.borrow().last_error.clone();
        Err(ImagesError::NoFirstScan { limit, last_error })
    }

    /// What the image of a language declares; `None` if it is not on this machine. `lang` is in the form of
    /// [`lang::normal`], `python:3.6-debian`; without a tag it means `latest`.
    ///
    /// Answers from the last scan, and asks Docker only about an image that the scan did not see.
    pub async fn lookup(&self, lang: &str) -> Result<Option<KernelImage>, ImagesError> {
        let name_tag = lang::with_tag(lang);
        let listed = self.list.borrow().entry(&name_tag).cloned();
        if let Some(entry) = listed
            && let Some(Ok(labels)) = lock(&self.declared).get(&entry.id)
        {
            return Ok(Some(KernelImage { reference: entry.reference, labels: Arc::clone(labels) }));
        }
        for reference in references(&name_tag) {
            let failed = |source| ImagesError::Lookup { lang: lang.to_owned(), source };
            let Some(image) = self.docker.image(&reference).await.map_err(failed)? else { continue };
            let labels = ImageLabels::read(&image.labels).map(Arc::new);
            lock(&self.declared).insert(image.id, labels.clone());
            self.rescan_soon();
            let broken = |source| ImagesError::Broken { lang: lang.to_owned(), source };
            return Ok(Some(KernelImage { reference, labels: labels.map_err(broken)? }));
        }
        Ok(None)
    }

    /// The same of an image that is not here: pulls it, where images are pulled, and waits for that so long. `None` where
    /// nothing is pulled.
    pub async fn fetch(&self, lang: &str, limit: Duration) -> Result<Option<KernelImage>, ImagesError> {
        if !self.fetcher.is_on() {
            return Ok(None);
        }
        let pulled = tokio::time::timeout(limit, self.fetcher.fetch(lang)).await;
        let pulled = pulled.map_err(|_| ImagesError::OnItsWay(lang.to_owned()))?;
        pulled.map_err(|source| ImagesError::Fetch { lang: lang.to_owned(), source })?;
        self.lookup(lang).await
    }
}
