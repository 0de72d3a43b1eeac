//! Images that a create needs and that are not here, pulled while it waits (PROTOCOL section 12, item 7).
//!
//! A pull goes on when whoever waited for it has left, so that the next create finds the image. One image is pulled once at
//! a time, however many wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::config::Updates;
use super::registry::CredentialsError;
use crate::cluster::RegistryLogin;
use crate::docker::{Credentials, Docker, DockerError};
use crate::wire::lang;

/// Pulls what is missing.
pub(super) struct Fetcher {
    /// Who pulls.
    pub(super) docker: Docker,
    /// Whether images are pulled, and where those without a registry of their own come from.
    pub(super) updates: watch::Receiver<Updates>,
    /// Who pulls from the cluster's registry, where the cluster says; a file of Docker's goes before that.
    pub(super) login: watch::Receiver<Option<RegistryLogin>>,
    /// How long one pull may take.
    pub(super) limit: Duration,
    /// Wakes the scanner after a pull.
    pub(super) rescan: Arc<Notify>,
    /// Ends pulls.
    pub(super) cancel: CancellationToken,
    /// Every pull, so that a stop can wait for them.
    pub(super) tracker: TaskTracker,
    /// What goes on. A std mutex, held for a look-up.
    pub(super) going: Mutex<HashMap<String, watch::Receiver<Option<Fetched>>>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

/// How a pull ended.
pub(super) type Fetched = Result<(), Arc<FetchError>>;

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Docker or the registry.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The registry's credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopped,
}

impl Fetcher {
    /// Whether anything is pulled.
    pub(super) fn is_on(&self) -> bool {
        self.updates.borrow().are_on
    }

    /// Waits until the image is here, or can't be had.
    pub(super) async fn fetch(self: &Arc<Self>, lang: &str) -> Fetched {
        let mut done = self.join(lang);
        let ended = done.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or_else(|| Err(Arc::new(FetchError::Stopped)))
    }

    /// The pull that goes on, or a new one.
    fn join(self: &Arc<Self>, lang: &str) -> watch::Receiver<Option<Fetched>> {
        let mut going = self.going();
        if let Some(done) = going.get(lang) {
            return done.clone();
        }
        let (ended, done) = watch::channel(None);
        going.insert(lang.to_owned(), done.clone());
        let (fetcher, lang) = (Arc::clone(self), lang.to_owned());
        self.tracker.spawn(async move {
            let pulled = fetcher.cancel.run_until_cancelled(fetcher.pull(&lang)).await;
            let pulled = pulled.unwrap_or(Err(FetchError::Stopped));
            match &pulled {
                Ok(()) => info!(image = lang::reference(&lang), "pulled an image that a session needs"),
                Err(error) => warn!(image = lang::reference(&lang), %error, "could not pull an image that a session needs"),
            }
            fetcher.going().remove(&lang);
            fetcher.rescan.notify_one();
            ended.send_replace(Some(pulled.map_err(Arc::new)));
        });
        done
    }

    fn going(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Fetched>>>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pull(&self, lang: &str) -> Result<(), FetchError> {
        let lang = lang::with_tag(lang);
        let name = lang::reference(&lang);
        let usual = self.updates.borrow().registry.clone();
        let (registry, source) = match lang.split_once('/') {
            Some((host, _)) => (usual.at(host), name.clone()),
            None => (usual.clone(), usual.reference(&lang)),
        };
        let mut credentials = registry.credentials().await?;
        if credentials.is_none() {
            // Nobody else's registry is shown the cluster's password.
            let login = self.login.borrow().clone();
            let login = login.filter(|login| registry.is_cluster_s(login.registry.as_deref(), &usual));
            credentials =
                login.map(|login| Credentials::password(registry.host(), &login.user, login.password));
        }
        info!(image = name, from = source, "pulling an image that a session needs");
        self.docker.pull(&source, credentials.as_ref(), self.limit, &|_| {}).await?;
        if source != name {
            self.docker.tag(&source, &name).await?;
            self.docker.remove_image(&source).await?;
        }
        Ok(())
    }
}
