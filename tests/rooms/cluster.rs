//! The cluster against a real etcd that is killed, stopped, emptied and compacted.

use std::future::Future;
use std::time::{Duration, Instant};

use backendai_agent::ids::InstanceId;
use backendai_agent::rooms::address::HostPort;
use backendai_agent::rooms::cluster::{
    Catalogue, Cluster, ClusterConfig, ClusterError, ClusterStatus, EtcdAccess, Link, ManagerSettings,
    Presence, Snapshot, Step,
};
use etcd_client::{Client, DeleteOptions};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::services::Service;

const ROOT: &str = "/sorna/test/";
const AGENT: &str = "nodes/agents/i-a";
const AGENT_IP: &str = "nodes/agents/i-a/ip";

/// Bounds every wait of these tests; generous, since a laden machine starts etcd slowly.
async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(Duration::from_secs(30), wait).await else {
        panic!("waited too long: {what}");
    };
    value
}

/// An etcd of the test's own.
struct EtcdServer {
    service: Service,
    host: &'static str,
    _dir: TempDir,
}

impl EtcdServer {
    /// One that has its address but does not run yet.
    fn prepare(host: &'static str) -> Self {
        let dir = TempDir::new().unwrap();
        Self { service: Service::etcd_at(host, dir.path()), host, _dir: dir }
    }

    /// One that answers.
    async fn start() -> Self {
        let mut server = Self::prepare("127.0.0.1");
        server.service.restart().await;
        server
    }

    fn address(&self) -> HostPort {
        HostPort { host: self.host.to_owned(), port: self.service.port() }
    }

    /// A client of the tests' own.
    async fn client(&self) -> Client {
        Client::connect([self.service.url()], None).await.unwrap()
    }
}

