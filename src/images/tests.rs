//! The scanner and the updater against fake engines; `tests/rooms/images.rs` has them with a real one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Images, ImagesConfig, ImagesError, ImagesHandle, Updates, WantedImage};
use crate::docker::Docker;
use crate::docker::testing::{FakeEngine, Reply, version};

const LIMIT: Duration = Duration::from_secs(20);

/// The two tasks, and how to end them.
struct Running {
    images: ImagesHandle,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Running {
    fn start(docker: Docker, config: ImagesConfig) -> Self {
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let images = Images::start(docker, config, cancel.clone(), &tracker);
        Self { images, cancel, tracker }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(LIMIT, self.tracker.wait()).await.expect("the tasks end when cancelled");
    }
}

fn quickly() -> ImagesConfig {
    ImagesConfig {
        rescan_every: Duration::from_millis(50),
        gather: Duration::from_millis(10),
        ..ImagesConfig::new(watch::channel(Vec::new()).1, watch::channel(Updates::default()).1)
    }
}

fn updates(are_on: bool) -> (watch::Sender<Updates>, watch::Receiver<Updates>) {
    watch::channel(Updates { are_on, ..Updates::default() })
}

fn listing(id: &str, name_tag: &str) -> Reply {
    Reply::Answer(
        200,
        format!(
            r#"[{{"Id": "sha256:{id}", "ParentId": "", "RepoTags": ["lablup/kernel-{name_tag}"],
                "RepoDigests": null, "Created": 1, "Size": 1, "SharedSize": -1, "Containers": -1,
                "Labels": {{"io.sorna.timeout": "30"}}}}]"#
        ),
    )
}

