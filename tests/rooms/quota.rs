//! Kernels' directories as projects of a real ext4 and a real XFS, where this system mounts them with `prjquota`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use backendai_agent::ids::KernelId;
use backendai_agent::rooms::scratch::{Quota, Scratch, ScratchError, ScratchRoot};
use backendai_agent::rooms::units::Memory;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::disk::SmallDisk;
use super::support::{secs, until};

/// The user that kernels run as.
const USER: u32 = 9001;

/// What a shell line of the kernel's code says: run among its files, as its user and with no capability.
fn by_its_code(scratch: &Scratch, line: &str) -> String {
    let user = USER.to_string();
    let ran = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c", &format!("({line}) 2>&1")])
        .current_dir(scratch.home())
        .output()
        .unwrap();
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Writes this many MiB; whether all of it was taken.
fn writes(scratch: &Scratch, name: &str, mib: u32) -> bool {
    let line = format!("dd if=/dev/zero of={name} bs=1M count={mib} conv=fsync status=none && echo all");
    let said = by_its_code(scratch, &line);
    let is_refused = ["Disk quota exceeded", "No space left on device"].iter().any(|why| said.contains(why));
    assert!(is_refused || said == "all\n", "{said}");
    !is_refused
}

/// Opens the root as an agent does that has this setting.
async fn open(at: &Path, mib: Option<u64>) -> ScratchRoot {
    let root = ScratchRoot::open(at).unwrap();
    if let Some(quota) = mib.and_then(|mib| Quota::new(Memory::from_mib(mib))) {
        let limited = root.clone();
        tokio::task::spawn_blocking(move || limited.limit_kernels(quota)).await.unwrap();
    }
    root
}

async fn create(root: &ScratchRoot) -> Scratch {
    root.create(KernelId::random(), &BTreeMap::new(), Some(USER)).await.unwrap()
}

async fn is_held(kind: &str) {
    let (dir, images) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = match SmallDisk::with_projects(kind, images.path(), dir.path()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let numbers = || std::fs::read_dir(dir.path().join(".agent/projects")).unwrap().count();
    let root = open(dir.path(), Some(40)).await;
    assert_eq!(numbers(), 0, "the trial's was given back");
    let (greedy, other) = (create(&root).await, create(&root).await);

    assert!(!writes(&greedy, "big", 60));
    let got = std::fs::metadata(greedy.home().join("big")).unwrap().len() >> 20;
    println!("{kind}: {got} of 60 MiB were taken with a limit of 40");
    assert!((38..=40).contains(&got), "{got} MiB");
    let error = greedy.upload("more", Bytes::from(vec![b'x'; 4 << 20])).await.unwrap_err();
    assert!(matches!(error, ScratchError::DiskFull { .. }), "{error}");
    assert!(writes(&other, "mine", 30), "others have theirs");
    // The shell ends at the first that is refused.
    let said = by_its_code(&other, "n=0; while [ $n -lt 11000 ]; do : > e$n; n=$((n+1)); done");
    let made = std::fs::read_dir(other.home()).unwrap().count();
    println!("{kind}: {made} files without anything in them");
    assert!(
        (10_000..10_240).contains(&made),
        "files without anything in them are counted, too: {made} {said}"
    );

    // The next agent has no limit: those of before keep theirs, and lose it with their files.
    drop(root);
    let root = open(dir.path(), None).await;
    let free = create(&root).await;
    assert!(writes(&free, "big", 60));
    by_its_code(&greedy, "rm big");
    assert!(writes(&greedy, "again", 30) && !writes(&greedy, "more", 20));
    assert_eq!((numbers(), disk.limits()), (2, 2));
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    root.start_sweeper(cancel.clone(), &tracker);
    for (scratch, left) in [(greedy, 1), (other, 0)] {
        root.discard(scratch.kernel()).await.unwrap();
        until("the end of its limit", secs(60), async || (numbers() == left).then_some(())).await;
        assert_eq!(disk.limits(), left);
    }
    cancel.cancel();
    tracker.close();
    tokio::time::timeout(secs(10), tracker.wait()).await.unwrap();
}

#[tokio::test]
async fn an_ext4_holds_each_kernel_to_its_limit() {
    is_held("ext4").await;
}

#[tokio::test]
async fn an_xfs_holds_each_kernel_to_its_limit() {
    is_held("xfs").await;
}