struct Node {
    cluster: Cluster,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Node {
    fn start(endpoints: Vec<HostPort>) -> Self {
        let config = ClusterConfig {
            call_deadline: Duration::from_secs(1),
            check_every: Duration::from_secs(1),
            ..ClusterConfig::new(endpoints, "test")
        };
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let cluster = Cluster::start(config, &InstanceId::new("i-a"), &cancel, &tracker);
        Self { cluster, cancel, tracker }
    }

    async fn status(&self, what: &str, wanted: impl FnMut(&ClusterStatus) -> bool) -> ClusterStatus {
        soon(what, self.cluster.status().wait_for(wanted)).await.unwrap().clone()
    }

    async fn settings(&self, what: &str, wanted: impl Fn(&ManagerSettings) -> bool) -> ManagerSettings {
        let mut settings = self.cluster.settings();
        let wait = settings.wait_for(|settings| settings.as_ref().is_some_and(&wanted));
        soon(what, wait).await.unwrap().clone().unwrap()
    }

    async fn publish(&self, presence: Presence) {
        self.cluster.set_presence(presence);
        soon("the presence is published", self.cluster.presence_published()).await;
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        soon("the watcher ends", self.tracker.wait()).await;
    }
}

fn running() -> Presence {
    Presence::Running { ip: "10.0.0.7".into() }
}

async fn put(client: &mut Client, key: &str, value: &str) {
    client.put(format!("{ROOT}{key}"), value, None).await.unwrap();
}

async fn get(client: &mut Client, key: &str) -> Option<String> {
    let mut answer = client.get(format!("{ROOT}{key}"), None).await.unwrap();
    answer.take_kvs().pop().map(|kv| kv.value_str().unwrap().to_owned())
}

async fn delete_prefix(client: &mut Client, prefix: &str) {
    let options = DeleteOptions::new().with_prefix();
    client.delete(format!("{ROOT}{prefix}"), Some(options)).await.unwrap();
}

async fn wait_for_value(client: &mut Client, key: &str, value: &str) {
    let wait = async {
        while get(client, key).await.as_deref() != Some(value) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(&format!("{key} = {value}"), wait).await;
}

async fn register_manager(client: &mut Client, id: &str) {
    put(client, "nodes/redis", "127.0.0.1:6379").await;
    put(client, "nodes/manager", id).await;
    put(client, "nodes/manager/event_addr", "127.0.0.1:5002").await;
}

#[tokio::test]
async fn settings_are_waited_for_and_followed_whatever_is_absent_or_bad() {
    let mut server = EtcdServer::prepare("127.0.0.1");
    // By name, to have the name looked up.
    let node = Node::start(vec![HostPort { host: "localhost".into(), port: server.address().port }]);
    let waiting = tokio::spawn({
        let cluster = node.cluster.clone();
        async move { cluster.wait_for_manager().await }
    });
    assert!(!node.cluster.status().borrow().etcd_reachable);

    server.service.restart().await;
    let status = node.status("etcd is found", |status| status.etcd_reachable).await;
    assert_eq!(status.gaps.missing, ["nodes/manager", "nodes/manager/event_addr", "nodes/redis"]);
    assert!(!status.manager_present);

    let mut client = server.client().await;
    put(&mut client, "nodes/redis", "nonsense").await;
    put(&mut client, "nodes/manager/event_addr", "127.0.0.1:5002").await;
    put(&mut client, "nodes/manager", "i-manager").await;
    let status = node
        .status("the bad value is seen", |status| status.manager_present && !status.gaps.bad.is_empty())
        .await;
    assert!(
        status.gaps.to_string().contains("nodes/redis: \"nonsense\" is not host:port"),
        "{}",
        status.gaps
    );
    assert!(node.cluster.settings().borrow().is_none());

    put(&mut client, "nodes/redis", "127.0.0.1:6379").await;
    let settings = soon("the manager is found", waiting).await.unwrap();
    assert_eq!(settings.manager_id, "i-manager");
    assert_eq!(settings.volume_mount.to_str(), Some("/mnt"));

    put(&mut client, "volumes/_mount", "/srv").await;
    put(&mut client, "nodes/redis", "redis.lan:7000").await;
    let settings = node.settings("Redis moved", |settings| settings.redis.port == 7000).await;
    assert_eq!(settings.volume_mount.to_str(), Some("/srv"));

    delete_prefix(&mut client, "nodes/manager").await;
    node.status("the manager left", |status| !status.manager_present).await;
    let settings = node.settings("its addresses stay", |_| true).await;
    assert_eq!(settings.event_addr.port, 5002);

    put(&mut client, "nodes/manager/event_addr", "127.0.0.1:5003").await;
    put(&mut client, "nodes/manager", "i-other").await;
    let new = |settings: &ManagerSettings| settings.manager_id == "i-other";
    assert_eq!(node.settings("the manager is back", new).await.event_addr.port, 5003);
    node.stop().await;
}

#[tokio::test]
async fn presence_is_published_in_order_and_again_when_it_vanished() {
    let server = EtcdServer::start().await;
    let mut client = server.client().await;
    put(&mut client, "nodes/agents/i-a2", "running").await;
    let mut history = client.watch(format!("{ROOT}{AGENT}"), None).await.unwrap();
    let mut ip_history = client.watch(format!("{ROOT}{AGENT_IP}"), None).await.unwrap();

    let node = Node::start(vec![server.address()]);
    soon("nothing to publish", node.cluster.presence_published()).await;
    node.publish(Presence::Starting).await;
    assert_eq!(get(&mut client, AGENT).await.as_deref(), Some("starting"));
    assert_eq!(get(&mut client, AGENT_IP).await, None);
    node.publish(running()).await;
    assert_eq!(get(&mut client, AGENT).await.as_deref(), Some("running"));
    assert_eq!(get(&mut client, AGENT_IP).await.as_deref(), Some("10.0.0.7"));

    let mut seen = Vec::new();
    while seen.len() < 2 {
        let answer = soon("state events", history.message()).await.unwrap().unwrap();
        seen.extend(answer.events().iter().map(|e| e.kv().unwrap().value_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ["starting", "running"]);
    let mut ip_events = 0;
    while ip_events < 1 {
        ip_events += soon("ip events", ip_history.message()).await.unwrap().unwrap().events().len();
    }

    // Everything under nodes/agents goes, the other agent too; ours comes back, once per check interval.
    delete_prefix(&mut client, "nodes/agents").await;
    wait_for_value(&mut client, AGENT_IP, "10.0.0.7").await;
    let repaired = Instant::now();
    put(&mut client, AGENT, "rubbish").await;
    wait_for_value(&mut client, AGENT, "running").await;
    let pause = repaired.elapsed();
    assert!(pause > Duration::from_millis(700), "two agents of one id would hammer etcd: {pause:?}");
    node.stop().await;
}

#[tokio::test]
async fn retract_deletes_this_agents_keys_and_no_others() {
    let server = EtcdServer::start().await;
    let mut client = server.client().await;
    put(&mut client, "nodes/agents/i-a2", "running").await;
    put(&mut client, "nodes/agents/i-a2/ip", "10.0.0.8").await;
    register_manager(&mut client, "i-manager").await;

    let node = Node::start(vec![server.address()]);
    node.publish(running()).await;
    node.settings("settings", |_| true).await;
    // The agent's own stop may come first.
    node.cancel.cancel();
    node.cluster.retract(Duration::from_secs(20)).await.unwrap();
    assert_eq!(get(&mut client, AGENT).await, None);
    assert_eq!(get(&mut client, AGENT_IP).await, None);
    assert_eq!(get(&mut client, "nodes/agents/i-a2").await.as_deref(), Some("running"));
    assert_eq!(get(&mut client, "nodes/agents/i-a2/ip").await.as_deref(), Some("10.0.0.8"));

    // The handle stays useful: settings are readable, receivers do not see a closed channel.
    let mut settings = node.cluster.settings();
    assert!(settings.borrow_and_update().is_some());
    assert!(settings.has_changed().is_ok());
    node.cluster.set_presence(Presence::Starting);
    node.stop().await;
    assert_eq!(get(&mut client, AGENT).await, None);
}

#[tokio::test]
async fn a_retract_without_etcd_fails_in_time_and_ends_the_watcher() {
    let server = EtcdServer::prepare("127.0.0.1");
    let node = Node::start(vec![server.address()]);
    node.cluster.set_presence(Presence::Starting);
    let started = Instant::now();
    let error = node.cluster.retract(Duration::from_millis(500)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    let ClusterError::Retract { source: Some(source), .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("--etcd-addr"), "{source}");
    node.tracker.close();
    soon("the watcher ends", node.tracker.wait()).await;
}

#[tokio::test]
async fn a_restart_of_etcd_is_survived_with_its_data_and_without() {
    let mut server = EtcdServer::start().await;
    let node = Node::start(vec![server.address()]);
    register_manager(&mut server.client().await, "i-manager").await;
    node.publish(running()).await;
    node.settings("first settings", |_| true).await;

    server.service.kill();
    node.status("etcd is lost", |status| !status.etcd_reachable).await;
    // As long an absence as an operator's restart, through which it stays lost and the settings stay.
    let mut status = node.cluster.status();
    let back = status.wait_for(|status| status.etcd_reachable);
    assert!(tokio::time::timeout(Duration::from_secs(10), back).await.is_err());
    assert_eq!(node.cluster.settings().borrow().as_ref().unwrap().redis.port, 6379);
    server.service.restart().await;
    node.status("etcd is back", |status| status.etcd_reachable && status.manager_present).await;
    let mut client = server.client().await;
    put(&mut client, "nodes/redis", "127.0.0.1:7001").await;
    node.settings("changes are seen again", |settings| settings.redis.port == 7001).await;
    assert_eq!(get(&mut client, AGENT).await.as_deref(), Some("running"));

    server.service.kill();
    server.service.lose_data();
    server.service.restart().await;
    node.status("the data is gone", |status| status.etcd_reachable && !status.manager_present).await;
    let mut client = server.client().await;
    wait_for_value(&mut client, AGENT, "running").await;
    wait_for_value(&mut client, AGENT_IP, "10.0.0.7").await;
    put(&mut client, "nodes/redis", "127.0.0.1:7002").await;
    node.settings("the new store is watched", |settings| settings.redis.port == 7002).await;
    node.stop().await;
}

#[tokio::test]
async fn a_hung_etcd_is_noticed_and_nobody_is_blocked() {
    let server = EtcdServer::start().await;
    let mut client = server.client().await;
    register_manager(&mut client, "i-manager").await;
    let node = Node::start(vec![server.address()]);
    node.settings("settings", |_| true).await;

    server.service.pause().await;
    let started = Instant::now();
    node.status("the hang is noticed", |status| !status.etcd_reachable).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let error = soon("the catalogue fails", node.cluster.catalogue()).await.unwrap_err();
    assert!(matches!(error, ClusterError::Late { step: Step::Catalogue, .. }), "{error}");
    assert!(node.cluster.settings().borrow().is_some());

    server.service.resume();
    node.status("etcd is back", |status| status.etcd_reachable).await;
    put(&mut client, "nodes/redis", "127.0.0.1:7003").await;
    node.settings("changes are seen again", |settings| settings.redis.port == 7003).await;
    node.stop().await;
}

#[tokio::test]
async fn a_compaction_ends_an_old_watch_and_the_watcher_goes_on() {
    let server = EtcdServer::start().await;
    let mut client = server.client().await;
    register_manager(&mut client, "i-manager").await;
    let node = Node::start(vec![server.address()]);
    node.settings("settings", |_| true).await;

    let keys = [format!("{ROOT}nodes/redis")];
    let mut link =
        Link::open(&server.address(), Duration::from_secs(5), &EtcdAccess::default()).await.unwrap();
    let now = link.read(&keys).await.unwrap();
    client.compact(now.revision, None).await.unwrap();
    let past = Snapshot { revision: 1, ..link.read(&keys).await.unwrap() };
    let mut watching = link.watch(&keys, &past).await.unwrap();
    assert!(watching.covers(&past) && watching.covers(&now));
    assert!(
        !watching.covers(&Snapshot { revision: 0, ..link.read(&keys).await.unwrap() }),
        "gone back in time"
    );
    assert!(!watching.covers(&Snapshot { cluster: 1, ..link.read(&keys).await.unwrap() }), "another store");
    let error = soon("the watch ends", watching.changed(1)).await.unwrap_err();
    assert!(
        matches!(error, ClusterError::WatchEnded { .. }) && error.to_string().contains("compacted"),
        "{error}"
    );

    put(&mut client, "nodes/redis", "127.0.0.1:7004").await;
    node.settings("changes are still seen", |settings| settings.redis.port == 7004).await;
    node.stop().await;
}

#[tokio::test]
async fn the_next_server_is_used_when_one_hangs_or_is_absent() {
    // IPv6 literally, absent at first, and one that is never there.
    let absent = EtcdServer::prepare("127.0.0.1");
    let hung = EtcdServer::start().await;
    let mut good = EtcdServer::prepare("::1");
    good.service.restart().await;
    hung.service.pause().await;
    register_manager(&mut good.client().await, "i-manager").await;
    let node = Node::start(vec![absent.address(), hung.address(), good.address()]);
    node.settings("the third server serves", |_| true).await;
    assert!(soon("the catalogue", node.cluster.catalogue()).await.is_ok());
    soon("the keys go", node.cluster.retract(Duration::from_secs(20))).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn the_catalogue_is_read_and_odd_entries_spoil_nothing() {
    let server = EtcdServer::start().await;
    let mut client = server.client().await;
    let node = Node::start(vec![server.address()]);
    assert_eq!(node.cluster.catalogue().await.unwrap(), Catalogue::default());
    for (key, value) in [
        ("images/python", "1"),
        ("images/python/mem", "512"),
        ("images/python/tags/3.6-debian", "ca7b9f52b6c2"),
        ("images/python/tags/3.6", ":3.6-debian"),
        ("images/_aliases/py", "python:3.6"),
    ] {
        put(&mut client, key, value).await;
    }
    client.put(format!("{ROOT}images/odd/mem"), vec![0xff, 0xfe], None).await.unwrap();
    let catalogue = node.cluster.catalogue().await.unwrap();
    assert_eq!(catalogue.resolve("py").unwrap().hash, "ca7b9f52b6c2");
    assert_eq!(catalogue.images["python"].mem_mib, Some(512));
    assert_eq!(catalogue.odd.len(), 1);
    node.stop().await;
}
