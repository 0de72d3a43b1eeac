//! How the images are kept up to date.

use std::time::Duration;

use tokio::sync::watch;

use super::plan::WantedImage;
use super::registry::Registry;
use crate::cluster::RegistryLogin;

/// How the images are kept up to date.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// The time between scans that nothing asked for.
    pub rescan_every: Duration,
    /// How long a scan waits for more of the events that asked for it: a pull or a load makes several.
    pub gather: Duration,
    /// Whether images that the catalogue wants newer are pulled, and how; may change at any time.
    pub updates: watch::Receiver<Updates>,
    /// Who pulls, where the cluster says.
    pub login: watch::Receiver<Option<RegistryLogin>>,
    /// The catalogue's images; filled by whoever watches the catalogue.
    pub wanted: watch::Receiver<Vec<WantedImage>>,
    /// How long one pull may take.
    pub pull_limit: Duration,
    /// How long a pull may stand still.
    pub stall_limit: Duration,
    /// The pause after an image's first failure; it doubles up to an hour.
    pub retry_after: Duration,
}

/// What an operator decides about updates of images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updates {
    /// Whether images are pulled: those that the catalogue wants newer, and those that a create needs.
    pub are_on: bool,
    /// Where from.
    pub registry: Registry,
    /// Whether images that a newer one took the name of are removed once no container has them.
    pub remove_old: bool,
}

impl ImagesConfig {
    /// The usual times, with updates from a catalogue as they are wanted.
    #[must_use]
    pub fn new(wanted: watch::Receiver<Vec<WantedImage>>, updates: watch::Receiver<Updates>) -> Self {
        Self {
            rescan_every: Duration::from_secs(60),
            gather: Duration::from_millis(500),
            updates,
            login: watch::channel(None).1,
            wanted,
            pull_limit: Duration::from_secs(6 * 3600),
            stall_limit: Duration::from_secs(300),
            retry_after: Duration::from_secs(60),
        }
    }
}
