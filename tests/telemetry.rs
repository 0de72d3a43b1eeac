//! Logging, figures and reports as a process has them: once, for all of it. Hence one test in a file of its own.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backendai_agent::conditions::Conditions;
use backendai_agent::telemetry::{
    self, Asked, Door, LogFile, NodeGauges, Reply, Site, TelemetryConfig, TelemetryError,
};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

struct NoSite;

impl Site for NoSite {
    fn answer(&self, _: Asked) -> BoxFuture<'_, Option<Reply>> {
        Box::pin(std::future::ready(None))
    }
}

#[tokio::test]
async fn a_process_is_observed_to_its_end() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("agent.log");
    // Takes connections, as the kernel does for it, and never says a word.
    let sentry = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("http://secretkey@{}/1", sentry.local_addr().unwrap());
    let config = TelemetryConfig {
        log_file: Some(LogFile { path: path.clone(), rotation: None }),
        sentry: Some(dsn.parse().unwrap()),
        ..TelemetryConfig::default()
    };
    let observed = telemetry::init(&config).unwrap();

    tracing::info!(target: "backendai_agent", kernels = 2, "started");
    let panicked = std::thread::spawn(|| panic!("out of cheese")).join();
    assert!(panicked.is_err());
    observed.meters().record(&NodeGauges { kernels: [("running", 2)].into(), ..NodeGauges::default() });

    let (_readiness, watched) = watch::channel(Conditions::default());
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    observed.serve(Door::Port(listener), watched, Arc::new(NoSite), cancel.clone(), &tracker);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    assert!(page.contains("\nbackendai_agent_kernels{state=\"running\"} 2\n"), "{page}");
    assert!(page.contains("backendai_agent_log_lines_total{level=\"error\"} 1"), "{page}");
    cancel.cancel();
    tracker.close();
    tracker.wait().await;

    assert!(matches!(telemetry::init(&config), Err(TelemetryError::Figures(_))), "once per process");

    let start = Instant::now();
    tokio::task::spawn_blocking(move || drop(observed)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<&str> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "started",
            "panic: out of cheese",
            "serving metrics and health",
            "error reports were lost: the Sentry server did not take them in time",
        ]
    );
    assert!(lines[1]["location"].as_str().unwrap().contains("tests/telemetry.rs"), "{log}");
    assert!(!log.contains("secretkey"));
}
