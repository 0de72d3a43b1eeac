//! Heartbeats while the agent has its hands full.

use std::path::Path;
use std::time::SystemTime;

use rmpv::Value;

use crate::contender::Contender;
use crate::figures::Report;
use crate::fleet::widest_gap;
use crate::support::docker::image;
use crate::support::{Dockerd, secs};

/// In the scratch directory that is deleted.
const FILES: usize = 100_000;
const UPLOAD: usize = 100 * 1024 * 1024;
const CALLERS: usize = 64;

/// All at once: Docker stands still, a large scratch directory goes, a large file comes, and many call.
pub(crate) async fn beats(contender: &Contender, report: &mut Report<'_>) {
    if contender.is_python() {
        return;
    }
    let bed = contender.bed().await;
    let engine = Dockerd::start(bed.outside(), false, &[image::tiny()]).await;
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let (goes, stays) = (agent.create_tiny().await, agent.create_tiny().await);
    fill(&bed.scratch().join(&goes.id)).await;
    goes.destroy().await;

    let since = SystemTime::now();
    engine.pause().await;
    let args = Value::Array(vec![stays.id.as_str().into(), "big".into(), Value::Binary(vec![7; UPLOAD])]);
    let upload = agent.rpc().call_with("upload_file", args, Value::Map(Vec::new()), secs(60));
    let mut lines = Vec::new();
    for _ in 0..CALLERS {
        lines.push(agent.rpc().connect().await);
    }
    let calls = lines.iter_mut().map(|line| async {
        while since.elapsed().is_ok_and(|gone| gone < secs(20)) {
            crate::ping::round_trips(line, 100).await;
        }
    });
    let (_, uploaded) = tokio::join!(futures_util::future::join_all(calls), upload);
    uploaded.expect("upload");
    tokio::time::sleep(secs(4)).await;
    let late = widest_gap(&bed, since, 1).saturating_sub(secs(3));
    report.took("heartbeats under load: largest gap over 3 s", late);
    engine.resume();
    stays.destroy().await;
    drop((agent, engine));
}

async fn fill(dir: &Path) {
    let dir = dir.join("many");
    let filled = tokio::task::spawn_blocking(move || {
        std::fs::create_dir(&dir).unwrap();
        for file in 0..FILES {
            std::fs::File::create(dir.join(file.to_string())).unwrap();
        }
    });
    filled.await.unwrap();
}