#[tokio::test]
async fn a_hung_engine_leaves_the_last_list_and_lookups_standing() {
    let is_hung = Arc::new(AtomicBool::new(false));
    let hung = Arc::clone(&is_hung);
    let engine = FakeEngine::start(move |request| match request {
        _ if hung.load(Ordering::SeqCst) => Reply::Hang,
        "GET /version" => version("1.41"),
        _ => listing("aa", "python:latest"),
    });
    let running = Running::start(engine.docker(), quickly());
    let images = running.images.clone();
    images.first_scan(LIMIT).await.unwrap();
    is_hung.store(true, Ordering::SeqCst);

    let mut health = images.health();
    let two_failures = health.wait_for(|health| health.outage.failures() >= 2);
    let failed = tokio::time::timeout(LIMIT, two_failures).await.unwrap().unwrap().clone();
    assert!(failed.last_error.unwrap().contains("list images"));
    assert!(failed.last_good.is_some());
    assert_eq!(images.list().borrow().id_of("python:latest"), Some("sha256:aa"));
    let python = images.lookup("python").await.unwrap().unwrap();
    assert_eq!(python.labels.exec_timeout, Some(Duration::from_secs(30)));
    assert!(matches!(images.lookup("other").await, Err(ImagesError::Lookup { .. })));

    is_hung.store(false, Ordering::SeqCst);
    tokio::time::timeout(LIMIT, health.wait_for(|health| health.outage.failures() == 0))
        .await
        .unwrap()
        .unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_first_scan_is_waited_for_only_so_long() {
    let engine = FakeEngine::hanging();
    let running = Running::start(engine.docker(), quickly());
    let error = running.images.first_scan(Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("could not list the kernel images"), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn a_wish_is_met_without_waiting_for_the_next_round() {
    let id = Arc::new(Mutex::new("aa"));
    let current = Arc::clone(&id);
    let engine = FakeEngine::start(move |request| match request {
        "GET /version" => version("1.41"),
        _ => listing(*current.lock().unwrap(), "python:latest"),
    });
    let config = ImagesConfig { rescan_every: Duration::from_secs(3600), ..quickly() };
    let running = Running::start(engine.docker(), config);
    running.images.first_scan(LIMIT).await.unwrap();
    *id.lock().unwrap() = "bb";
    for _ in 0..100 {
        running.images.rescan_soon();
    }
    let mut list = running.images.list();
    let changed = list.wait_for(|list| list.id_of("python:latest") == Some("sha256:bb"));
    tokio::time::timeout(LIMIT, changed).await.unwrap().unwrap();
    let scans = engine.requests().iter().filter(|line| line.contains("/images/json")).count();
    assert!(scans <= 3, "100 wishes made {scans} scans");
    running.stop().await;
}

/// A fake engine that has `aa`, and after a pull `pulled`.
fn registry(pulled: &'static str) -> FakeEngine {
    let has_pulled = AtomicBool::new(false);
    FakeEngine::start(move |request| {
        let id = if has_pulled.load(Ordering::SeqCst) { pulled } else { "aa" };
        match request {
            "GET /version" => version("1.41"),
            line if line.contains("/images/create") => {
                has_pulled.store(true, Ordering::SeqCst);
                Reply::Answer(200, "{\"status\": \"done\"}\n".into())
            }
            line if line.contains("/images/lablup") => {
                Reply::Answer(200, format!(r#"{{"Id": "sha256:{id}"}}"#))
            }
            _ => listing(id, "python:latest"),
        }
    })
}

fn pulls(engine: &FakeEngine) -> Vec<String> {
    engine.requests().into_iter().filter(|line| line.contains("/images/create")).collect()
}

#[tokio::test]
async fn an_outdated_image_is_pulled_once_and_others_are_not() {
    let engine = registry("bb");
    let (catalogue, wanted) = watch::channel(Vec::new());
    let config = ImagesConfig { updates: updates(true).1, wanted, ..quickly() };
    let running = Running::start(engine.docker(), config);
    running.images.first_scan(LIMIT).await.unwrap();
    let want = |name_tag: &str| WantedImage::plain(name_tag, "bb");
    catalogue.send(vec![want("absent:latest"), want("python:latest")]).unwrap();

    let mut list = running.images.list();
    let updated = list.wait_for(|list| list.id_of("python:latest") == Some("sha256:bb"));
    tokio::time::timeout(LIMIT, updated).await.unwrap().unwrap();
    let pulled = pulls(&engine);
    assert_eq!(pulled.len(), 1, "{pulled:?}");
    assert!(pulled[0].contains("lablup%2Fkernel-python%3Alatest"), "{pulled:?}");
    running.stop().await;
}

#[tokio::test]
async fn updates_can_be_switched_on_later() {
    let engine = registry("bb");
    let (_catalogue, wanted) = watch::channel(vec![WantedImage::plain("python:latest", "bb")]);
    let (switch, settings) = updates(false);
    let running = Running::start(engine.docker(), ImagesConfig { updates: settings, wanted, ..quickly() });
    running.images.first_scan(LIMIT).await.unwrap();
    assert_eq!(pulls(&engine), Vec::<String>::new());
    switch.send_modify(|updates| updates.are_on = true);
    let mut list = running.images.list();
    let updated = list.wait_for(|list| list.id_of("python:latest") == Some("sha256:bb"));
    tokio::time::timeout(LIMIT, updated).await.unwrap().unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_registry_without_the_wanted_image_is_not_asked_over_and_over() {
    let engine = registry("cc");
    let (_catalogue, wanted) = watch::channel(vec![WantedImage::plain("python:latest", "bb")]);
    let config = ImagesConfig { updates: updates(true).1, wanted, ..quickly() };
    let running = Running::start(engine.docker(), config);
    let mut list = running.images.list();
    let updated = list.wait_for(|list| list.id_of("python:latest") == Some("sha256:cc"));
    tokio::time::timeout(LIMIT, updated).await.unwrap().unwrap();
    // The list goes on being scanned; each scan wakes the updater only if it changed the list.
    let scans = || engine.requests().iter().filter(|line| line.contains("/images/json")).count();
    let enough = scans() + 5;
    let scanning = async {
        while scans() < enough {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, scanning).await.unwrap();
    assert_eq!(pulls(&engine).len(), 1);
    running.stop().await;
}
