//! The start of the two tasks.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{ImagesConfig, Updates};
use super::declared::Declared;
use super::fetch::Fetcher;
use super::handle::ImagesHandle;
use super::list::ImageList;
use super::pulls::Pulls;
use super::registry::Registry;
use super::scan::{ScanHealth, Scanner};
use super::update::Updater;
use crate::docker::Docker;

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
        let (pulls, pulls_seen) = watch::channel(Pulls::new());
        let rescan = Arc::new(Notify::new());
        let declared = Declared::default();
        let scanner = Scanner {
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
        let settings = config.updates;
        let fetcher = Arc::new(Fetcher {
            docker: docker.clone(),
            updates: settings.clone(),
            login: config.login,
            limit: config.pull_limit,
            rescan: Arc::clone(&rescan),
            cancel: cancel.clone(),
            tracker: tracker.clone(),
            going: Mutex::default(),
        });
        let updater = Updater {
            docker: docker.clone(),
            list: list_seen.clone(),
            pulls,
            wanted: config.wanted,
            rescan: Arc::clone(&rescan),
            registry: Registry::default(),
            limit: config.pull_limit,
            stall_limit: config.stall_limit,
            retry_after: config.retry_after,
            remove_old: false,
        };
        tracker.spawn(async move { cancel.run_until_cancelled(keep_updating(updater, settings)).await });
        ImagesHandle {
            docker,
            rescan,
            declared,
            fetcher,
            list: list_seen,
            health: health_seen,
            pulls: pulls_seen,
        }
    }
}

/// Updates as long as that is wanted and as it is wanted. A change cuts a pull off; the next one takes what came of it.
async fn keep_updating(updater: Updater, mut settings: watch::Receiver<Updates>) {
    loop {
        let Updates { are_on, registry, remove_old } = settings.borrow_and_update().clone();
        let updater = Updater { registry, remove_old, ..updater.clone() };
        let work = async move {
            if are_on {
                updater.run().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let changed = async {
            if settings.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = work => return,
            () = changed => {}
        }
    }
}
