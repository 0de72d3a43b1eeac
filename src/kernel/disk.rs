//! The disk below the scratch root, for tasks that must not wait long for it.
//!
//! A write to a disk that hangs can't be taken back: its thread stays until the disk answers. So each is waited for up
//! to a limit, and while an earlier one hangs, only for a tenth of it: many ends at once must not wait in turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Handle of the disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    /// How many steps were given up and hang still.
    hanging: Arc<AtomicUsize>,
}

impl Disk {
    /// Does a small blocking step and waits for it, at most `limit`. One that is given up goes on by itself.
    pub(super) async fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let is_hanging = self.hanging.load(Ordering::Relaxed) > 0;
        let limit = if is_hanging { limit / 10 } else { limit };
        let mut thread = tokio::task::spawn_blocking(step);
        if let Ok(done) = timeout(limit, &mut thread).await {
            return done.unwrap_or_else(|broken| Err(io::Error::other(broken)));
        }
        self.count_until_it_ends(thread);
        Err(late())
    }

    fn count_until_it_ends<T: Send + 'static>(&self, thread: JoinHandle<T>) {
        let hanging = self.hanging.clone();
        hanging.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // However it ends.
            let _ = thread.await;
            hanging.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")
}

/// Keeps the writes of one file in order, also when the disk hangs: what is written last stays.
#[derive(Debug, Clone, Default)]
pub(super) struct InOrder(Arc<Mutex<()>>);

impl InOrder {
    /// Does the step when those before it have come to their end. Given up before its turn, it is never done.
    pub(super) async fn within<T: Send + 'static>(
        &self,
        disk: &Disk,
        limit: Duration,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = timeout(limit, self.0.clone().lock_owned()).await.map_err(|_| late())?;
        disk.within(limit, move || {
            let done = step();
            drop(turn);
            done
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    fn hang(disk: Receiver<()>) -> impl FnOnce() -> io::Result<()> {
        move || disk.recv().map_err(io::Error::other)
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_waited_for_once() {
        let (disk, (answer, hangs)) = (Disk::default(), channel());
        let late = disk.within(LIMIT, hang(hangs)).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let begun = Instant::now();
        let (second, hangs) = channel();
        disk.within(LIMIT, hang(hangs)).await.unwrap_err();
        assert!(begun.elapsed() < LIMIT, "a tenth is enough");
        answer.send(()).unwrap();
        drop(second);
        while disk.hanging.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(disk.within(LIMIT, || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_is_written_last_stays_when_an_earlier_write_hangs() {
        let (disk, order, (answer, hangs)) = (Disk::default(), InOrder::default(), channel());
        let file = Arc::new(std::sync::Mutex::new("nothing"));
        let write = |text| {
            let file = file.clone();
            move || {
                *file.lock().unwrap() = text;
                Ok(())
            }
        };
        let (slow, first) = (hang(hangs), write("first"));
        let hanging = order.within(&disk, LIMIT, move || slow().and_then(|()| first())).await;
        assert!(hanging.is_err());
        order.within(&disk, LIMIT, write("given up")).await.unwrap_err();
        answer.send(()).unwrap();
        order.within(&disk, LIMIT, write("last")).await.unwrap();
        assert_eq!(*file.lock().unwrap(), "last");
    }
}
