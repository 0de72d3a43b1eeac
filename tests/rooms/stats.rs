//! Statistics: the store against a real Redis, the collector against a container of the real Docker.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use backendai_agent::ids::{ContainerId, InstanceId, KernelId};
use backendai_agent::rooms::address::HostPort;
use backendai_agent::rooms::stats::{
    CollectError, Collector, CollectorConfig, RedisAccess, Store, StoreError, Target, run_reporter,
};
use backendai_agent::wire::sample::Sample;
use redis::Commands;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::docker::{TestName, real};
use super::support::services::Service;

/// A Redis of the test's own.
struct RedisServer {
    service: Service,
    _dir: TempDir,
}

impl RedisServer {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let service = Service::redis(dir.path());
        service.ready().await;
        Self { service, _dir: dir }
    }

    fn address(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.service.port() }
    }

    fn connect(&self) -> redis::Connection {
        let url = format!("redis://127.0.0.1:{}/0", self.service.port());
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// The hash at `key` and the seconds it has left.
    fn hash(&self, key: &impl ToString) -> (BTreeMap<String, String>, i64) {
        let mut connection = self.connect();
        let key = key.to_string();
        let hash = connection.hgetall(&key).unwrap();
        (hash, redis::cmd("TTL").arg(&key).query(&mut connection).unwrap())
    }
}

/// A store with the sender of its address, stopped with it.
struct Started {
    store: Store,
    address: watch::Sender<Option<HostPort>>,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

fn start(address: Option<HostPort>) -> Started {
    let (address, receiver) = watch::channel(address);
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let store = Store::start(receiver, RedisAccess::default(), cancel.clone(), &tracker);
    Started { store, address, cancel, tracker }
}

impl Started {
    async fn put(&self, kernel: KernelId, memory: u64, limit: Duration) -> Result<(), StoreError> {
        self.store.put(vec![(kernel, sample(memory))], None, Instant::now() + limit).await
    }
}

fn sample(memory: u64) -> Sample {
    Sample { cpu_used_ms: 1.5, mem_cur_bytes: memory, mem_max_bytes: 9, ..Sample::default() }
}

/// Long enough for any machine; nothing that works waits for it.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn kernels_are_stored_as_the_manager_reads_them() {
    let redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    let kernels: Vec<KernelId> = (0..3).map(|_| KernelId::random()).collect();
    let samples = kernels.iter().map(|kernel| (*kernel, sample(7))).collect();
    started.store.put(samples, None, Instant::now() + LONG).await.unwrap();
    for kernel in kernels {
        let (hash, seconds) = redis.hash(&kernel);
        let names: Vec<&str> = hash.keys().map(String::as_str).collect();
        let expected = [
            "cpu_used",
            "io_cur_scratch_size",
            "io_max_scratch_size",
            "io_read_bytes",
            "io_write_bytes",
            "mem_cur_bytes",
            "mem_max_bytes",
            "net_rx_bytes",
            "net_tx_bytes",
        ];
        assert_eq!(names, expected);
        assert_eq!((hash["cpu_used"].as_str(), hash["mem_cur_bytes"].as_str()), ("1.5", "7"));
        assert!((25..=30).contains(&seconds), "{seconds}");
    }
}

#[tokio::test]
async fn a_late_sample_does_not_overwrite_the_last_one() {
    let redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    let (ended, other) = (KernelId::random(), KernelId::random());
    started.store.put_last(vec![(ended, sample(100))], Instant::now() + LONG).await.unwrap();
    let late = vec![(ended, sample(99)), (other, sample(1))];
    started.store.put(late, None, Instant::now() + LONG).await.unwrap();
    started.put(ended, 98, LONG).await.unwrap();
    assert_eq!(redis.hash(&ended).0["mem_cur_bytes"], "100");
    assert_eq!(redis.hash(&other).0["mem_cur_bytes"], "1");
}

