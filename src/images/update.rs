//! The updater: pulls outdated images, a few at a time, outside of creates.
//!
//! What is to be done is read off the catalogue and the list alone, so that a new start of the agent goes on where the
//! last one was cut off. An image gets its name only when it is whole and the one that the catalogue wants; until
//! then sessions go on to begin with the old one, and a session that runs keeps the image that it has.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::list::{ImageList, PREFIX};
use super::plan::{Failures, Next, WantedImage, next, outdated};
use super::progress::Progress;
use super::pulls::{Pulls, Shown};
use super::registry::{CredentialsError, Registry};
use crate::docker::{Docker, DockerError};
use crate::figures::{self, table};

/// How many images are pulled at a time.
const AT_ONCE: usize = 2;
/// How often a pull tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// What superseded images are called until they are removed, so that they are known also after a start.
const SUPERSEDED: &str = "lablup/superseded-";

/// The updater's task.
#[derive(Clone)]
pub(super) struct Updater {
    /// Who pulls.
    pub(super) docker: Docker,
    /// Where from.
    pub(super) registry: Registry,
    /// What is here.
    pub(super) list: watch::Receiver<ImageList>,
    /// What the catalogue wants.
    pub(super) wanted: watch::Receiver<Vec<WantedImage>>,
    /// The pulls that go on, for everybody.
    pub(super) pulls: watch::Sender<Pulls>,
    /// Wakes the scanner after a pull.
    pub(super) rescan: Arc<Notify>,
    /// How long one pull may take.
    pub(super) limit: Duration,
    /// How long a pull may stand still.
    pub(super) stall_limit: Duration,
    /// The first pause after a failure.
    pub(super) retry_after: Duration,
    /// Whether superseded images are removed.
    pub(super) remove_old: bool,
}

/// Why an image is not up to date.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("the registry has {found} where the catalogue wants {wanted}; correct the one or push the other")]
    Differs { found: String, wanted: String },
    #[error("the image was removed again at once")]
    Gone,
    #[error("nothing came for {} s; check the registry and the way to it", .0.as_secs())]
    Stalled(Duration),
}

impl Updater {
    /// Runs until it is dropped, or until nobody can want anything any more.
    pub(super) async fn run(self) {
        let mut failures = Failures::new(self.retry_after);
        let (mut list, mut wanted) = (self.list.clone(), self.wanted.clone());
        if self.remove_old {
            self.remove_superseded().await;
        }
        // A copy for the pulls, which must not hold what the loop below changes.
        let updater = Arc::new(self);
        let (mut pulls, mut pulling) = (FuturesUnordered::new(), HashSet::new());
        loop {
            let mut outdated = outdated(&list.borrow_and_update(), &wanted.borrow_and_update());
            failures.keep(&outdated);
            outdated.retain(|image| !pulling.contains(image));
            let mut retry_at = None;
            while pulls.len() < AT_ONCE {
                match next(&outdated, &failures, Instant::now()) {
                    Next::Pull(image) => {
                        outdated.retain(|other| *other != image);
                        pulling.insert(image.clone());
                        let updater = Arc::clone(&updater);
                        pulls.push(async move { (updater.update(&image).await, image) });
                    }
                    Next::WaitUntil(at) => {
                        retry_at = Some(at);
                        break;
                    }
                    Next::Nothing => break,
                }
            }
            let retry = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let is_open = tokio::select! {
                Some((outcome, image)) = pulls.next(), if !pulls.is_empty() => {
                    pulling.remove(&image);
                    updater.note(image, outcome, &mut failures);
                    true
                }
                changed = list.changed() => {
                    if updater.remove_old {
                        updater.remove_superseded().await;
                    }
                    changed.is_ok()
                }
                changed = wanted.changed() => changed.is_ok(),
                () = retry => true,
            };
            if !is_open {
                return;
            }
        }
    }

    fn note(&self, image: WantedImage, outcome: Result<Duration, UpdateError>, failures: &mut Failures) {
        let name = image.name_tag.clone();
        match outcome {
            Ok(took) => {
                let failed_before = failures.settle(image, Instant::now());
                info!(image = name, seconds = took.as_secs(), failed_before, "updated an image");
                figures::count(&table::IMAGE_UPDATES, &["done"]);
                self.rescan.notify_one();
            }
            Err(error) => {
                let noted = failures.note(image, Instant::now());
                let retry_in_seconds = noted.wait.as_secs();
                figures::count(&table::IMAGE_UPDATES, &["failed"]);
                if noted.is_first {
                    warn!(image = name, %error, retry_in_seconds, "could not update an image");
                } else {
                    debug!(image = name, %error, retry_in_seconds, "still could not update an image");
                }
            }
        }
    }

