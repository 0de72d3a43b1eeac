//! Kernels that would fill the scratch root's disk for all others, and `--scratch-quota`.

use std::process::Command;

use crate::support::disk::SmallDisk;
use crate::support::{Agent, Bed, Kernel, secs, until};

/// Writes this many MiB to a file of the name; prints how far it came and why no further.
async fn write(kernel: &Kernel, name: &str, mib: u32) -> String {
    let code = format!(
        "
import os
written = 0
try:
    with open('{name}', 'wb', buffering=0) as file:
        for _ in range({mib}):
            written += file.write(b'x' * (1 << 20))
        os.fsync(file.fileno())
    print('all', end='')
except OSError as error:
    print(written >> 20, error.strerror, end='')
"
    );
    kernel.run(&code).await.stdout()
}

/// What agents remember of projects.
fn numbers(bed: &Bed) -> usize {
    std::fs::read_dir(bed.scratch().join(".agent/projects")).unwrap().count()
}

async fn is_held(kind: &str) {
    let bed = Bed::start().await;
    let disk = match SmallDisk::with_projects(kind, bed.outside(), &bed.scratch()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let quota = ["--scratch-quota", "40", "--create-deadline", "20"];
    let mut agent = bed.agent(&quota).await;
    let said = |agent: &Agent, text: &str| agent.output().contains(text);
    assert!(said(&agent, "each kernel's files are held to a limit mib=40 files=10240"), "{}", agent.output());
    let (greedy, other) = (agent.create_python().await, agent.create_python().await);

    // ext4 says "quota", XFS "space".
    let got = write(&greedy, "big", 60).await;
    let refused = ["Disk quota exceeded", "No space left on device"].iter().any(|why| got.ends_with(why));
    assert!(refused && (got.starts_with("38 ") || got.starts_with("39 ")), "{got}");
    assert_eq!(greedy.run("print(6 * 7)").await.stdout(), "42\n", "its session goes on");
    let error = greedy.upload("more", &vec![b'x'; 4 << 20]).await.unwrap_err();
    assert!(error.text().contains("no space left in the scratch directory"), "{error:?}");
    assert_eq!(write(&other, "mine", 30).await, "all", "others have theirs");
    let code = "
made = 0
try:
    while made < 20000:
        open('empty%d' % made, 'w').close()
        made += 1
except OSError as error:
    print(made > 9000, error.strerror)
";
    let got = other.run(code).await.stdout();
    assert!(got.starts_with("True "), "files without anything in them are counted, too: {got}");
    assert_eq!(greedy.run("import os; os.remove('big')").await.stderr(), "");
    assert_eq!(write(&greedy, "again", 30).await, "all");

    // An agent without the setting leaves those kernels their limit, and gives new ones none.
    agent.kill9();
    let agent = bed.agent(&["--create-deadline", "20"]).await;
    let free = agent.create_python().await;
    assert_eq!(write(&free, "big", 60).await, "all");
    let got = write(&greedy, "more", 20).await;
    assert!(got.starts_with("8 ") || got.starts_with("9 "), "{got}");
    assert_eq!((numbers(&bed), disk.limits()), (2, 2));
    greedy.destroy().await;
    until("the end of its limit", secs(20), async || (numbers(&bed) == 1).then_some(())).await;
    assert_eq!(disk.limits(), 1);
    for kernel in [other, free] {
        kernel.destroy().await;
    }
    until("the end of all limits", secs(20), async || (numbers(&bed) == 0).then_some(())).await;
    assert_eq!(disk.limits(), 0);
}

#[tokio::test]
async fn a_kernel_s_files_are_held_to_their_limit_on_ext4() {
    is_held("ext4").await;
}

#[tokio::test]
async fn a_kernel_s_files_are_held_to_their_limit_on_xfs() {
    is_held("xfs").await;
}

/// Said once, with the remedy; kernels are made without.
#[tokio::test]
async fn where_there_can_be_no_limit_the_log_says_so_once_and_kernels_are_made() {
    let bed = Bed::start().await;
    let _disk = SmallDisk::mount(bed.outside(), &bed.scratch());
    let mut agent = bed.agent(&["--scratch-quota", "16", "--create-deadline", "20"]).await;
    for _ in 0..2 {
        agent.create_tiny().await.destroy().await;
    }
    let log = agent.output();
    let told: Vec<_> = log.lines().filter(|line| line.contains("kernels' files have no limit")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(
        told[0].contains(" WARN ") && told[0].contains("tune2fs -O project,quota -Q prjquota"),
        "{}",
        told[0]
    );
    assert!(agent.stop().await.success());
    let check = Command::new(env!("CARGO_BIN_EXE_backendai-agent"))
        .args(["check", "--json", "--config", "/dev/null", "--scratch-quota", "16", "--scratch-root"])
        .arg(bed.scratch())
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    let found = found["findings"].as_array().unwrap().iter().find(|found| found["what"] == "scratch quota");
    let found = found.unwrap();
    assert_eq!(found["verdict"], "warn");
    assert!(found["remedy"].as_str().unwrap().contains("tune2fs"), "{found}");
}
