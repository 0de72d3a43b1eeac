//! Health and figures, from the first moment to a kernel's end.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::http::get;
use crate::support::ports::Port;
use crate::support::{Bed, kernel, new_id, secs, until};

/// The value of the series that is written so, without the prefix.
fn value(page: &str, series: &str) -> Option<f64> {
    let found = page
        .lines()
        .find_map(|line| line.strip_prefix("backendai_agent_")?.strip_prefix(series)?.strip_prefix(' '));
    found.map(|value| value.parse().unwrap())
}

/// `promtool check metrics` finds nothing to say; where it is not installed, nothing is shown.
async fn promtool_is_content(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.kill_on_drop(true).spawn() else {
        return eprintln!("promtool (Debian: prometheus) is not installed");
    };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let ended = tokio::time::timeout(secs(20), promtool.wait_with_output()).await.unwrap().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn the_alerts_are_what_their_tests_say() {
    let Ok(output) =
        Command::new("promtool").args(["test", "rules", "tests/alerts/alerts_test.yml"]).output().await
    else {
        return eprintln!("promtool (Debian: prometheus) is not installed");
    };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn pages_are_served_before_docker_etcd_or_a_manager_are_there() {
    let mut bed = Bed::without_manager().await;
    bed.etcd.kill();
    bed.redis.kill();
    // Takes connections and never says a word.
    let docker = bed.outside().join("docker.sock");
    let _hung = tokio::net::UnixListener::bind(&docker).unwrap();
    let (docker, port) = (format!("unix://{}", docker.display()), Port::lease());
    let address = format!("127.0.0.1:{}", port.number());
    let mut agent = bed.spawn_agent(&["--docker-host", &docker, "--metrics-addr", &address]);
    let healthy = until("health", secs(5), async || get(port.number(), "/healthz").await).await;
    assert_eq!(healthy, (200, "ok\n".to_owned()));
    until("what the start waits for", secs(5), async || {
        let (status, text) = get(port.number(), "/readyz").await?;
        assert_eq!(status, 503, "{text}");
        text.contains("waiting for Docker").then_some(())
    })
    .await;
    let (status, page) = get(port.number(), "/metrics").await.unwrap();
    assert_eq!(status, 200);
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&page, &version), Some(1.0), "{page}");
    assert_eq!(value(&page, "kernel_creates_total{result=\"done\"}"), Some(0.0), "{page}");
    assert!(page.contains("\nprocess_open_fds "), "{page}");
    promtool_is_content(&page).await;
    assert!(agent.stop().await.success(), "{}", agent.output());
}

#[tokio::test]
async fn figures_follow_a_kernel_from_its_create_to_its_end() {
    let bed = Bed::start().await;
    let port = Port::lease();
    let address = format!("127.0.0.1:{}", port.number());
    let agent =
        bed.agent(&["--metrics-addr", &address, "--stats-interval", "500ms", "--create-deadline", "9"]).await;
    let page = async || get(port.number(), "/metrics").await.unwrap().1;
    let kernel = agent.create_python().await;
    kernel.run("sum(range(10 ** 6)); print(1)").await;
    let refused = agent.call("create_kernel", json!([new_id(), kernel::config("none:1")])).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(agent.call("dance", json!([])).await.is_err());

    let of = |name: &str| format!("{name}{{kernel=\"{}\"}}", kernel.id);
    // Sampled every 5 s.
    let seen = until("the kernel's figures", secs(15), async || {
        let page = page().await;
        let is_measured = value(&page, &of("kernel_cpu_seconds_total"))? > 0.0;
        (is_measured && value(&page, &of("kernel_running"))? == 0.0).then_some(page)
    })
    .await;
    for (series, expected) in [
        ("kernels{state=\"running\"}", 1.0),
        ("kernels{state=\"ending\"}", 0.0),
        ("kernel_creates_total{result=\"done\"}", 1.0),
        ("kernel_creates_total{result=\"failed\"}", 1.0),
        ("kernel_create_duration_seconds_count", 1.0),
        ("runs_begun_total", 1.0),
        ("rpc_calls_total{method=\"create_kernel\",outcome=\"answered\"}", 1.0),
        ("rpc_calls_total{method=\"create_kernel\",outcome=\"failed\"}", 1.0),
        ("rpc_calls_total{method=\"other\",outcome=\"refused\"}", 1.0),
        ("kernel_ends_total{reason=\"user-requested\"}", 0.0),
        (&*of("kernel_memory_limit_bytes"), 256.0 * 1024.0 * 1024.0),
        (&*of("kernel_running"), 0.0),
        (&*of("kernel_cpu_cores"), 1.0),
    ] {
        assert_eq!(value(&seen, series), Some(expected), "{series}: {seen}");
    }
    assert!(!seen.contains("dance"), "a caller's word became a series");
    assert!(value(&seen, &of("kernel_memory_bytes")).unwrap() > 1e6, "{seen}");
    assert!(
        value(&seen, "docker_calls_total{call=\"create_container\",outcome=\"answered\"}").unwrap() >= 1.0
    );
    assert!(value(&seen, "last_heartbeat_timestamp_seconds").unwrap() > 1.6e9, "{seen}");
    assert!(value(&seen, "images").unwrap() >= 2.0, "{seen}");
    let (size, free) =
        (value(&seen, "scratch_size_bytes").unwrap(), value(&seen, "scratch_free_bytes").unwrap());
    assert!(size >= free && free > 0.0, "{seen}");
    promtool_is_content(&seen).await;

    kernel.call("restart_kernel", json!([{"environ": {}, "mounts": []}])).await.unwrap();
    kernel.destroy().await;
    let gone = until("the kernel's figures to go", secs(15), async || {
        let page = page().await;
        (!page.contains(&kernel.id)).then_some(page)
    })
    .await;
    for (series, expected) in [
        ("kernels{state=\"running\"}", 0.0),
        ("kernel_restarts_total{result=\"done\"}", 1.0),
        ("kernel_ends_total{reason=\"user-requested\"}", 1.0),
        ("kernel_end_duration_seconds_count", 1.0),
    ] {
        assert_eq!(value(&gone, series), Some(expected), "{series}: {gone}");
    }
    promtool_is_content(&gone).await;
}