#[tokio::test]
async fn a_restarted_redis_is_found_again_by_the_very_next_put() {
    let mut redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    let kernel = KernelId::random();
    started.put(kernel, 1, LONG).await.unwrap();
    redis.service.kill();
    redis.service.restart().await;
    started.put(kernel, 2, LONG).await.unwrap();
    assert_eq!(redis.hash(&kernel).0["mem_cur_bytes"], "2");
}

#[tokio::test]
async fn a_redis_that_is_away_fails_at_once_and_is_used_when_it_is_back() {
    let mut redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    let kernel = KernelId::random();
    started.put(kernel, 1, LONG).await.unwrap();
    redis.service.kill();
    for _ in 0..3 {
        let before = Instant::now();
        let error = started.put(kernel, 2, LONG).await.unwrap_err();
        assert!(matches!(error, StoreError::Connect { .. }), "{error}");
        assert!(before.elapsed() < LONG / 3);
    }
    redis.service.restart().await;
    started.put(kernel, 3, LONG).await.unwrap();
    assert_eq!(redis.hash(&kernel).0["mem_cur_bytes"], "3");
}

#[tokio::test]
async fn a_redis_that_hangs_fails_at_the_deadline_and_is_used_when_it_goes_on() {
    let redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    let kernel = KernelId::random();
    started.put(kernel, 1, LONG).await.unwrap();
    redis.service.pause().await;
    let before = Instant::now();
    // On the connection that was there, on a new one (which the system accepts), and several at the same time.
    for _ in 0..2 {
        let error = started.put(kernel, 2, SHORT).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout), "{error}");
    }
    let (a, b) = tokio::join!(started.put(kernel, 2, SHORT), started.put(kernel, 2, SHORT));
    assert!(matches!((a, b), (Err(StoreError::Timeout), Err(StoreError::Timeout))));
    assert!(before.elapsed() < LONG / 3);
    redis.service.resume();
    started.put(kernel, 3, LONG).await.unwrap();
    assert_eq!(redis.hash(&kernel).0["mem_cur_bytes"], "3");
}

#[tokio::test]
async fn the_address_is_followed() {
    let started = start(None);
    let kernel = KernelId::random();
    assert!(matches!(started.put(kernel, 1, LONG).await, Err(StoreError::NoAddress)));
    let (first, second) = (RedisServer::start().await, RedisServer::start().await);
    started.address.send_replace(Some(first.address()));
    started.put(kernel, 1, LONG).await.unwrap();
    started.address.send_replace(Some(second.address()));
    started.put(kernel, 2, LONG).await.unwrap();
    // An address that has vanished from etcd is no reason to stop.
    started.address.send_replace(None);
    started.put(kernel, 3, LONG).await.unwrap();
    assert_eq!(first.hash(&kernel).0["mem_cur_bytes"], "1");
    assert_eq!(second.hash(&kernel).0["mem_cur_bytes"], "3");
}

#[tokio::test]
async fn what_redis_refuses_is_told_and_spoils_nothing() {
    let redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    let (odd, good) = (KernelId::random(), KernelId::random());
    redis::cmd("SET").arg(odd.to_string()).arg("not a hash").exec(&mut redis.connect()).unwrap();
    let both = vec![(odd, sample(1)), (good, sample(2))];
    let error = started.store.put(both, None, Instant::now() + LONG).await.unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert_eq!(redis.hash(&good).0["mem_cur_bytes"], "2");
    started.put(good, 3, LONG).await.unwrap();
}

/// The pipeline is longer than what Redis reads of a stranger: it would hang up on it and say nothing.
#[tokio::test]
async fn a_redis_that_wants_a_password_is_told_as_that_and_used_when_it_wants_none() {
    let redis = RedisServer::start().await;
    let kernel = KernelId::random();
    let mut admin = redis.connect();
    let mut require = |password: &str| {
        redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).exec(&mut admin).unwrap();
    };
    require("sesame");
    let started = start(Some(redis.address()));
    for _ in 0..2 {
        let error = started.put(kernel, 1, LONG).await.unwrap_err();
        assert!(matches!(error, StoreError::Password { .. }), "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("NOAUTH") && !error.to_string().contains("sesame"), "{error}: {cause}");
    }
    require("");
    started.put(kernel, 2, LONG).await.unwrap();
    assert_eq!(redis.hash(&kernel).0["mem_cur_bytes"], "2");
}

