//! Output files with a real file system.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, Mode, mknodat};

use super::super::layout::Layout;
use super::*;
use crate::ids::KernelId;

fn scratch() -> (tempfile::TempDir, Scratch) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("kernel/work/.output")).unwrap();
    let scratch = Scratch::new(KernelId::random(), &dir.path().join("kernel"), Layout::NEW, 0);
    (dir, scratch)
}

fn names(files: &[OutputFile]) -> Vec<&str> {
    files.iter().map(|file| file.relative.as_str()).collect()
}

#[tokio::test]
async fn new_grown_touched_and_replaced_files_are_changes() {
    let (_dir, scratch) = scratch();
    let output = scratch.home().join(".output");
    fs::create_dir_all(output.join("sub/deep")).unwrap();
    for name in ["same", "grown", "touched", "replaced", "gone"] {
        fs::write(output.join(name), "1").unwrap();
    }
    let old = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(output.join("replaced")).unwrap().set_modified(old).unwrap();
    let before = scratch.output_snapshot().await;
    assert!(scratch.output_changes(&before).await.is_empty());
    fs::write(output.join("grown"), "12").unwrap();
    fs::File::options().write(true).open(output.join("touched")).unwrap().set_modified(old).unwrap();
    // Moved into place with the old time and size, as `cp -p` and `mv` do.
    fs::write(output.join(".new"), "2").unwrap();
    fs::File::options().write(true).open(output.join(".new")).unwrap().set_modified(old).unwrap();
    fs::rename(output.join(".new"), output.join("replaced")).unwrap();
    fs::remove_file(output.join("gone")).unwrap();
    fs::write(output.join("sub/deep/new"), "123").unwrap();
    let changed = scratch.output_changes(&before).await;
    assert_eq!(names(&changed), ["grown", "replaced", "sub/deep/new", "touched"]);
    assert_eq!(changed[2].size, 3);
}

#[tokio::test]
async fn hidden_large_linked_and_odd_entries_are_skipped() {
    let (dir, scratch) = scratch();
    let output = scratch.home().join(".output");
    let before = scratch.output_snapshot().await;
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(output.join("good"), "").unwrap();
    fs::write(output.join(".hidden"), "").unwrap();
    fs::create_dir(output.join(".dir")).unwrap();
    fs::write(output.join(".dir/file"), "").unwrap();
    fs::File::create(output.join("at the limit")).unwrap().set_len(MAX_FILE_BYTES).unwrap();
    fs::File::create(output.join("large")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    symlink(dir.path().join("secret"), output.join("link")).unwrap();
    symlink(dir.path(), output.join("linkdir")).unwrap();
    symlink(".", output.join("circle")).unwrap();
    mknodat(CWD, output.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::write(output.join(OsStr::from_bytes(b"bad\xff")), "").unwrap();
    assert_eq!(names(&scratch.output_changes(&before).await), ["at the limit", "good"]);
}

#[tokio::test]
async fn a_missing_or_linked_output_directory_is_empty() {
    let (dir, scratch) = scratch();
    let before = scratch.output_snapshot().await;
    fs::remove_dir(scratch.home().join(".output")).unwrap();
    assert!(scratch.output_changes(&before).await.is_empty());
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::write(dir.path().join("elsewhere/secret"), "secret").unwrap();
    symlink("../../elsewhere", scratch.home().join(".output")).unwrap();
    assert!(scratch.output_changes(&before).await.is_empty());
    assert!(scratch.open_output("secret").is_err());
    fs::remove_dir_all(scratch.home()).unwrap();
    assert!(scratch.output_changes(&before).await.is_empty());
}

#[tokio::test]
async fn too_many_entries_and_levels_are_cut_and_old_files_do_not_come_back_as_new() {
    let (_dir, scratch) = scratch();
    let output = scratch.home().join(".output");
    for number in 0..MAX_ENTRIES + 500 {
        fs::File::create(output.join(format!("f{number}"))).unwrap();
    }
    let mut before = scratch.output_snapshot().await;
    assert!(before.cut);
    assert_eq!(before.files.len(), MAX_ENTRIES);
    // What the cut walk did not see must not be delivered as the run's; taken to its end: it saw nothing.
    before.files.clear();
    before.began = SystemTime::now() + Duration::from_secs(1);
    assert!(scratch.output_changes(&before).await.is_empty());
    before.began = SystemTime::now() - Duration::from_secs(3600);
    assert_eq!(scratch.output_changes(&before).await.len(), MAX_ENTRIES);
    fs::remove_dir_all(&output).unwrap();
    fs::create_dir_all(output.join("d/".repeat(MAX_DEPTH))).unwrap();
    assert!(!scratch.output_snapshot().await.cut);
    fs::create_dir_all(output.join("d/".repeat(MAX_DEPTH + 1))).unwrap();
    assert!(scratch.output_snapshot().await.cut);
}

#[tokio::test]
async fn only_regular_files_beneath_are_opened() {
    let (dir, scratch) = scratch();
    let output = scratch.home().join(".output");
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::create_dir(output.join("sub")).unwrap();
    fs::write(output.join("sub/file"), "mine").unwrap();
    symlink("../../secret", output.join("link")).unwrap();
    mknodat(CWD, output.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut text = String::new();
    scratch.open_output("sub/file").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "mine");
    for name in ["link", "fifo", "sub"] {
        assert!(matches!(scratch.open_output(name), Err(ScratchError::NotRegular { .. })), "{name}");
    }
    for name in ["../../secret", "/etc/passwd"] {
        assert!(matches!(scratch.open_output(name), Err(ScratchError::Escape { .. })), "{name}");
    }
    assert!(matches!(scratch.open_output("none"), Err(ScratchError::OpenOutput { .. })));
}

/// Names that user code chose: what a snapshot keeps of them has a limit, and what no key can be called is left out.
#[tokio::test]
async fn long_names_cost_no_memory() {
    let (_dir, scratch) = scratch();
    let output = scratch.home().join(".output");
    let long = "n".repeat(250);
    let deep: std::path::PathBuf = std::iter::repeat_n(long.as_str(), 3).collect();
    fs::create_dir_all(output.join(&deep).join(&long)).unwrap();
    for file in 0..2000 {
        fs::write(output.join(&deep).join(format!("{file}{}", "f".repeat(200))), "").unwrap();
    }
    fs::write(output.join(&deep).join(&long).join("f".repeat(100)), "").unwrap();
    let found = scratch.output_snapshot().await;
    let bytes: usize = found.files.keys().map(String::len).sum();
    assert!(found.cut && bytes > MAX_NAMES && bytes <= MAX_NAMES + MAX_PATH, "{bytes} bytes");
    assert!(found.files.keys().all(|path| path.len() <= MAX_PATH));
}
