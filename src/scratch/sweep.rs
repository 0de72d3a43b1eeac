//! The task that empties the trash.
//!
//! The sweeper owns the list of what could not be deleted. Channels: a `Notify` that says that something was discarded,
//! and its cancellation token. One tree at a time, on one blocking thread: a delete may take its time, and nobody
//! waits for it (PROTOCOL section 12, item 5; freed cores never wait for files, item 23). What fails (an
//! immutable file, a mount) is tried again after 1 s, 2 s, 4 s … at most [`LONGEST_WAIT`].

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beneath;
use super::remove::{Removal, remove_tree};
use super::root::ScratchRoot;
use crate::patience::{Backoff, Outage, seconds};

const LONGEST_WAIT: Duration = Duration::from_secs(600);
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), LONGEST_WAIT);

/// A tree that resists.
struct Resisting {
    /// Attempts to delete it.
    outage: Outage,
    /// When to try again.
    next: Instant,
}

/// Empties the root's trash until cancelled, and gives back what its directories had of the file system. Another agent may do
/// the same there.
pub(super) async fn run(root: ScratchRoot, cancel: CancellationToken) {
    let trash = root.trash();
    let mut resisting: HashMap<CString, Resisting> = HashMap::new();
    let mut unreadable = Outage::default();
    while !cancel.is_cancelled() {
        let mut wait = LONGEST_WAIT;
        match list(trash.clone()).await {
            Ok(names) => {
                if let Some(past) = unreadable.worked(Instant::now()) {
                    tracing::info!(
                        seconds = past.seconds(),
                        failures = past.failures,
                        "the trash can be read again"
                    );
                }
                resisting.retain(|name, _| names.contains(name));
                for name in names.clone() {
                    sweep_one(&trash, name, &mut resisting, &cancel).await;
                }
                let swept = root.clone();
                // Whatever becomes of it, the next round does it again.
                let _ = tokio::task::spawn_blocking(move || swept.free_projects()).await;
                // What lay too deep was moved here meanwhile. Each such move is a step, so that this comes to an end.
                if list(trash.clone()).await.is_ok_and(|now| now.iter().any(|name| !names.contains(name))) {
                    wait = Duration::ZERO;
                }
            }
            Err(error) => {
                if unreadable.failed(Instant::now()) {
                    tracing::warn!(trash = %trash.display(), %error, "the trash can't be read; trying again");
                }
                wait = BACKOFF.pause(unreadable.failures());
            }
        }
        let next = resisting.values().map(|tree| tree.next).min();
        let wake = Instant::now() + wait;
        tokio::select! {
            biased;
            // Stopping wins over work that waits.
            () = cancel.cancelled() => {}
            () = root.discarded().notified() => {}
            () = tokio::time::sleep_until(next.map_or(wake, |next| next.min(wake))) => {}
        }
    }
}

async fn sweep_one(
    trash: &Path,
    name: CString,
    resisting: &mut HashMap<CString, Resisting>,
    cancel: &CancellationToken,
) {
    if cancel.is_cancelled() || resisting.get(&name).is_some_and(|tree| tree.next > Instant::now()) {
        return;
    }
    let began = Instant::now();
    let entry = name.to_string_lossy().into_owned();
    let removal = match delete(trash.to_owned(), name.clone(), cancel.clone()).await {
        Ok(removal) => removal,
        Err(error) => Removal { failed: 1, first: Some((entry.clone(), error)), ..Removal::default() },
    };
    let deleted = removal.deleted;
    let Some((file, error)) = removal.first else {
        if let Some(tree) = resisting.remove(&name) {
            tracing::info!(
                entry,
                deleted,
                attempts = tree.outage.failures() + 1,
                "a scratch directory is deleted at last"
            );
        } else if !removal.stopped {
            tracing::debug!(entry, deleted, seconds = seconds(began.elapsed()), "scratch directory deleted");
        }
        return;
    };
    let now = Instant::now();
    let tree = resisting.entry(name).or_insert_with(|| Resisting { outage: Outage::default(), next: now });
    if tree.outage.failed(now) {
        tracing::warn!(
            entry,
            file,
            %error,
            failed = removal.failed,
            deleted,
            "a discarded scratch directory can't be deleted entirely; trying again"
        );
    }
    tree.next = now + BACKOFF.pause(tree.outage.failures());
}

