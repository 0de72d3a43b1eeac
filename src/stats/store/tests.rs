//! The store against a real Redis.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use super::test_server::RedisServer;
use super::*;

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
    let store = Store::start(receiver, cancel.clone(), &tracker);
    Started { store, address, cancel, tracker }
}

impl Started {
    async fn put(&self, kernel: KernelId, memory: u64, limit: Duration) -> Result<(), StoreError> {
        self.store.put(vec![(kernel, sample(memory))], Instant::now() + limit).await
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
    let redis = RedisServer::start();
    let started = start(Some(redis.address()));
    let kernels: Vec<KernelId> = (0..3).map(|_| KernelId::random()).collect();
    let samples = kernels.iter().map(|kernel| (*kernel, sample(7))).collect();
    started.store.put(samples, Instant::now() + LONG).await.unwrap();
    for kernel in kernels {
        let (hash, seconds) = redis.hash(kernel);
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
    let redis = RedisServer::start();
    let started = start(Some(redis.address()));
    let (ended, other) = (KernelId::random(), KernelId::random());
    started.store.put_last(ended, sample(100), Instant::now() + LONG).await.unwrap();
    let late = vec![(ended, sample(99)), (other, sample(1))];
    started.store.put(late, Instant::now() + LONG).await.unwrap();
    started.put(ended, 98, LONG).await.unwrap();
    assert_eq!(redis.hash(ended).0["mem_cur_bytes"], "100");
    assert_eq!(redis.hash(other).0["mem_cur_bytes"], "1");
}

#[tokio::test]
async fn a_restarted_redis_is_found_again_by_the_very_next_put() {
    let mut redis = RedisServer::start();
    let started = start(Some(redis.address()));
    let kernel = KernelId::random();
    started.put(kernel, 1, LONG).await.unwrap();
    redis.kill();
    redis.up();
    started.put(kernel, 2, LONG).await.unwrap();
    assert_eq!(redis.hash(kernel).0["mem_cur_bytes"], "2");
}

#[tokio::test]
async fn a_redis_that_is_away_fails_at_once_and_is_used_when_it_is_back() {
    let mut redis = RedisServer::start();
    let started = start(Some(redis.address()));
    let kernel = KernelId::random();
    started.put(kernel, 1, LONG).await.unwrap();
    redis.kill();
    for _ in 0..3 {
        let before = Instant::now();
        let error = started.put(kernel, 2, LONG).await.unwrap_err();
        assert!(matches!(error, StoreError::Connect { .. }), "{error}");
        assert!(before.elapsed() < LONG / 3);
    }
    redis.up();
    started.put(kernel, 3, LONG).await.unwrap();
    assert_eq!(redis.hash(kernel).0["mem_cur_bytes"], "3");
}

#[tokio::test]
async fn a_redis_that_hangs_fails_at_the_deadline_and_is_used_when_it_goes_on() {
    let redis = RedisServer::start();
    let started = start(Some(redis.address()));
    let kernel = KernelId::random();
    started.put(kernel, 1, LONG).await.unwrap();
    redis.signal(Signal::STOP);
    let before = Instant::now();
    // On the connection that was there, on a new one (which the system accepts), and several at the same time.
    for _ in 0..2 {
        let error = started.put(kernel, 2, SHORT).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout), "{error}");
    }
    let (a, b) = tokio::join!(started.put(kernel, 2, SHORT), started.put(kernel, 2, SHORT));
    assert!(matches!((a, b), (Err(StoreError::Timeout), Err(StoreError::Timeout))));
    assert!(before.elapsed() < LONG / 3);
    redis.signal(Signal::CONT);
    started.put(kernel, 3, LONG).await.unwrap();
    assert_eq!(redis.hash(kernel).0["mem_cur_bytes"], "3");
}

#[tokio::test]
async fn the_address_is_followed() {
    let started = start(None);
    let kernel = KernelId::random();
    assert!(matches!(started.put(kernel, 1, LONG).await, Err(StoreError::NoAddress)));
    let (first, second) = (RedisServer::start(), RedisServer::start());
    started.address.send_replace(Some(first.address()));
    started.put(kernel, 1, LONG).await.unwrap();
    started.address.send_replace(Some(second.address()));
    started.put(kernel, 2, LONG).await.unwrap();
    // An address that has vanished from etcd is no reason to stop.
    started.address.send_replace(None);
    started.put(kernel, 3, LONG).await.unwrap();
    assert_eq!(first.hash(kernel).0["mem_cur_bytes"], "1");
    assert_eq!(second.hash(kernel).0["mem_cur_bytes"], "3");
}

#[tokio::test]
async fn what_redis_refuses_is_told_and_spoils_nothing() {
    let redis = RedisServer::start();
    let started = start(Some(redis.address()));
    let (odd, good) = (KernelId::random(), KernelId::random());
    redis::cmd("SET").arg(odd.to_string()).arg("not a hash").exec(&mut redis.connect()).unwrap();
    let both = vec![(odd, sample(1)), (good, sample(2))];
    let error = started.store.put(both, Instant::now() + LONG).await.unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert_eq!(redis.hash(good).0["mem_cur_bytes"], "2");
    started.put(good, 3, LONG).await.unwrap();
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
    });
    let started = start(Some(HostPort { host: "localhost".into(), port }));
    let error = started.put(KernelId::random(), 1, LONG).await.unwrap_err();
    assert!(matches!(error, StoreError::Write { .. } | StoreError::Connect { .. }), "{error}");
    server.join().unwrap();
}

#[tokio::test]
async fn stopping_ends_the_task_and_answers_callers() {
    let redis = RedisServer::start();
    let started = start(Some(redis.address()));
    redis.signal(Signal::STOP);
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
