//! The collector against recorded hosts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;

const IDS: [&str; 2] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
];

/// A host with cgroup v2 in a directory.
struct Host {
    dir: tempfile::TempDir,
    targets: Vec<Target>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let targets = IDS
            .iter()
            .zip(1..)
            .map(|(id, pid)| {
                let scratch = dir.path().join("scratch").join(id);
                fs::create_dir_all(&scratch).unwrap();
                Target { kernel: KernelId::random(), container: ContainerId::new(*id), pid, scratch }
            })
            .collect();
        Self { dir, targets }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Container `n` uses that much.
    fn usage(&self, n: usize, cpu_us: u64, memory: u64) {
        let id = IDS[n];
        self.write(&format!("proc/{}/cgroup", n + 1), &format!("0::/docker/{id}\n"));
        self.write(&format!("cg/docker/{id}/cpu.stat"), &format!("usage_usec {cpu_us}\n"));
        self.write(&format!("cg/docker/{id}/memory.current"), &format!("{memory}\n"));
    }

    fn config(&self) -> CollectorConfig {
        let below = |name: &str| self.dir.path().join(name);
        // A loaded test machine must not turn into a failure.
        let read_limit = Duration::from_secs(30);
        CollectorConfig {
            proc_root: below("proc"),
            cgroup_root: below("cg"),
            read_limit,
            ..CollectorConfig::default()
        }
    }

    fn remove(&self, path: impl AsRef<Path>) {
        fs::remove_dir_all(self.dir.path().join(path)).unwrap();
    }
}

#[tokio::test]
async fn one_bad_container_does_not_spoil_the_other() {
    let host = Host::new();
    host.usage(1, 2_500, 77);
    let collector = Collector::new(host.config());
    let collected = collector.collect(&host.targets).await;
    assert!(matches!(&collected[0].1, Err(CollectError::Gone { container }) if container == "111111111111"));
    let good = collected[1].1.as_ref().unwrap();
    assert_eq!((good.cpu_used_ms, good.mem_cur_bytes), (2.5, 77));
    assert_eq!(collected[1].0, host.targets[1].kernel);
}

#[tokio::test]
async fn the_last_sample_outlives_the_container_until_it_is_forgotten() {
    let host = Host::new();
    host.usage(0, 1_000, 500);
    let collector = Collector::new(host.config());
    let target = &host.targets[0];
    collector.collect_one(target).await.unwrap();
    host.usage(0, 2_000, 300);
    let last = collector.collect_one(target).await.unwrap();
    assert_eq!((last.mem_cur_bytes, last.mem_max_bytes), (300, 500));
    host.remove(format!("cg/docker/{}", IDS[0]));
    assert!(collector.collect_one(target).await.is_err());
    assert_eq!(collector.last_seen(target.kernel), Some(last));
    collector.forget(target.kernel);
    assert_eq!(collector.last_seen(target.kernel), None);
}

#[tokio::test]
async fn a_restarted_kernel_begins_anew() {
    let host = Host::new();
    host.usage(0, 9_000, 900);
    host.usage(1, 1_000, 100);
    let collector = Collector::new(host.config());
    collector.collect_one(&host.targets[0]).await.unwrap();
    let restarted = Target { kernel: host.targets[0].kernel, ..host.targets[1].clone() };
    let sample = collector.collect_one(&restarted).await.unwrap();
    assert_eq!((sample.cpu_used_ms, sample.mem_max_bytes), (1.0, 100));
}

#[tokio::test]
async fn scratch_directories_are_measured() {
    let host = Host::new();
    host.usage(0, 1_000, 1);
    let file = host.targets[0].scratch.join("file");
    fs::write(&file, [1; 1234]).unwrap();
    let taken = fs::metadata(&file).unwrap().blocks() * 512;
    let collector = Collector::new(host.config());
    let measured = async {
        loop {
            let sample = collector.collect_one(&host.targets[0]).await.unwrap();
            if (sample.io_cur_scratch_size, sample.io_max_scratch_size) == (taken, taken) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), measured).await.unwrap();
}

#[tokio::test]
async fn docker_is_asked_where_files_are_not_to_be_seen() {
    let host = Host::new();
    host.usage(1, 1_000, 100);
    let hook: DockerHook = Arc::new(|container| {
        Box::pin(async move {
            assert_eq!(container.as_str(), IDS[0], "the other one has files");
            Ok(DockerFigures {
                cpu_total_ns: 7_000_000,
                mem_usage_bytes: Some(5),
                ..DockerFigures::default()
            })
        })
    });
    let collector = Collector::new(CollectorConfig { docker: Some(hook), ..host.config() });
    let collected = collector.collect(&host.targets).await;
    let cpu: Vec<f64> = collected.iter().map(|(_, sample)| sample.as_ref().unwrap().cpu_used_ms).collect();
    assert!((cpu[0] - 7.0).abs() < 1e-9 && (cpu[1] - 1.0).abs() < 1e-9, "{cpu:?}");
}

#[tokio::test]
async fn a_docker_that_fails_hangs_or_has_nothing_is_an_error_and_keeps_the_last_sample() {
    let host = Host::new();
    let failing: DockerHook = Arc::new(|_| Box::pin(async { Err("no such container".into()) }));
    let hanging: DockerHook = Arc::new(|_| Box::pin(std::future::pending()));
    let ended: DockerHook = Arc::new(|_| Box::pin(async { Ok(DockerFigures::default()) }));
    let error = async |hook, docker_limit| {
        let config = CollectorConfig { docker: Some(hook), docker_limit, ..host.config() };
        Collector::new(config).collect_one(&host.targets[0]).await.unwrap_err()
    };
    let long = Duration::from_secs(30);
    assert!(matches!(error(failing, long).await, CollectError::Docker { .. }));
    assert!(matches!(error(hanging, Duration::from_millis(20)).await, CollectError::DockerSlow { .. }));
    assert!(matches!(error(ended, long).await, CollectError::Gone { .. }));
}

#[tokio::test]
async fn files_that_do_not_answer_are_given_up() {
    let host = Host::new();
    host.usage(1, 1_000, 100);
    // Opening a pipe that nobody writes to blocks for ever, as a file of a hanging kernel would.
    let pipe = host.dir.path().join("proc/1/cgroup");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let collector =
        Collector::new(CollectorConfig { read_limit: Duration::from_millis(50), ..host.config() });
    // More often than there are readers: later calls wait for a reader in vain and fail in time as well.
    for _ in 0..=MAX_READERS {
        let error = collector.collect_one(&host.targets[0]).await.unwrap_err();
        assert!(matches!(error, CollectError::Slow { .. }), "{error}");
    }
    // A writer sets the readers free: they find an empty file, and collecting works again.
    let collected = async {
        loop {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            drop(rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()));
            if collector.collect_one(&host.targets[1]).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), collected).await.unwrap();
}
