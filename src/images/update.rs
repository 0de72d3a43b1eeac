//! The updater: pulls outdated images, one at a time, outside of creates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::list::{ImageList, PREFIX};
use super::plan::{Failures, Next, WantedImage, next, outdated};
use crate::docker::Docker;

/// The updater's task.
pub(super) struct Updater {
    /// Who pulls.
    pub(super) docker: Docker,
    /// What is here.
    pub(super) list: watch::Receiver<ImageList>,
    /// What the catalogue wants.
    pub(super) wanted: watch::Receiver<Vec<WantedImage>>,
    /// Wakes the scanner after a pull.
    pub(super) rescan: Arc<Notify>,
    /// How long one pull may take.
    pub(super) limit: Duration,
}

impl Updater {
    /// Runs until it is dropped, or until nobody can want anything any more.
    pub(super) async fn run(mut self) {
        let mut failures = Failures::default();
        loop {
            let outdated = outdated(&self.list.borrow_and_update(), &self.wanted.borrow_and_update());
            failures.keep(&outdated);
            let retry_at = match next(&outdated, &failures, Instant::now()) {
                Next::Pull(image) => {
                    self.pull(image, &mut failures).await;
                    continue;
                }
                Next::WaitUntil(at) => Some(at),
                Next::Nothing => None,
            };
            let retry = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let is_open = tokio::select! {
                changed = self.list.changed() => changed.is_ok(),
                changed = self.wanted.changed() => changed.is_ok(),
                () = retry => true,
            };
            if !is_open {
                return;
            }
        }
    }

    async fn pull(&self, image: WantedImage, failures: &mut Failures) {
        let reference = format!("{PREFIX}{}", image.name_tag);
        debug!(image = %reference, wanted = %image.hash_prefix, "pulling a newer image");
        let started = Instant::now();
        match self.pulled(&reference, &image).await {
            Ok(()) => {
                info!(image = %reference, seconds = started.elapsed().as_secs(), "pulled a newer image");
                self.rescan.notify_one();
                // Until the scan shows the new id the list still calls the image outdated.
                failures.note(image, Instant::now());
            }
            Err(reason) => {
                let wait = failures.note(image, Instant::now());
                warn!(image = %reference, %reason, retry_in_seconds = wait.as_secs(), "could not update an image");
            }
        }
    }

    async fn pulled(&self, reference: &str, wanted: &WantedImage) -> Result<(), String> {
        self.docker.pull(reference, self.limit).await.map_err(|error| error.to_string())?;
        let image = self.docker.image(reference).await.map_err(|error| error.to_string())?;
        match image {
            Some(image) if wanted.is_met_by(&image.id) => Ok(()),
            Some(image) => Err(format!(
                "the registry has {} where the catalogue wants {}; correct the one or push the other",
                image.id, wanted.hash_prefix
            )),
            None => Err("it was removed again at once".to_owned()),
        }
    }
}
