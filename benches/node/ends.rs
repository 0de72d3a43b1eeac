//! What of a kernel's begin and end is the agent's own, where the engine takes no time: create, destroy, and how long the manager waits
//! for the event of an end once the kernel's statistics are in Redis.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::contender::Contender;
use crate::figures::{Report, median, quantile};
use crate::stub::{Stub, stub_config};
use crate::support::secs;

const ENDS: usize = 100;

/// What Redis carried out, and when, by its own clock.
struct Command {
    at: Duration,
    line: String,
}

pub(crate) async fn ends(contender: &Contender, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let stub = Stub::start(bed.outside());
    let agent = stub.agent(&bed).await;
    let mut carried_out = monitor(bed.redis.port()).await;
    let (mut creates, mut destroys, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ENDS {
        let begun = Instant::now();
        let kernel = agent.create_with(stub_config()).await;
        creates.push(begun.elapsed().as_secs_f64() * 1e3);
        let kernel = kernel.warm().await;
        let begun = Instant::now();
        kernel.destroy().await;
        destroys.push(begun.elapsed().as_secs_f64() * 1e3);
        let event = bed.wait_end(&kernel.id, secs(10)).await;
        let mut written = None;
        while let Ok(Some(command)) = tokio::time::timeout(secs(5), carried_out.recv()).await {
            let is_of_it = command.line.contains(&kernel.id);
            written = is_of_it.then_some(command.at).or(written);
            // The last of a pipeline: how long it is kept.
            if is_of_it && command.line.to_lowercase().contains("expire") {
                break;
            }
        }
        let written = written.expect("its statistics in Redis");
        waits.push((since_epoch(event.at).as_secs_f64() - written.as_secs_f64()) * 1e3);
    }
    for (what, took) in [("create", creates), ("destroy", destroys)] {
        report.add(&format!("{what} beside an engine that takes no time: median"), "ms", median(&took));
        report.add(&format!("{what} beside an engine that takes no time: p99"), "ms", quantile(&took, 0.99));
    }
    report.add("event of an end, after its statistics are in Redis: median", "ms", median(&waits));
    report.add("event of an end, after its statistics are in Redis: p99", "ms", quantile(&waits, 0.99));
}

/// All that Redis carries out from now on.
async fn monitor(port: u16) -> mpsc::UnboundedReceiver<Command> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"MONITOR\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let seconds = line[1..].split(' ').next().and_then(|seconds| seconds.parse().ok());
            let at = Duration::from_secs_f64(seconds.unwrap());
            if tell.send(Command { at, line }).is_err() {
                return;
            }
        }
    });
    told
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap()
}
