//! The kernel images of this machine: which there are, what they declare, and newer ones pulled.
//!
//! An image whose reference starts with `lablup/kernel-` is a kernel image (PROTOCOL section 4). The manager
//! schedules by the list that the heartbeat carries, so it must be there early and stay when Docker hangs.
//!
//! Tasks, both ended by the cancellation token and tracked:
//!
//! - the scanner (`scan.rs`) lists the images at the start, when somebody calls [`ImagesHandle::rescan_soon`] (the
//!   owner of Docker's event stream does, on image events), and every [`ImagesConfig::rescan_every`]. In: a
//!   `Notify`. Out: a `watch` of [`ImageList`] and one of [`ScanHealth`].
//! - the updater (`update.rs`), with [`ImagesConfig::auto_update`] only, pulls what the catalogue wants newer. In:
//!   the list's `watch` and the one of the catalogue. Out: the scanner's `Notify`.

mod labels;
mod list;
mod plan;
mod scan;
mod update;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::docker::{Docker, DockerError};

pub use labels::{Feature, KernelImage};
pub use list::{ImageEntry, ImageList};
pub use plan::WantedImage;
pub use scan::ScanHealth;

/// What every kernel image's reference starts with.
pub const PREFIX: &str = "lablup/kernel-";

/// How the images are kept up to date.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// The time between scans that nothing asked for.
    pub rescan_every: Duration,
    /// How long a scan waits for more of the events that asked for it: a pull or a load makes several.
    pub gather: Duration,
    /// Whether images that the catalogue wants newer are pulled.
    pub auto_update: bool,
    /// The catalogue's images; filled by whoever watches the catalogue.
    pub wanted: watch::Receiver<Vec<WantedImage>>,
    /// How long one pull may take.
    pub pull_limit: Duration,
}

impl ImagesConfig {
    /// The usual times, without updates.
    #[must_use]
    pub fn without_updates() -> Self {
        Self { auto_update: false, ..Self::with_updates(watch::channel(Vec::new()).1) }
    }

    /// The usual times, with updates from a catalogue.
    #[must_use]
    pub fn with_updates(wanted: watch::Receiver<Vec<WantedImage>>) -> Self {
        Self {
            rescan_every: Duration::from_secs(60),
            gather: Duration::from_millis(500),
            auto_update: true,
            wanted,
            pull_limit: Duration::from_secs(3600),
        }
    }
}

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
}

/// What the images declare, by image id. Ids name contents, so an entry never becomes wrong.
///
/// A std lock: held for a look or an insertion, never over an await.
type Declared = Arc<Mutex<HashMap<String, Arc<KernelImage>>>>;

/// Starts the tasks.
#[derive(Debug)]
pub struct Images;

impl Images {
    /// Starts scanning at once; returns before the first scan is done.
    #[must_use]
    pub fn start(
        docker: Docker,
        config: ImagesConfig,
        cancel: CancellationToken,
        tracker: &TaskTracker,
    ) -> ImagesHandle {
        let (list, list_seen) = watch::channel(ImageList::default());
        let (health, health_seen) = watch::channel(ScanHealth::default());
        let rescan = Arc::new(Notify::new());
        let declared = Declared::default();
        let scanner = scan::Scanner {
            docker: docker.clone(),
            rescan: Arc::clone(&rescan),
            declared: Arc::clone(&declared),
            list,
            health,
            every: config.rescan_every,
            gather: config.gather,
        };
        let until = cancel.clone();
        tracker.spawn(async move { until.run_until_cancelled(scanner.run()).await });
        if config.auto_update {
            let updater = update::Updater {
                docker: docker.clone(),
                list: list_seen.clone(),
                wanted: config.wanted,
                rescan: Arc::clone(&rescan),
                limit: config.pull_limit,
            };
            tracker.spawn(async move { cancel.run_until_cancelled(updater.run()).await });
        }
        ImagesHandle { docker, rescan, declared, list: list_seen, health: health_seen }
    }
}

/// Answers questions about the images; cheap to clone.
#[derive(Debug, Clone)]
pub struct ImagesHandle {
    /// For images that the last scan did not see.
    docker: Docker,
    /// Wakes the scanner.
    rescan: Arc<Notify>,
    /// What the images declare, so that a lookup costs no Docker call.
    declared: Declared,
    /// The newest list; stays when scans fail.
    list: watch::Receiver<ImageList>,
    /// How the scans go.
    health: watch::Receiver<ScanHealth>,
}

impl ImagesHandle {
    /// Follows the list.
    #[must_use]
    pub fn list(&self) -> watch::Receiver<ImageList> {
        self.list.clone()
    }

    /// Follows how the scans go.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<ScanHealth> {
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

    /// What the image of a language declares; `None` if it is not on this machine. `lang` is a reference without
    /// the prefix, `python:3.6-debian`; without a tag it means `latest`.
    ///
    /// Answers from the last scan, and asks Docker only about an image that the scan did not see.
    pub async fn lookup(&self, lang: &str) -> Result<Option<KernelImage>, ImagesError> {
        let name_tag = list::with_tag(lang);
        let listed = self.list.borrow().id_of(&name_tag).map(str::to_owned);
        if let Some(id) = listed
            && let Some(known) = lock(&self.declared).get(&id)
        {
            return Ok(Some(KernelImage::clone(known)));
        }
        let reference = format!("{PREFIX}{name_tag}");
        let failed = |source| ImagesError::Lookup { lang: lang.to_owned(), source };
        let Some(image) = self.docker.image(&reference).await.map_err(failed)? else {
            return Ok(None);
        };
        let kernel = KernelImage::from_labels(image.id.clone(), &image.labels);
        lock(&self.declared).insert(image.id, Arc::new(kernel.clone()));
        self.rescan_soon();
        Ok(Some(kernel))
    }
}

fn lock(declared: &Declared) -> std::sync::MutexGuard<'_, HashMap<String, Arc<KernelImage>>> {
    declared.lock().unwrap_or_else(PoisonError::into_inner)
}
