//! A newer image comes from a registry while sessions of the older one go on (PROTOCOL section 12, item 33).

use crate::support::docker::inspect;
use crate::support::manager::images_told;
use crate::support::registry::{Registry, old_and_new};
use crate::support::{Bed, Kernel, secs};

/// Waits for a heartbeat whose list of images has this one.
async fn told(bed: &Bed, name_tag: &str, id: &str) {
    let fits = |beat: &crate::support::manager::Event| {
        images_told(&beat.raw[0]).iter().any(|(name, found)| name == name_tag && found == id)
    };
    bed.wait_event("instance_heartbeat", fits, secs(40)).await;
}

async fn image_of(kernel: &Kernel) -> String {
    inspect(kernel.container()).await["Image"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_that_the_catalogue_wants_newer_arrives_beside_a_session_of_the_old_one() {
    let bed = Bed::start().await;
    let registry = Registry::start(None).await;
    let (image, old, new) = old_and_new(&registry, None).await;
    let (name, tag) = image.lang().split_once(':').unwrap();
    let wanted = bed.key(&format!("images/{name}/tags/{tag}"));
    let args = ["--auto-update-images", "--docker-registry", &registry.address(), "--create-deadline", "9"];
    let mut agent = bed.agent(&args).await;
    told(&bed, image.lang(), &old).await;
    let first = agent.create(image.lang()).await;

    bed.etcd.etcdctl(&["put", &wanted, &new.trim_start_matches("sha256:")[..12]]).await;
    told(&bed, image.lang(), &new).await;
    let second = agent.create(image.lang()).await;
    assert_eq!((image_of(&first).await, image_of(&second).await), (old.clone(), new.clone()));
    let log = agent.output();
    assert!(log.contains("pulling a newer image") && log.contains("updated an image"), "{log}");

    // The old session is one as before, also for the agent's next life.
    agent.kill9();
    let agent = bed.agent(&args).await;
    assert_eq!(inspect(first.container()).await["State"]["Running"], true);
    for kernel in [&first, &second] {
        kernel.destroy().await;
        bed.wait_end(&kernel.id, secs(20)).await;
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
}
