//! Scratch directories on file systems that only root can make: with mounts, immutable files and no room left.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use backendai_agent::ids::KernelId;
use backendai_agent::rooms::scratch::{Privacy, ScratchError, ScratchRoot};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::{secs, until};

/// Runs a command; whether it succeeded.
fn done(words: &[&OsStr]) -> bool {
    Command::new(words[0]).args(&words[1..]).status().unwrap().success()
}

/// A root with its sweeper running.
struct Swept {
    dir: tempfile::TempDir,
    root: ScratchRoot,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Swept {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        root.start_sweeper(cancel.clone(), &tracker);
        Self { dir, root, cancel, tracker }
    }

    /// What waits to be deleted.
    fn trash(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join(".agent/trash")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    async fn emptied(&self) {
        until("an empty trash", secs(60), async || self.trash().is_empty().then_some(())).await;
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(secs(5), self.tracker.wait()).await.unwrap();
    }
}

#[tokio::test]
async fn a_mount_in_a_discarded_directory_is_not_entered() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let swept = Swept::new();
    let kernel = KernelId::random();
    let scratch = swept.root.create(kernel, &BTreeMap::new(), None).await.unwrap();
    let point = scratch.home().join("mount");
    fs::create_dir(&point).unwrap();
    fs::write(scratch.home().join("file"), "").unwrap();
    let bind = ["mount".as_ref(), "--bind".as_ref(), outside.path().as_ref(), point.as_ref()];
    assert!(done(&bind), "this test makes a bind mount and needs root");
    swept.root.discard(kernel).await.unwrap();
    let left = until("a trash with nothing but the mount", secs(20), async || {
        let [tree] = <[PathBuf; 1]>::try_from(swept.trash()).ok()?;
        (!tree.join("work/file").exists() && !tree.join("config").exists()).then_some(tree)
    })
    .await;
    assert!(done(&["umount".as_ref(), left.join("work/mount").as_ref()]));
    assert!(outside.path().join("kept").exists(), "a mounted directory was emptied");
    swept.emptied().await;
    swept.stop().await;
}

#[tokio::test]
async fn an_immutable_file_is_tried_again_and_holds_up_nothing_else() {
    let chattr = |flag: &str, path: &Path| done(&["chattr".as_ref(), flag.as_ref(), path.as_ref()]);
    let swept = Swept::new();
    let kernel = KernelId::random();
    let scratch = swept.root.create(kernel, &BTreeMap::new(), None).await.unwrap();
    let file = scratch.home().join("immutable");
    fs::write(&file, "").unwrap();
    assert!(chattr("+i", &file), "this test needs root and chattr on the temporary directory's file system");
    swept.root.discard(kernel).await.unwrap();
    let other = KernelId::random();
    swept.root.create(other, &BTreeMap::new(), None).await.unwrap();
    swept.root.discard(other).await.unwrap();
    let left = until("a trash with nothing but the immutable file", secs(20), async || {
        let [tree] = <[PathBuf; 1]>::try_from(swept.trash()).ok()?;
        (!tree.join("config").exists()).then_some(tree)
    })
    .await;
    assert!(chattr("-i", &left.join("work/immutable")));
    swept.emptied().await;
    swept.stop().await;
}

/// A file system of 1 MiB, unmounted at the end. Only root may mount.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Self {
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at).status().unwrap();
        assert!(status.success(), "this test mounts a small tmpfs and needs root");
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_the_old_file_and_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = ScratchRoot::open(dir.path()).unwrap();
    let scratch = root.create(KernelId::random(), &BTreeMap::new(), None).await.unwrap();
    fs::remove_dir(scratch.home().join(".config")).unwrap();
    let _disk = SmallDisk::mount(scratch.home());
    scratch.upload("kept", Bytes::from_static(b"data")).await.unwrap();
    let error = scratch.upload("kept", vec![7; 4 << 20].into()).await.unwrap_err();
    assert!(matches!(error, ScratchError::DiskFull { .. }), "{error}");
    assert!(!error.is_refusal());
    assert_eq!(fs::read(scratch.home().join("kept")).unwrap(), b"data");
    let names: Vec<_> = fs::read_dir(scratch.home()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
    scratch.upload("other", vec![7; 512 << 10].into()).await.unwrap();
}

