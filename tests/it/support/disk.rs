//! A small file system of a test's own, which can be filled to the brim, made read-only, frozen and taken away.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file of a full disk's ballast, and the directory of empty files.
const BALLAST: &str = "ballast";

/// An ext4 in a file, mounted; unmounted when dropped, at the latest when nobody uses it any more.
pub(crate) struct SmallDisk {
    image: PathBuf,
    at: PathBuf,
    /// How it is mounted.
    options: &'static str,
}

impl SmallDisk {
    /// 64 MiB and 2048 inodes at `at`, the image in `dir`. No part of it is kept for root, whom the agent of a test runs as.
    pub(crate) fn mount(dir: &Path, at: &Path) -> Self {
        let image = dir.join("disk.img");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let disk = Self { image, at: at.to_owned(), options: "loop" };
        let image = disk.image.to_str().unwrap();
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "2048", image]);
        disk.attach();
        disk
    }

    /// 512 MiB of this kind (`ext4`, `xfs`) that counts projects and holds them to their limits; why there is none where the system
    /// mounts none, or can't set limits.
    pub(crate) fn with_projects(kind: &str, dir: &Path, at: &Path) -> Result<Self, String> {
        if Command::new("setquota").arg("-V").output().is_err() {
            return Err("the package quota is not installed".to_owned());
        }
        let image = dir.join("disk.img");
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let disk = Self { image, at: at.to_owned(), options: "loop,prjquota" };
        let image = disk.image.to_str().unwrap();
        match kind {
            "ext4" => {
                run(&["mkfs.ext4", "-q", "-F", "-O", "project,quota", "-E", "quotatype=prjquota", image]);
            }
            _ => run(&["mkfs.xfs", "-q", "-f", image]),
        }
        let mounting = Command::new("mount").args(["-o", disk.options, image]).arg(at).output().unwrap();
        if mounting.status.success() {
            Ok(disk)
        } else {
            let why = String::from_utf8_lossy(&mounting.stderr);
            Err(format!("this system mounts no {kind} with prjquota: {why}"))
        }
    }

    /// How many projects that agents made it still holds to limits.
    pub(crate) fn limits(&self) -> usize {
        let report = Command::new("repquota").args(["-P", "-n"]).arg(&self.at).output().unwrap();
        assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        println!("{report}");
        report.lines().filter(|line| line.starts_with("#1")).count()
    }

    /// Mounts it, at first or again.
    pub(crate) fn attach(&self) {
        run(&["mount", "-o", self.options, self.image.to_str().unwrap(), self.at.to_str().unwrap()]);
    }

    /// Takes it away from the path; whoever has it open keeps it.
    pub(crate) fn detach(&self) {
        run(&["umount", "--lazy", self.at.to_str().unwrap()]);
    }

    /// Makes it read-only, or ends that.
    pub(crate) fn read_only(&self, is: bool) {
        let how = if is { "remount,ro" } else { "remount,rw" };
        run(&["mount", "-o", how, self.at.to_str().unwrap()]);
    }

    /// Every write to it waits until what this gives is dropped; so does the end of whoever writes.
    pub(crate) fn freeze(&self) -> Frozen {
        run(&["fsfreeze", "--freeze", self.at.to_str().unwrap()]);
        Frozen(self.at.clone())
    }

    /// Takes every block that is free.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.at.join(BALLAST)).unwrap();
        // In ever smaller pieces, so that nothing is left.
        for size in [1 << 20, 4096, 1] {
            let piece = vec![b'x'; size];
            while ballast.write_all(&piece).is_ok() {}
        }
        // Blocks are found only now, and may be fewer than were promised.
        let _ = ballast.sync_all();
    }

    /// Takes every inode that is free.
    pub(crate) fn use_up_inodes(&self) {
        let dir = self.at.join(BALLAST);
        std::fs::create_dir(&dir).unwrap();
        let mut taken = 0;
        while File::create(dir.join(taken.to_string())).is_ok() {
            taken += 1;
        }
    }

    /// Ends [`SmallDisk::fill`] and [`SmallDisk::use_up_inodes`].
    pub(crate) fn empty(&self) {
        let ballast = self.at.join(BALLAST);
        if ballast.is_dir() {
            std::fs::remove_dir_all(ballast).unwrap();
        } else {
            std::fs::remove_file(ballast).unwrap();
        }
    }
}

/// A file system that is frozen.
pub(crate) struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        run(&["fsfreeze", "--unfreeze", self.0.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may be detached already.
        let _ = Command::new("umount").args(["--lazy", self.at.to_str().unwrap()]).output();
    }
}

fn run(words: &[&str]) {
    let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}