async fn list(trash: PathBuf) -> io::Result<Vec<CString>> {
    let read = move || {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(trash)? {
            names.push(CString::new(entry?.file_name().into_encoded_bytes())?);
        }
        Ok(names)
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn delete(trash: PathBuf, name: CString, cancel: CancellationToken) -> io::Result<Removal> {
    let delete = move || {
        let trash = beneath::open_trusted(&trash)?;
        Ok(remove_tree(trash.as_fd(), &name, &|| cancel.is_cancelled()))
    };
    tokio::task::spawn_blocking(delete).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::ids::KernelId;

    /// A root with its sweeper running.
    struct Swept {
        dir: tempfile::TempDir,
        root: ScratchRoot,
        cancel: CancellationToken,
        tracker: TaskTracker,
    }

    impl Swept {
        fn new(dir: tempfile::TempDir) -> Self {
            let root = ScratchRoot::open(dir.path()).unwrap();
            let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
            root.start_sweeper(cancel.clone(), &tracker);
            Self { dir, root, cancel, tracker }
        }

        fn trash(&self) -> PathBuf {
            self.dir.path().join(".agent/trash")
        }

        /// Waits until the trash is empty; returns how late a 1 ms timer was at worst meanwhile.
        async fn emptied(&self) -> Duration {
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut worst = Duration::ZERO;
            loop {
                let before = Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                worst = worst.max(before.elapsed());
                if fs::read_dir(self.trash()).unwrap().next().is_none() {
                    return worst;
                }
                assert!(Instant::now() < deadline, "the trash was not emptied");
            }
        }

        async fn stop(self) {
            self.cancel.cancel();
            self.tracker.close();
            tokio::time::timeout(Duration::from_secs(5), self.tracker.wait()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_discarded_and_what_an_earlier_life_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let first = ScratchRoot::open(dir.path()).unwrap();
        let left = KernelId::random();
        first.create(left, &BTreeMap::new(), None).await.unwrap();
        first.discard(left).await.unwrap();
        fs::write(dir.path().join(".agent/trash/stray file"), "").unwrap();
        let swept = Swept::new(dir);
        swept.emptied().await;
        let kernel = KernelId::random();
        swept.root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        swept.root.discard(kernel).await.unwrap();
        swept.emptied().await;
        swept.stop().await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_100_000_file_delete_delays_no_other_task() {
        let swept = Swept::new(tempfile::tempdir().unwrap());
        let kernel = KernelId::random();
        let scratch = swept.root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        for dir in 0..100 {
            let dir = scratch.home().join(format!("d{dir}"));
            fs::create_dir(&dir).unwrap();
            for file in 0..1000 {
                fs::File::create(dir.join(format!("f{file}"))).unwrap();
            }
        }
        let began = Instant::now();
        swept.root.discard(kernel).await.unwrap();
        let discard = began.elapsed();
        let worst = swept.emptied().await;
        let total = began.elapsed();
        println!(
            "100,000 files: discard {discard:?}, deleted in {total:?}, a 1 ms timer late by {worst:?} at worst"
        );
        assert!(worst < Duration::from_millis(500), "{worst:?}");
        assert!(discard < Duration::from_millis(500), "{discard:?}");
        swept.stop().await;
    }

    /// Every 32 levels the rest of a nest moves to the trash's top, and must not wait there for the next round.
    #[tokio::test]
    async fn a_deep_nest_goes_without_waiting() {
        let swept = Swept::new(tempfile::tempdir().unwrap());
        let kernel = KernelId::random();
        let scratch = swept.root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        let nest: PathBuf = std::iter::repeat_n("d", 500).collect();
        fs::create_dir_all(scratch.home().join(nest)).unwrap();
        swept.root.discard(kernel).await.unwrap();
        swept.emptied().await;
        swept.stop().await;
    }

    #[tokio::test]
    async fn a_stop_breaks_off_a_long_delete() {
        let swept = Swept::new(tempfile::tempdir().unwrap());
        let kernel = KernelId::random();
        let scratch = swept.root.create(kernel, &BTreeMap::new(), None).await.unwrap();
        for file in 0..20_000 {
            fs::File::create(scratch.home().join(format!("f{file}"))).unwrap();
        }
        swept.root.discard(kernel).await.unwrap();
        swept.stop().await;
    }
}