#[tokio::test]
async fn stopping_ends_the_task_and_answers_callers() {
    let redis = RedisServer::start().await;
    let started = start(Some(redis.address()));
    redis.service.pause().await;
    let waiting = started.put(KernelId::random(), 1, LONG);
    let stop = async {
        started.cancel.cancel();
        started.tracker.close();
        tokio::time::timeout(LONG, started.tracker.wait()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, stop);
    assert!(matches!(answer, Err(StoreError::Stopped)));
    assert!(matches!(started.put(KernelId::random(), 1, LONG).await, Err(StoreError::Stopped)));
}

#[tokio::test]
async fn samples_of_the_targets_of_the_moment_reach_redis_until_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/7/cgroup", "0::/docker/cafe\n");
    write("cg/docker/cafe/memory.current", "1\n");
    let config = CollectorConfig {
        proc_root: dir.path().join("proc"),
        cgroup_root: dir.path().join("cg"),
        ..CollectorConfig::default()
    };
    let redis = RedisServer::start().await;
    let (_address, address) = watch::channel(Some(redis.address()));
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let store = Store::start(address, RedisAccess::default(), cancel.clone(), &tracker);
    let (targets, receiver) = watch::channel(Arc::new(Vec::new()));
    let collector = Arc::new(Collector::new(config));
    let (period, instance) = (Duration::from_millis(20), InstanceId::new("i-of-the-test"));
    tracker.spawn(run_reporter(collector, store, instance.clone(), receiver, period, cancel.clone()));

    let target = |container: &str| Target {
        kernel: KernelId::random(),
        container: ContainerId::new(container),
        pid: 7,
        scratch: dir.path().join("scratch"),
    };
    let (good, gone) = (target("cafe"), target("dead"));
    targets.send_replace(Arc::new(vec![gone.clone(), good.clone()]));
    for memory in ["2", "3"] {
        write("cg/docker/cafe/memory.current", memory);
        let seen = async {
            while redis.hash(&good.kernel).0.get("mem_cur_bytes").map(String::as_str) != Some(memory) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
    }
    assert!(redis.hash(&gone.kernel).0.is_empty());
    let together = redis.hash(&instance).0;
    assert_eq!(together.get("mem_cur_bytes").map(String::as_str), Some("3"));
    assert!(together.get("cpu_pct").is_some_and(|pct| pct.parse::<f64>().is_ok()), "{together:?}");

    cancel.cancel();
    tracker.close();
    tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.unwrap();
}

#[tokio::test]
async fn a_real_container_is_measured_and_its_end_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let (docker, name) = (real(), TestName::new("measured"));
    let container = name.run(false, "while :; do :; done").await;
    let pid = docker.inspect(container.as_str()).await.unwrap().unwrap().pid.unwrap();
    let target = Target {
        kernel: KernelId::random(),
        container: container.clone(),
        pid,
        scratch: scratch.path().to_owned(),
    };
    let collector = Collector::new(CollectorConfig::default());
    let first = collector.collect_one(&target).await.unwrap();
    let grown = async {
        loop {
            let sample = collector.collect_one(&target).await.unwrap();
            assert!(sample.cpu_used_ms >= first.cpu_used_ms);
            assert!(sample.mem_max_bytes >= sample.mem_cur_bytes);
            let busy = sample.cpu_used_ms > first.cpu_used_ms + 50.0;
            // Neighbour discovery of IPv6 and the bridge send something to every new interface.
            if busy && sample.mem_cur_bytes > 0 && sample.net_rx_bytes > 0 {
                return sample;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let sample = tokio::time::timeout(Duration::from_secs(60), grown).await.unwrap();
    docker.remove(&container).await.unwrap();
    let error = collector.collect_one(&target).await.unwrap_err();
    assert!(matches!(error, CollectError::Gone { .. }), "{error}");
    assert_eq!(collector.last_seen(target.kernel), Some(sample));
}