/// What the agent puts there belongs to the kernel's user, also when that is not the agent's.
#[tokio::test]
async fn files_belong_to_the_kernel_s_user_from_the_start_and_when_they_are_uploaded() {
    let dir = tempfile::tempdir().unwrap();
    let root = ScratchRoot::open(dir.path()).unwrap();
    let kernel = KernelId::random();
    let scratch = root.create(kernel, &BTreeMap::new(), Some(9001)).await.unwrap();
    scratch.upload("a/b/file", Bytes::from_static(b"x")).await.unwrap();
    scratch.write_environ(&BTreeMap::new()).await.unwrap();
    for name in ["", ".config", "../config", "../config/environ.txt", "a", "a/b", "a/b/file"] {
        let found = fs::metadata(scratch.home().join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (9001, 9001), "{name}");
    }
    let again = root.mounted(kernel, scratch.home(), scratch.config()).await.unwrap();
    assert_eq!((again.owner(), scratch.again().await.unwrap().unwrap().owner()), (9001, 9001));
    let above = fs::metadata(scratch.home().parent().unwrap()).unwrap();
    assert_eq!((above.uid(), above.mode() & 0o777), (rustix::process::geteuid().as_raw(), 0o700));
}

/// What containers of earlier versions and of the Python agents have mounted: their files stay where those made them.
#[tokio::test]
async fn files_are_found_where_containers_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = ScratchRoot::open(dir.path()).unwrap();
    // (the user's files, the settings as they are mounted, where the environment is)
    let cases = [
        ("", None, ".config/environ.txt"),
        (".work", Some(".config"), ".config/environ.txt"),
        ("work", Some("config"), "config/environ.txt"),
    ];
    for (home, config, environ) in cases {
        let kernel = KernelId::random();
        let own = root.path().join(kernel.to_string());
        let at = |name: &str| if name.is_empty() { own.clone() } else { own.join(name) };
        assert!(root.mounted(kernel, &at(home), config.map(at).as_deref()).await.is_none());
        fs::create_dir_all(at(home)).unwrap();
        fs::create_dir_all(at(environ).parent().unwrap()).unwrap();
        fs::write(at(environ), "A=b\n").unwrap();
        let scratch = root.mounted(kernel, &at(home), config.map(at).as_deref()).await.unwrap();
        assert_eq!((scratch.home(), scratch.config()), (at(home).as_path(), config.map(at).as_deref()));
        assert_eq!(scratch.read_environ().await.unwrap()["A"], "b");
        scratch.write_environ(&BTreeMap::from([("A".to_owned(), "c".to_owned())])).await.unwrap();
        assert_eq!(fs::read_to_string(at(environ)).unwrap(), "A=c\n");
        scratch.upload("file", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(fs::read(at(home).join("file")).unwrap(), b"x");
        let before = scratch.output_snapshot().await;
        fs::create_dir(at(home).join(".output")).unwrap();
        fs::write(at(home).join(".output/result"), "x").unwrap();
        assert_eq!(scratch.output_changes(&before).await[0].relative, "result");
        root.discard(kernel).await.unwrap();
        assert!(scratch.again().await.unwrap().is_none());
    }
}

#[test]
fn the_flags_of_the_root_s_file_system_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    for (options, advised) in [("mode=700,nosuid,nodev", 0), ("mode=700,nosuid", 1), ("mode=755,nodev", 2)] {
        let mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs"].map(OsStr::new);
        assert!(done(&[&mount[..], &[dir.path().as_os_str()]].concat()), "this test mounts and needs root");
        let seen = Privacy::of(dir.path()).map(|privacy| (privacy.advice().len(), privacy));
        assert!(done(&["umount".as_ref(), dir.path().as_os_str()]));
        let (lines, privacy) = seen.unwrap();
        assert_eq!(lines, advised, "{options}: {privacy:?}");
    }
}
