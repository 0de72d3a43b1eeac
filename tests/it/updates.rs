//! Images come from a registry: a newer one while sessions of the older one go on (PROTOCOL section 12, item 33), and one that
//! is missing while a create waits for it (item 7).

use serde_json::{Value as Json, json};

use crate::support::docker::{TestImage, docker, inspect};
use crate::support::manager::images_told;
use crate::support::registry::{Pulled, Registry, old_and_new};
use crate::support::{Bed, Kernel, new_id, secs, until};

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

/// A create as managers from 1.4 on write it; with `tpu_slot`, as that of 18.12, which waits for 30 s.
fn config(lang: &str, of_18_12: bool) -> Json {
    let mut limits = json!({ "mem_slot": "0.0625", "cpu_slot": "1.00", "gpu_slot": "0" });
    if of_18_12 {
        limits["tpu_slot"] = json!("0");
    }
    json!({ "lang": lang, "limits": limits, "mounts": [], "environ": {} })
}

/// The cluster has a registry of its own, whose password is in etcd.
#[tokio::test]
async fn an_image_that_is_missing_comes_inside_the_create_of_a_manager_that_waits_for_it() {
    let bed = Bed::start().await;
    let registry = Registry::start(Some("hunter2")).await;
    let image = TestImage::labelled(&["ai.backend.timeout=20"]).await;
    registry.has(&image, Some(&registry.login("hunter2"))).await;
    let own = format!("{}/lablup", registry.address());
    let lang = format!("{own}/{}", image.lang());
    let pulled = Pulled(format!("{own}/kernel-{}", image.lang()));

    let mut plain = bed.agent(&[]).await;
    let refused = plain.call("create_kernel", json!([new_id(), config(&lang, true)])).await.unwrap_err();
    assert!(refused.text().contains("is not on this machine; pull it here"), "{refused:?}");
    plain.stop().await;

    let agent = bed.agent(&["--auto-update-images"]).await;
    let refused = agent.call("create_kernel", json!([new_id(), config(&lang, false)])).await.unwrap_err();
    assert!(refused.text().contains("is not on this machine"), "3 s are too few: {refused:?}");
    let refused = agent.call("create_kernel", json!([new_id(), config(&lang, true)])).await.unwrap_err();
    assert!(refused.text().contains("could not be pulled"), "{refused:?}");
    for (key, value) in [("", own.as_str()), ("/user", "me"), ("/password", "hunter2")] {
        bed.etcd.etcdctl(&["put", &bed.key(&format!("nodes/docker_registry{key}")), value]).await;
    }
    let created = until("a create once the agent has read the password", secs(20), async || {
        agent.call("create_kernel", json!([new_id(), config(&lang, true)])).await.ok()
    })
    .await;
    let container = created["container_id"].as_str().unwrap();
    assert_eq!(inspect(container).await["Config"]["Image"], pulled.0);
    let log = agent.output();
    assert!(log.contains("pulled an image that a session needs") && !log.contains("hunter2"), "{log}");
    assert_eq!(agent.call("destroy_kernel", json!([created["id"]])).await.map(|_| ()), Ok(()));
    docker(&["image", "inspect", &pulled.0]).await;
}
