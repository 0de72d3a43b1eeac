//! The scanner: lists the images again and again, and keeps the last list when Docker fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::declared::{Declared, lock};
use super::labels::ImageLabels;
use super::list::{ImageList, is_kernel_image};
use crate::docker::{Docker, DockerError, ImageSummary};
use crate::patience::Outage;

/// How soon a failed scan is tried again, unless scans are more frequent anyway.
const RETRY: Duration = Duration::from_secs(5);

/// How the scans go.
#[derive(Debug, Clone, Default)]
pub struct ScanHealth {
    /// When the list was last seen to be true; `None` before the first success.
    pub last_good: Option<Instant>,
    /// The scans that failed since then.
    pub outage: Outage,
    /// What the latest of those failed with.
    pub last_error: Option<String>,
}

/// The scanner's task.
pub(super) struct Scanner {
    /// Whom to ask.
    pub(super) docker: Docker,
    /// Somebody wants a scan.
    pub(super) rescan: Arc<Notify>,
    /// What the images declare; filled here, read by lookups.
    pub(super) declared: Declared,
    /// The list, for everybody.
    pub(super) list: watch::Sender<ImageList>,
    /// How it goes, for everybody.
    pub(super) health: watch::Sender<ScanHealth>,
    /// The time between scans that nothing asked for.
    pub(super) every: Duration,
    /// How long to wait for more wishes before a scan that was asked for.
    pub(super) gather: Duration,
}

impl Scanner {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        loop {
            let answer = self.docker.images().await;
            let is_good = answer.is_ok();
            match answer {
                Ok(images) => self.succeeded(&images),
                Err(error) => self.failed(&error),
            }
            let pause = if is_good { self.every } else { self.every.min(RETRY) };
            if tokio::time::timeout(pause, self.rescan.notified()).await.is_ok() {
                // Wishes that come in this while are met by the same scan: a Notify holds one at most.
                tokio::time::sleep(self.gather).await;
            }
        }
    }

    fn succeeded(&self, images: &[ImageSummary]) {
        self.declare(images);
        let list = self.usable(images);
        // The list goes out before the health, so that whoever waited for the first scan sees it.
        let count = list.entries.len();
        let is_first = self.health.borrow().last_good.is_none();
        let has_changed = self.list.send_if_modified(|before| {
            let has_changed = *before != list;
            *before = list;
            has_changed
        });
        if has_changed || is_first {
            info!(images = count, "listed the kernel images");
        }
        let now = Instant::now();
        let good = ScanHealth { last_good: Some(now), ..ScanHealth::default() };
        if let Some(past) = self.health.send_replace(good).outage.worked(now) {
            info!(
                seconds = past.seconds(),
                failures = past.failures,
                images = count,
                "the kernel images can be listed again"
            );
        }
    }

    fn failed(&self, error: &DockerError) {
        let mut is_first = false;
        self.health.send_modify(|health| {
            is_first = health.outage.failed(Instant::now());
            health.last_error = Some(error.to_string());
        });
        if is_first {
            warn!(%error, "could not list the kernel images, keeping the last list");
        } else {
            debug!(%error, "still could not list the kernel images");
        }
    }

    /// Learns what new images declare, and forgets the images that are gone.
    fn declare(&self, images: &[ImageSummary]) {
        let mut declared = lock(&self.declared);
        declared.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            // Some engines leave labels out of lists: without any, a lookup has to ask.
            if !image.labels.is_empty() && !declared.contains_key(&image.id) {
                let labels = ImageLabels::read(&image.labels).map(Arc::new);
                if let (Err(error), Some(name)) =
                    (&labels, image.tags.iter().find(|tag| is_kernel_image(tag)))
                {
                    warn!(image = %name, id = %image.id, %error, "leaving out a broken image; correct it");
                }
                declared.insert(image.id.clone(), labels);
            }
        }
    }

    fn usable(&self, images: &[ImageSummary]) -> ImageList {
        let declared = lock(&self.declared);
        ImageList::of(images, |id| matches!(declared.get(id), Some(Err(_))))
    }
}
