//! Watches the disks that new kernels need: below the scratch root, and Docker's own.
//!
//! One task, for each of the two a look every [`EVERY`] on a thread that may hang: while it does nothing else is started there,
//! and after [`LIMIT`] the disk counts as one that does not answer. A look asks the system, which costs nothing, and writes a small
//! file only while something is in doubt: after a look that found fault, and after a write of the agent's own that failed or hung
//! ([`ScratchRoot::doubt`], which also brings the next look forward). The kernels' statistics are written every few seconds, and
//! without kernels every quarter of a minute, so that a disk on which nothing else happens is noticed as well.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::root::ScratchRoot;
use super::space::{MinFree, Space};
use crate::figures::{self, table};

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(3);

/// From a doubt to the look that it causes.
const GATHER: Duration = Duration::from_millis(200);

/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Whoever watches the disks.
pub struct DiskWatch {
    root: Watched,
    /// `None` where Docker's files are not on this machine.
    docker: Option<Watched>,
    /// Why no kernel can be made; `None` while there is nothing to say.
    trouble: watch::Sender<Option<String>>,
}

/// One of the two.
struct Watched {
    place: Place,
    min: MinFree,
    /// What the last look found.
    trouble: Option<String>,
    /// A look that hangs.
    hanging: Option<(JoinHandle<Look>, Instant)>,
}

/// What a look found: why no kernel can be made.
type Look = Option<String>;

#[derive(Clone)]
enum Place {
    Root(ScratchRoot),
    /// Docker's, which the agent does not write to.
    Docker(PathBuf),
}

impl DiskWatch {
    /// Watches the scratch root; blocks for the first look. What it found is in [`DiskWatch::trouble`].
    #[must_use]
    pub fn new(root: ScratchRoot, min: MinFree) -> Self {
        let place = Place::Root(root);
        let trouble = look(&place, min, false, true);
        let (trouble, watched) = (watch::Sender::new(trouble.clone()), trouble);
        Self { root: Watched { place, min, trouble: watched, hanging: None }, docker: None, trouble }
    }

    /// Watches Docker's disk, too, as far as `data_root` is on this machine; an engine that does not say has an empty one.
    pub fn and_docker(&mut self, data_root: &str) {
        if !data_root.is_empty() {
            let (place, min) = (Place::Docker(data_root.into()), self.root.min);
            self.docker = Some(Watched { place, min, trouble: None, hanging: None });
        }
    }

    /// Why no kernel can be made.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Looks for ever.
    pub async fn run(mut self) {
        let Place::Root(root) = self.root.place.clone() else { return };
        loop {
            let next = Instant::now() + EVERY;
            let is_doubtful = root.take_doubt();
            match &mut self.docker {
                Some(docker) => drop(tokio::join!(self.root.look(is_doubtful), docker.look(false))),
                None => self.root.look(is_doubtful).await,
            }
            let docker = self.docker.as_ref().and_then(|docker| docker.trouble.as_deref());
            let found: Vec<&str> = self.root.trouble.as_deref().into_iter().chain(docker).collect();
            let found = (!found.is_empty()).then(|| found.join("; "));
            self.trouble.send_if_modified(|told| {
                let is_news = *told != found;
                *told = found;
                is_news
            });
            tokio::select! {
                () = sleep_until(next) => {}
                // Many writes may fail at once.
                () = async { (root.doubted().await, sleep(GATHER).await).1 } => {}
            }
        }
    }
}

impl Watched {
    async fn look(&mut self, is_doubtful: bool) {
        let (mut thread, begun) = self.hanging.take().unwrap_or_else(|| {
            let (place, min, was_bad) = (self.place.clone(), self.min, self.trouble.is_some());
            let thread =
                tokio::task::spawn_blocking(move || look(&place, min, was_bad, was_bad || is_doubtful));
            (thread, Instant::now())
        });
        let limit = (begun + LIMIT).saturating_duration_since(Instant::now());
        match timeout(limit, &mut thread).await {
            Ok(Ok(found)) => self.trouble = found,
            Ok(Err(_)) => self.trouble = Some("the thread that looks at the disk ended early".to_owned()),
            Err(_) => {
                let path = self.place.path().display();
                let text =
                    format!("the disk below {path} does not answer for more than {} s", LIMIT.as_secs());
                self.trouble = Some(text);
                self.hanging = Some((thread, begun));
                if let Place::Root(_) = self.place {
                    measured(None);
                }
            }
        }
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Root(root) => root.path(),
            Self::Docker(path) => path,
        }
    }
}

/// Blocks.
fn look(place: &Place, min: MinFree, was_low: bool, may_write: bool) -> Look {
    let path = place.path();
    if let Place::Root(root) = place
        && let Err(trouble) = root.look()
    {
        measured(None);
        return Some(trouble);
    }
    let found = space_of(path);
    if let Place::Root(_) = place {
        measured(found.as_ref().ok());
    }
    let space = match found {
        Ok(space) => space,
        // An engine elsewhere, or an agent in a container of its own.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("can't look at the disk below {}: {error}", path.display())),
    };
    let lacks = min.lacks(space, was_low, path);
    match place {
        Place::Root(root) if may_write => lacks.or_else(|| root.write_something().err()),
        Place::Root(_) | Place::Docker(_) => lacks,
    }
}

/// Tells the figures of the scratch root's disk; `None` while nobody knows.
fn measured(space: Option<&Space>) {
    // Above 2^53 bytes a figure is rounded.
    #[allow(clippy::cast_precision_loss)]
    let row =
        |value: Option<u64>| value.map(|value| (Vec::new(), value as f64)).into_iter().collect::<Vec<_>>();
    figures::replace(&table::SCRATCH_BYTES, row(space.map(|space| space.bytes)));
    figures::replace(&table::SCRATCH_FREE, row(space.map(|space| space.free_bytes)));
    let limited = space.filter(|space| space.inodes > 0);
    figures::replace(&table::SCRATCH_INODES_FREE, row(limited.map(|space| space.free_inodes)));
}

/// What is left of the file system that `path` is on. Blocks.
pub fn space_of(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        inodes: found.f_files,
        free_inodes: found.f_favail.min(found.f_ffree),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_root_that_is_there_has_nothing_to_say_and_one_that_goes_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = ScratchRoot::open(dir.path()).unwrap();
        let off = "0".parse().unwrap();
        let watch = DiskWatch::new(root.clone(), off);
        let mut trouble = watch.trouble();
        assert_eq!(*trouble.borrow_and_update(), None);
        let running = tokio::spawn(watch.run());
        let limit = Duration::from_secs(20);
        std::fs::rename(dir.path().join(".agent"), dir.path().join("away")).unwrap();
        root.doubt();
        timeout(limit, trouble.wait_for(Option::is_some)).await.unwrap().unwrap();
        std::fs::rename(dir.path().join("away"), dir.path().join(".agent")).unwrap();
        root.doubt();
        timeout(limit, trouble.wait_for(Option::is_none)).await.unwrap().unwrap();
        running.abort();
    }

    #[test]
    fn an_engine_s_disk_is_looked_at_where_it_is_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Docker(dir.path().to_owned());
        let found = space_of(dir.path()).unwrap();
        assert!(found.bytes >= found.free_bytes && found.bytes > 0, "{found:?}");
        assert_eq!(look(&place, "0".parse().unwrap(), false, true), None);
        let elsewhere = Place::Docker(dir.path().join("none"));
        assert_eq!(look(&elsewhere, MinFree::default(), false, true), None);
    }
}
