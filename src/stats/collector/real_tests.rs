//! The collector against a container of the real Docker; needs the image `lablup/kernel-tiny`.

use std::process::Command;

use super::*;

/// A container that is removed at the end, together with its volumes.
struct Container {
    id: String,
}

impl Container {
    /// Runs a shell script in a kernel image without a runner.
    fn run(script: &str) -> Self {
        let id = docker(&["run", "-d", "lablup/kernel-tiny:demo", "sh", "-c", script]);
        Self { id }
    }

    fn target(&self, scratch: PathBuf) -> Target {
        let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &self.id]).parse().unwrap();
        Target { kernel: KernelId::random(), container: ContainerId::new(&self.id), pid, scratch }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-fv", &self.id]).output();
    }
}

fn docker(args: &[&str]) -> String {
    let output =
        Command::new("docker").args(args).output().expect("the docker command is needed for this test");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_real_container_is_measured_and_its_end_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let container = Container::run("while :; do :; done");
    let target = container.target(scratch.path().to_owned());
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
    drop(container);
    let error = collector.collect_one(&target).await.unwrap_err();
    assert!(matches!(error, CollectError::Gone { .. }), "{error}");
    assert_eq!(collector.last_seen(target.kernel), Some(sample));
}
