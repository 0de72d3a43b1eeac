//! Attacks on uploads, with a real file system.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, RenameFlags, mknodat, renameat_with};

use super::super::layout::Layout;
use super::*;
use crate::ids::KernelId;

/// A kernel's directory beside a directory that nobody may touch.
struct Place {
    dir: tempfile::TempDir,
    scratch: Scratch,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::create_dir_all(dir.path().join("kernel/work")).unwrap();
        let scratch = Scratch::new(KernelId::random(), &dir.path().join("kernel"), Layout::NEW, 0);
        Self { dir, scratch }
    }

    fn outside(&self) -> std::path::PathBuf {
        self.dir.path().join("outside")
    }

    fn inside(&self, path: &str) -> std::path::PathBuf {
        self.scratch.home().join(path)
    }

    async fn upload(&self, name: &str) -> Result<(), ScratchError> {
        self.scratch.upload(name, Bytes::from_static(b"data")).await
    }

    fn assert_untouched(&self) {
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 0, "something was written outside");
    }

    /// Names that the upload left in a directory.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.inside(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_file_is_written_with_its_directories() {
    let place = Place::new();
    place.upload("a/b/c.txt").await.unwrap();
    assert_eq!(fs::read(place.inside("a/b/c.txt")).unwrap(), b"data");
    let mode = |path: &str| fs::metadata(place.inside(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/c.txt")), (0o755, 0o755, 0o644));
    place.scratch.upload("a/b/c.txt", Bytes::from_static(b"more")).await.unwrap();
    assert_eq!(fs::read(place.inside("a/b/c.txt")).unwrap(), b"more");
    assert_eq!(place.names("a/b"), ["c.txt"]);
    place.scratch.upload("empty", Bytes::new()).await.unwrap();
    assert_eq!(fs::metadata(place.inside("empty")).unwrap().len(), 0);
}

#[tokio::test]
async fn names_that_lead_out_are_refused() {
    let place = Place::new();
    for name in ["../../outside/x", "/etc/x", "a/../../../outside/x", ".."] {
        let error = place.upload(name).await.unwrap_err();
        assert!(matches!(error, ScratchError::Escape { .. }), "{name}: {error}");
        assert!(error.is_refusal());
    }
    assert!(matches!(place.upload("").await, Err(ScratchError::BadName { .. })));
    place.assert_untouched();
    assert!(place.names("").is_empty());
}

#[tokio::test]
async fn links_that_lead_out_are_refused_at_every_level() {
    let place = Place::new();
    fs::create_dir_all(place.inside("one/two")).unwrap();
    for at in ["out", "one/out", "one/two/out"] {
        for target in
            [place.outside(), "../../../../outside".into(), "../../../outside".into(), "../../outside".into()]
        {
            let link = place.inside(at);
            symlink(&target, &link).unwrap();
            for name in [format!("{at}/x"), format!("{at}/y/x")] {
                // Some of the relative ones point nowhere or stay inside; what matters is outside.
                let result = place.upload(&name).await;
                if target.is_absolute() {
                    assert!(matches!(result, Err(ScratchError::Escape { .. })), "{name}: {result:?}");
                }
            }
            place.assert_untouched();
            fs::remove_file(link).unwrap();
        }
    }
}

#[tokio::test]
async fn a_link_at_the_end_is_refused_when_it_leads_out_and_replaced_when_it_stays() {
    let place = Place::new();
    fs::write(place.dir.path().join("victim"), "precious").unwrap();
    symlink("../../victim", place.inside("out")).unwrap();
    symlink(place.dir.path().join("victim"), place.inside("far")).unwrap();
    for name in ["out", "far"] {
        assert!(matches!(place.upload(name).await, Err(ScratchError::Escape { .. })), "{name}");
    }
    assert_eq!(fs::read(place.dir.path().join("victim")).unwrap(), b"precious");
    fs::create_dir(place.inside("sub")).unwrap();
    fs::write(place.inside("kept"), "kept").unwrap();
    symlink("../kept", place.inside("sub/latest")).unwrap();
    place.upload("sub/latest").await.unwrap();
    assert!(fs::symlink_metadata(place.inside("sub/latest")).unwrap().is_file());
    assert_eq!(fs::read(place.inside("kept")).unwrap(), b"kept");
}

#[tokio::test]
async fn what_would_lie_below_the_mount_of_the_settings_is_refused() {
    let place = Place::new();
    for name in [".config/environ.txt", ".//.config/x/y", ".config"] {
        let error = place.upload(name).await.unwrap_err();
        assert!(matches!(error, ScratchError::BadName { .. }) && error.is_refusal(), "{name}: {error}");
    }
    assert!(place.names("").is_empty());
    place.upload("sub/.config").await.unwrap();
}

#[tokio::test]
async fn a_link_on_the_way_that_stays_inside_is_followed() {
    let place = Place::new();
    fs::create_dir_all(place.inside("data/2018")).unwrap();
    symlink("data/2018", place.inside("now")).unwrap();
    place.upload("now/x").await.unwrap();
    assert_eq!(fs::read(place.inside("data/2018/x")).unwrap(), b"data");
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let place = Place::new();
    fs::create_dir(place.inside("dir")).unwrap();
    fs::write(place.inside("file"), "").unwrap();
    symlink("circle", place.inside("circle")).unwrap();
    assert!(matches!(place.upload("dir").await, Err(ScratchError::IsDirectory { .. })));
    assert!(matches!(place.upload("file/x").await, Err(ScratchError::NotDirectory { .. })));
    assert!(matches!(place.upload("circle/x").await, Err(ScratchError::BadName { .. })));
    fs::remove_dir_all(place.scratch.home()).unwrap();
    assert!(matches!(place.upload("x").await, Err(ScratchError::Gone { .. })));
}

#[tokio::test]
async fn planted_fifos_sockets_and_devices_hang_nothing() {
    let place = Place::new();
    mknodat(CWD, place.inside("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(place.inside("socket")).unwrap();
    for name in ["fifo", "socket"] {
        tokio::time::timeout(Duration::from_secs(5), place.upload(name)).await.unwrap().unwrap();
        assert_eq!(fs::read(place.inside(name)).unwrap(), b"data");
    }
    drop(socket);
    mknodat(CWD, place.inside("way"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let on_the_way = tokio::time::timeout(Duration::from_secs(5), place.upload("way/x")).await.unwrap();
    assert!(matches!(on_the_way, Err(ScratchError::NotDirectory { .. })), "{on_the_way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_gets_out_while_directories_and_links_change_places() {
    let place = Place::new();
    fs::create_dir_all(place.inside("a/b")).unwrap();
    symlink(place.outside(), place.inside("link")).unwrap();
    fs::create_dir(place.outside().join("b")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let (dir, link, stop) = (place.inside("a"), place.inside("link"), Arc::clone(&stop));
        move || {
            let mut swaps = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        }
    });
    let (mut written, mut refused) = (0_u32, 0_u32);
    let deadline = Instant::now() + Duration::from_secs(20);
    while (written < 100 || refused < 100) && Instant::now() < deadline {
        let name = format!("a/b/made{}/x{}", written % 7, refused % 5);
        match place.upload(&name).await {
            Ok(()) => written += 1,
            Err(_) => refused += 1,
        }
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = attacker.join().unwrap();
    assert!(swaps > 0 && written > 0 && refused > 0, "{swaps} swaps, {written} written, {refused} refused");
    let outside: Vec<_> = fs::read_dir(place.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, ["b"]);
    assert_eq!(fs::read_dir(place.outside().join("b")).unwrap().count(), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn a_large_upload_delays_no_other_task() {
    let place = Place::new();
    let data = Bytes::from(vec![1; 100 << 20]);
    let upload = place.scratch.upload("large", data.clone());
    tokio::pin!(upload);
    let mut worst = Duration::ZERO;
    loop {
        let before = Instant::now();
        tokio::select! {
            result = &mut upload => break result.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(1)) => worst = worst.max(before.elapsed()),
        }
    }
    println!("100 MiB upload: a 1 ms timer was late by {worst:?} at worst");
    assert_eq!(fs::metadata(place.inside("large")).unwrap().size(), 100 << 20);
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}
