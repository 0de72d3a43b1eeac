//! The list of kernel images as this machine's engine has them, and updates from a registry (Debian's
//! `docker-registry`) on loopback, which Docker speaks to without TLS.

mod gate;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backendai_agent::rooms::cluster::RegistryLogin;
use backendai_agent::rooms::images::{
    Images, ImagesConfig, ImagesError, ImagesHandle, Registry as Source, Updates, WantedImage,
};
use backendai_agent::rooms::secret::Secret;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::docker::{TestName, real};
use super::support::docker::{TestImage, docker, inspect};
use super::support::registry::{HALF, Pulled, Registry, old_and_new};
use super::support::until;
use gate::{Gate, Way};

/// Docker waits for 5 s after a layer that was cut off.
const LIMIT: Duration = Duration::from_secs(30);

/// The two tasks, ended with the test.
struct Running {
    images: ImagesHandle,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Running {
    fn start(config: ImagesConfig) -> Self {
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let images = Images::start(real(), config, cancel.clone(), &tracker);
        Self { images, cancel, tracker }
    }

    /// Waits until the list has the image under the name.
    async fn shows(&self, name_tag: &str, id: &str) {
        let mut list = self.images.list();
        let shown = list.wait_for(|list| list.id_of(name_tag) == Some(id));
        tokio::time::timeout(LIMIT, shown).await.expect("the list shows the image").unwrap();
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(LIMIT, self.tracker.wait()).await.expect("the tasks end when cancelled");
    }
}

fn updates(registry: Source, remove_old: bool) -> watch::Receiver<Updates> {
    watch::channel(Updates { are_on: true, registry, remove_old }).1
}

fn quickly(source: Source, wanted: watch::Receiver<Vec<WantedImage>>) -> ImagesConfig {
    ImagesConfig {
        rescan_every: Duration::from_millis(500),
        gather: Duration::from_millis(50),
        retry_after: Duration::from_secs(1),
        ..ImagesConfig::new(wanted, updates(source, false))
    }
}

fn source(registry: &Registry, docker_config: Option<&Path>) -> Source {
    Source { address: Some(registry.address()), docker_config: docker_config.map(Path::to_owned) }
}

fn want(image: &TestImage, id: &str) -> WantedImage {
    WantedImage::plain(image.lang(), &id.trim_start_matches("sha256:")[..12])
}

#[tokio::test]
async fn the_images_of_this_machine_are_listed_and_looked_up() {
    let image = TestImage::labelled(&["io.sorna.timeout=10"]).await;
    let broken = TestImage::labelled(&["io.sorna.maxmem=lots"]).await;
    let (_catalogue, wanted) = watch::channel(Vec::new());
    let running = Running::start(quickly(Source::default(), wanted));
    let images = &running.images;
    images.first_scan(LIMIT).await.unwrap();
    let list = images.list().borrow().clone();
    assert!(list.id_of(image.lang()).unwrap().starts_with("sha256:"));
    assert!(list.entries.is_sorted());
    assert_eq!(list.id_of(broken.lang()), None);

    let found = images.lookup(image.lang()).await.unwrap().unwrap();
    assert_eq!(found.reference, image.reference());
    assert_eq!(images.lookup(image.lang()).await.unwrap(), Some(found));
    assert_eq!(images.lookup("nosuch:1").await.unwrap(), None);
    assert!(matches!(images.lookup("../x").await, Err(ImagesError::Lookup { .. })));
    let refusal = images.lookup(broken.lang()).await.unwrap_err().to_string();
    assert!(refusal.contains("label io.sorna.maxmem is \"lots\""), "{refusal}");
    running.stop().await;
}

#[tokio::test]
async fn a_newer_image_arrives_and_a_container_of_the_old_one_is_unharmed() {
    let registry = Registry::start(None).await;
    let (image, old, new) = old_and_new(&registry, None).await;
    let name = TestName::new("old-image");
    docker(&["run", "-d", "--name", &name.0, &image.reference()]).await;

    let (catalogue, wanted) = watch::channel(Vec::new());
    let updates = updates(source(&registry, None), true);
    let config = ImagesConfig { updates, ..quickly(source(&registry, None), wanted) };
    let running = Running::start(config);
    running.shows(image.lang(), &old).await;
    catalogue.send(vec![want(&image, &new)]).unwrap();
    running.shows(image.lang(), &new).await;
    let container = inspect(&name.0).await;
    assert_eq!(
        (container["State"]["Running"].as_bool(), container["Image"].as_str()),
        (Some(true), Some(&*old))
    );
    // The old one stays as long as the container has it, and no longer.
    assert_eq!(inspect(&old).await["Id"].as_str(), Some(&*old));
    docker(&["rm", "-fv", &name.0]).await;
    // The next change of the list is the occasion to look again.
    let _another = TestImage::labelled(&["io.sorna.timeout=10"]).await;
    until("the removal of the old image", LIMIT, async || {
        docker(&["images", "-q", "--no-trunc"]).await.lines().all(|id| id != old).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn an_alias_is_followed_to_the_image_that_the_registry_has() {
    let registry = Registry::start(None).await;
    let (image, old, new) = old_and_new(&registry, None).await;
    let alias = image.lang().replace(":demo", ":alias");
    docker(&["tag", &image.reference(), &format!("lablup/kernel-{alias}")]).await;
    let mut followed = want(&image, &new);
    followed.name_tag.clone_from(&alias);
    let (_catalogue, wanted) = watch::channel(vec![followed]);
    let running = Running::start(quickly(source(&registry, None), wanted));
    running.shows(&alias, &new).await;
    assert_eq!(
        running.images.list().borrow().id_of(image.lang()),
        Some(&*old),
        "nobody wanted that one newer"
    );
    running.stop().await;
    docker(&["rmi", &format!("lablup/kernel-{alias}")]).await;
}

#[tokio::test]
async fn a_registry_with_a_password_is_opened_by_docker_s_own_file() {
    let registry = Registry::start(Some("hunter2")).await;
    let login = registry.login("hunter2");
    let file = login.join("config.json");
    let (image, old, new) = old_and_new(&registry, Some(&login)).await;

    let (_catalogue, wanted) = watch::channel(vec![want(&image, &new)]);
    let without = Running::start(quickly(source(&registry, None), wanted.clone()));
    without.shows(image.lang(), &old).await;
    let with = Running::start(quickly(source(&registry, Some(&file)), wanted));
    with.shows(image.lang(), &new).await;
    without.stop().await;
    with.stop().await;
}

/// Docker goes on with the layer where it was cut off, so that the agent's pull survives a registry that comes back.
#[tokio::test]
async fn a_registry_that_dies_in_the_middle_of_a_layer_costs_no_byte_twice() {
    let registry = Registry::start(None).await;
    let (image, old, new) = old_and_new(&registry, None).await;
    let gate = Gate::before(&registry, Way::CutAfter(HALF)).await;
    let (_catalogue, wanted) = watch::channel(vec![want(&image, &new)]);
    let running = Running::start(quickly(gate.source(), wanted));
    gate.is_shut().await;
    assert_eq!(running.images.list().borrow().id_of(image.lang()), Some(&*old), "half of an image is none");
    gate.becomes(Way::Open);
    running.shows(image.lang(), &new).await;
    let all = gate.passed();
    assert!((2 * HALF..3 * HALF).contains(&all), "{all} bytes of a layer of {}", 2 * HALF);
    running.stop().await;
}

/// A registry that keeps the connection and says nothing more is left after the limit, and tried again.
#[tokio::test]
async fn a_registry_that_stands_still_in_the_middle_of_a_layer_is_left_and_tried_again() {
    let registry = Registry::start(None).await;
    let (image, old, new) = old_and_new(&registry, None).await;
    let gate = Gate::before(&registry, Way::HoldAfter(HALF)).await;
    let (_catalogue, wanted) = watch::channel(vec![want(&image, &new)]);
    let config = ImagesConfig { stall_limit: Duration::from_secs(2), ..quickly(gate.source(), wanted) };
    let running = Running::start(config);
    gate.is_shut().await;
    let pulls = running.images.pulls();
    let seen = async |is_there: bool| {
        let mut pulls = pulls.clone();
        let change = pulls.wait_for(|pulls| pulls.contains_key(image.lang()) == is_there);
        tokio::time::timeout(LIMIT, change).await.expect("the pull begins, and is left").unwrap();
    };
    seen(true).await;
    seen(false).await;
    assert_eq!(running.images.list().borrow().id_of(image.lang()), Some(&*old), "half of an image is none");
    gate.becomes(Way::Open);
    running.shows(image.lang(), &new).await;
    running.stop().await;
}

/// Two images come at a time; what is over waits for its turn.
#[tokio::test]
async fn two_images_are_pulled_at_a_time() {
    let registry = Registry::start(None).await;
    let mut images = Vec::new();
    for _ in 0..3 {
        images.push(old_and_new(&registry, None).await);
    }
    let gate = Gate::before(&registry, Way::HoldAfter(HALF)).await;
    let (_catalogue, wanted) =
        watch::channel(images.iter().map(|(image, _, new)| want(image, new)).collect());
    let running = Running::start(quickly(gate.source(), wanted));
    let most = Arc::new(AtomicUsize::new(0));
    let (mut pulls, seen) = (running.images.pulls(), Arc::clone(&most));
    let watching = tokio::spawn(async move {
        while pulls.changed().await.is_ok() {
            seen.fetch_max(pulls.borrow_and_update().len(), Ordering::SeqCst);
        }
    });
    gate.is_shut().await;
    gate.becomes(Way::Open);
    for (image, _, new) in &images {
        running.shows(image.lang(), new).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    running.stop().await;
    watching.abort();
}

/// The registry's login comes from the cluster; an image that is gone is pulled once for all who wait.
#[tokio::test]
async fn an_image_that_a_create_needs_is_pulled_while_it_waits() {
    let registry = Registry::start(Some("hunter2")).await;
    let image = TestImage::labelled(&["ai.backend.timeout=20"]).await;
    registry.has(&image, Some(&registry.login("hunter2"))).await;
    docker(&["rmi", &image.reference()]).await;

    let (_catalogue, wanted) = watch::channel(Vec::new());
    let (cluster, login) = watch::channel(None);
    let config = ImagesConfig { login, ..quickly(source(&registry, None), wanted.clone()) };
    let without = watch::channel(Updates::default()).1;
    let off = ImagesConfig { updates: without, ..quickly(source(&registry, None), wanted) };
    let (running, off) = (Running::start(config), Running::start(off));
    assert_eq!(
        off.images.fetch(image.lang(), LIMIT).await.unwrap(),
        None,
        "nothing is pulled without the option"
    );
    let refused = running.images.fetch(image.lang(), LIMIT).await.unwrap_err();
    assert!(matches!(refused, ImagesError::Fetch { .. }), "{refused}");
    let password = Secret::new("hunter2");
    cluster.send_replace(Some(RegistryLogin { registry: None, user: "me".to_owned(), password }));
    let (one, two) =
        tokio::join!(running.images.fetch(image.lang(), LIMIT), running.images.fetch(image.lang(), LIMIT));
    let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
    assert_eq!((&one.reference, &two.reference), (&image.reference(), &image.reference()));
    assert_eq!(one.labels.exec_timeout, Some(Duration::from_secs(20)));

    // Whoever can't wait is told so, and the pull goes on without.
    docker(&["rmi", &image.reference()]).await;
    let waits = running.images.fetch(image.lang(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(waits, ImagesError::OnItsWay(_)), "{waits}");
    until("the image", LIMIT, async || running.images.lookup(image.lang()).await.unwrap()).await;
    running.stop().await;
    off.stop().await;
}

/// The cluster of a manager of 18.12 has a registry of its own (`--docker-registry`): it stands in the image's name, and the
/// cluster's login is for it.
#[tokio::test]
async fn an_image_of_the_cluster_s_own_registry_is_pulled_with_the_cluster_s_login() {
    let registry = Registry::start(Some("hunter2")).await;
    let image = TestImage::labelled(&["ai.backend.timeout=20"]).await;
    registry.has(&image, Some(&registry.login("hunter2"))).await;

    let own = format!("{}/lablup", registry.address());
    let _pulled = Pulled(format!("{own}/kernel-{}", image.lang()));
    let lang = format!("{own}/{}", image.lang());
    let login = |registry: &str| {
        let (user, password) = ("me".to_owned(), Secret::new("hunter2"));
        Some(RegistryLogin { registry: Some(registry.to_owned()), user, password })
    };
    let (_catalogue, wanted) = watch::channel(Vec::new());
    let (cluster, told) = watch::channel(login("registry.invalid:5000/lablup"));
    let usual = Source { address: None, docker_config: None };
    let running = Running::start(ImagesConfig { login: told, ..quickly(usual, wanted) });
    let refused = running.images.fetch(&lang, LIMIT).await.unwrap_err();
    assert!(matches!(refused, ImagesError::Fetch { .. }), "the login of another registry: {refused}");
    cluster.send_replace(login(&own));
    let found = running.images.fetch(&lang, LIMIT).await.unwrap().expect("the image is here");
    assert_eq!(found.reference, format!("{own}/kernel-{}", image.lang()));
    running.stop().await;
}
