//! The cluster without any server; `tests/rooms/cluster.rs` has it with a real one.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::Link;
use super::*;
use crate::ids::InstanceId;

#[tokio::test]
async fn without_any_server_it_waits_and_says_so() {
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let config = ClusterConfig::new(Vec::new(), "test");
    let cluster = Cluster::start(config, &InstanceId::new("i-a"), &cancel, &tracker);
    let error = cluster.catalogue().await.unwrap_err();
    assert!(error.to_string().contains("--etcd-addr"), "{error}");
    assert!(!cluster.status().borrow().etcd_reachable);
    cancel.cancel();
    tracker.close();
    tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.expect("the watcher ends");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_rust_s_own_words() {
    let nobody = "127.0.0.1:9".parse().unwrap();
    let limit = Duration::from_secs(20);
    let mut link = Link::open(&nobody, limit, &EtcdAccess::default()).await.unwrap();
    let text = link.read(&["key".to_owned()]).await.err().unwrap().to_string();
    assert!(text.contains("tcp connect error: Connection refused (os error 111)"), "{text}");
    for rust in ["Error(", "Os {", "source:", "code:"] {
        assert!(!text.contains(rust), "{rust} is in {text}");
    }
}