    /// Makes one image what the catalogue wants; answers how long that took.
    async fn update(&self, wanted: &WantedImage) -> Result<Duration, UpdateError> {
        let started = Instant::now();
        let name = format!("{PREFIX}{}", wanted.name_tag);
        let source = self.registry.reference(&wanted.source);
        let old = self.docker.image(&name).await?.map(|image| image.id);
        // The one that an alias leads to may be here already.
        let local = self.docker.image(&format!("{PREFIX}{}", wanted.source)).await?;
        let id = match local {
            Some(image) if wanted.is_met_by(&image.id) => image.id,
            _ => self.pull(&source, wanted).await?,
        };
        if !wanted.is_met_by(&id) {
            // Where the registry's name is the image's own, the pull has given it to the wrong one.
            if source == name
                && let Some(old) = &old
            {
                self.docker.tag(old, &name).await?;
            } else if source != name {
                self.docker.remove_image(&source).await?;
            }
            return Err(UpdateError::Differs { found: id, wanted: wanted.hash_prefix.clone() });
        }
        if self.remove_old
            && let Some(old) = old.filter(|old| *old != id)
        {
            self.docker.tag(&old, &superseded_name(wanted, &old)).await?;
        }
        self.docker.tag(&id, &name).await?;
        if self.registry.address.is_some() {
            self.docker.remove_image(&source).await?;
        }
        Ok(started.elapsed())
    }

    /// Pulls `source`, and answers the id of what came.
    async fn pull(&self, source: &str, wanted: &WantedImage) -> Result<String, UpdateError> {
        let credentials = self.registry.credentials().await?;
        info!(image = wanted.name_tag, from = source, wanted = wanted.hash_prefix, "pulling a newer image");
        let shown = Shown::new(&self.pulls, &wanted.name_tag);
        let progress = Mutex::new(Progress::new(Instant::now()));
        let lock = || progress.lock().unwrap_or_else(PoisonError::into_inner);
        let tell = |step| lock().add(step, Instant::now());
        let pull = self.docker.pull(source, credentials.as_ref(), self.limit, &tell);
        tokio::pin!(pull);
        let mut ticks = tokio::time::interval(TELL_EVERY.min(self.stall_limit));
        ticks.tick().await;
        loop {
            tokio::select! {
                pulled = &mut pull => break pulled?,
                _ = ticks.tick() => {
                    let (is_stalled, (done, total)) = {
                        let progress = lock();
                        (progress.is_stalled(self.stall_limit, Instant::now()), progress.sums())
                    };
                    if is_stalled {
                        return Err(UpdateError::Stalled(self.stall_limit));
                    }
                    shown.at((done, total));
                    info!(image = wanted.name_tag, mib = done.mib(), of_mib = total.mib(), "pulling");
                }
            }
        }
        self.docker.image(source).await?.map(|image| image.id).ok_or(UpdateError::Gone)
    }

    /// Removes what was superseded and is in no container. Others stay until a later look.
    async fn remove_superseded(&self) {
        let images = match self.docker.images().await {
            Ok(images) => images,
            Err(error) => return debug!(%error, "can't look for superseded images"),
        };
        let names = images.iter().flat_map(|image| &image.tags).filter(|tag| is_superseded(tag));
        for name in names {
            match self.docker.remove_image(name).await {
                Ok(()) => info!(image = name, "removed a superseded image"),
                Err(error) => debug!(image = name, %error, "a superseded image is still in use"),
            }
        }
    }
}

/// `lablup/superseded-python:3.6-debian-5eb2e77a6310`; the tag holds 128 characters at most.
fn superseded_name(wanted: &WantedImage, id: &str) -> String {
    let (name, tag) = wanted.name_tag.split_once(':').unwrap_or((&wanted.name_tag, "latest"));
    let digits: String = id.trim_start_matches("sha256:").chars().take(12).collect();
    let tag: String = tag.chars().take(100).collect();
    format!("{SUPERSEDED}{name}:{tag}-{digits}")
}

fn is_superseded(reference: &str) -> bool {
    ["", "docker.io/", "localhost/"]
        .iter()
        .any(|front| reference.strip_prefix(front).is_some_and(|rest| rest.starts_with(SUPERSEDED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superseded_image_has_a_name_that_is_no_kernel_image_s() {
        let wanted = WantedImage::plain("python:3.6-debian", "00");
        let name = superseded_name(&wanted, "sha256:5eb2e77a6310ffff");
        assert_eq!(name, "lablup/superseded-python:3.6-debian-5eb2e77a6310");
        assert!(is_superseded(&name) && is_superseded(&format!("localhost/{name}")));
        assert!(!is_superseded("lablup/kernel-python:1") && !is_superseded("x/lablup/superseded-a:1"));
    }
}
