//! The list of kernel images as this machine's engine has them.

use std::time::Duration;

use backendai_agent::rooms::images::{Images, ImagesConfig, ImagesError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::docker::real;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_images_of_this_machine_are_listed_and_looked_up() {
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let config =
        ImagesConfig { auto_update: false, ..ImagesConfig::with_updates(watch::channel(Vec::new()).1) };
    let images = Images::start(real(), config, cancel.clone(), &tracker);
    images.first_scan(LIMIT).await.unwrap();
    let list = images.list().borrow().clone();
    let id = list.id_of("tiny:demo").unwrap();
    assert!(id.starts_with("sha256:"));
    assert!(list.entries.is_sorted());

    let tiny = images.lookup("tiny:demo").await.unwrap().unwrap();
    assert!(!tiny.labels.nvidia_enabled);
    assert_eq!(images.lookup("tiny:demo").await.unwrap(), Some(tiny));
    assert_eq!(images.lookup("nosuch:1").await.unwrap(), None);
    assert!(matches!(images.lookup("../x").await, Err(ImagesError::Lookup { .. })));
    cancel.cancel();
    tracker.close();
    tokio::time::timeout(LIMIT, tracker.wait()).await.expect("the tasks end when cancelled");
}
