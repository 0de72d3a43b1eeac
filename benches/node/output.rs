//! Large things through the agent: an upload, and the output of a program that prints without end.

use std::time::Instant;

use rmpv::Value;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::contender::{Contender, Usage, processor_since};
use crate::figures::Report;
use crate::raw::{RawKernel, model};
use crate::support::{docker, kernel, new_id, rpc, secs};

const UPLOAD: usize = 100 * 1024 * 1024;
const UPLOADS: usize = 7;
/// Of lines of 1,000 bytes; some 100 MB.
const LINES: usize = 100_000;

/// Of the kernel: a runner that is not read fast enough holds its output itself. An image may allow less.
const MEMORY_MIB: u64 = 1024;

pub(crate) async fn output(contender: &Contender, report: &mut Report<'_>) {
    let bed = contender.bed().await;
    let agent = contender.serving(&bed).await;
    let mut config = kernel::config(&docker::image::python());
    config["limits"]["mem_slot"] = json!(MEMORY_MIB);
    let kernel = agent.create_with(config).await.warm().await;

    let peak = Usage::of(&agent).peak;
    // By turns: how much of a file the system writes at once changes from one to the next.
    for upload in 0..UPLOADS {
        let name = format!("big-{upload}");
        let raw = raw_upload(&bed.outside().join(&name)).await;
        report.took("upload of 100 MiB: received and written without an agent", raw);
        let file = Value::Array(vec![kernel.id.as_str().into(), name.into(), Value::Binary(vec![7; UPLOAD])]);
        let message = rpc::message(0, "upload_file", &file, &Value::Map(Vec::new()));
        let begun = Instant::now();
        let mut caller = agent.rpc().connect().await;
        caller.send_message(message).await;
        caller.answer(secs(60)).await.expect("an answer to the upload").result.expect("upload");
        report.took("upload of 100 MiB", begun.elapsed());
    }
    report.add("upload of 100 MiB: peak over idle", "MiB", Usage::of(&agent).peak - peak);

    let code = format!("line = 'x' * 999\nfor _ in range({LINES}): print(line)");
    let mut like = model(kernel.container()).await;
    for limit in ["Memory", "MemorySwap"] {
        like["HostConfig"][limit] = json!(MEMORY_MIB << 20);
    }
    let (raw, _) = RawKernel::like(&like).await;
    let (mut runner, _) = raw.runner().await;
    let begun = Instant::now();
    let bytes = runner.run(&code).await;
    report.add("output: raw runner", "MB/s", bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
    raw.remove().await;

    let (before, begun, run) = (Usage::of(&agent), Instant::now(), new_id());
    let mut answer = kernel.execute(&run, "query", &code, json!({})).await.unwrap();
    let mut bytes = 0;
    loop {
        let items = answer["console"].as_array().unwrap();
        bytes += items.iter().map(|item| item[1].as_str().map_or(0, str::len)).sum::<usize>();
        if answer["status"] == "finished" {
            break;
        }
        answer = kernel.execute(&run, "continue", "", json!({})).await.unwrap();
    }
    let megabytes = bytes as f64 / 1e6;
    report.add("output", "MB/s", megabytes / begun.elapsed().as_secs_f64());
    let spent = processor_since(&before, &agent);
    report.add("output: agent's processor", "ms/MB", spent.as_secs_f64() * 1e3 / megabytes);
    report.add("output: agent's peak", "MiB", Usage::of(&agent).peak);
    kernel.destroy().await;
}

/// The same bytes over loopback into a file.
async fn raw_upload(to: &std::path::Path) -> std::time::Duration {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let file = vec![7; UPLOAD];
    let begun = Instant::now();
    let sender = tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&file).await.unwrap();
    });
    let mut stream = listener.accept().await.unwrap().0;
    let mut data = Vec::new();
    stream.read_to_end(&mut data).await.unwrap();
    tokio::fs::write(to, data).await.unwrap();
    sender.await.unwrap();
    begun.elapsed()
}
