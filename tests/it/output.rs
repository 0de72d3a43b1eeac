//! Back-pressure: however much a kernel prints, the agent's memory stays bounded, and completions and interrupts pass
//! (PROTOCOL section 12, items 28 and 29).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::docker::image;
use crate::support::{Agent, Bed, Kernel, kernel, secs, until};

/// What the agent may take beyond what it had before, in MiB: the full buffer (8 MiB) with an answer of the same size
/// being packed and sent, and what libzmq holds.
const ROOM_MIB: u64 = 120;

/// The most memory that the agent ever had, in KiB.
fn peak_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How much the flood prints.
const MIB: u64 = 1024;

fn flood(mib: u64) -> String {
    format!("import sys\nblock = 'x' * 65535 + '\\n'\nfor i in range({mib} * 16): sys.stdout.write(block)")
}

async fn counted(kernel: &Kernel, run: &str, first: serde_json::Value) -> u64 {
    let mut answer = first;
    let mut bytes = 0;
    loop {
        for item in answer["console"].as_array().unwrap() {
            assert_eq!(item[0], "stdout", "{}", item[1].to_string().chars().take(300).collect::<String>());
            bytes += item[1].as_str().unwrap().len() as u64;
        }
        if answer["status"] == "finished" {
            return bytes;
        }
        answer = kernel.execute(run, "continue", "", json!({})).await.expect("continue");
    }
}

#[tokio::test]
async fn a_flood_is_collected_whole_in_bounded_memory() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    // This runner holds what is not collected yet in memory of its own.
    let mut config = kernel::config(&image::python());
    config["limits"]["mem_slot"] = json!(4096);
    let kernel = agent.create_with(config).await.warm().await;
    let (before, begin) = (peak_kib(&agent), Instant::now());
    let first = kernel.execute("flood", "query", &flood(MIB), json!({})).await.unwrap();
    let bytes = counted(&kernel, "flood", first).await;
    let grown = peak_kib(&agent).saturating_sub(before) / 1024;
    println!("{} MiB collected in {:?}; the agent grew by {grown} MiB at most", bytes >> 20, begin.elapsed());
    assert_eq!(bytes, MIB << 20);
    assert!(grown < ROOM_MIB, "the agent grew by {grown} MiB");
}

#[tokio::test]
async fn nobody_collects_and_completions_and_interrupts_pass_all_the_same() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let before = peak_kib(&agent);
    // More than the agent takes before somebody collects; this runner keeps the rest in memory of its own, and puts
    // completions behind it.
    let blocked = format!("{}\nimport time\nwhile True: time.sleep(0.05)", flood(40));
    let first = kernel.execute("flood", "query", &blocked, json!({})).await.unwrap();
    assert_eq!(first["status"], "continued");
    // Nobody collects now: the buffer fills, and the agent stands still.
    until("the agent to stand still", secs(10), async || {
        let memory = agent.memory_kib();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (agent.memory_kib().abs_diff(memory) < 512).then_some(())
    })
    .await;
    let opts = json!({ "row": 0, "col": 4, "line": "impo", "post": "" });
    let answer = kernel.call("get_completions", json!(["impo", opts])).await.expect("get_completions");
    assert_eq!(answer["completions"], json!(["import"]));
    kernel.call("interrupt_kernel", json!([])).await.expect("interrupt_kernel");
    let mut answer = kernel.execute("flood", "continue", "", json!({})).await.unwrap();
    let begin = Instant::now();
    while answer["status"] != "finished" {
        assert!(begin.elapsed() < secs(20), "the interrupt did not end the run");
        answer = kernel.execute("flood", "continue", "", json!({})).await.unwrap();
    }
    let grown = peak_kib(&agent).saturating_sub(before) / 1024;
    println!("the agent grew by {grown} MiB at most");
    // 64 MiB may be held while somebody waits for completions.
    assert!(grown < ROOM_MIB + 64, "the agent grew by {grown} MiB");
    assert_eq!(kernel.run("print('fine')").await.stdout(), "fine\n");
}
