//! The journal of ends: why a kernel is being ended, its last statistics, and how far its event is.
//!
//! After the event arrived an end is kept for an hour, marked as told: a destroy within the next minute may have crossed the event
//! and is not told again, a later one proves that the event was not heard (section 12, items 1 and 4).
//! While the event is under way it is marked as such: a crash in that moment leaves open whether it arrived. It most
//! likely did, and a second one would do harm in the manager, so it is told again only if the manager asks for the
//! kernel's end: a manager that knows of the end never does.
//!
//! While the file system of the scratch root is not mounted, what is written there is hidden once it is. Ends of that time are
//! kept in the shelter for as long as it takes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entries::{Ended, Ending, Told, unix_now};
use super::files::{file, read_all, remove, write};
use super::reserve::Reserve;
use super::shelter::Shelter;
use crate::ids::KernelId;
use crate::kernel::labels::Owner;
use crate::wire::event::EndReason;

/// How long a told ending is remembered, in seconds (section 12, item 4).
pub(super) const REMEMBER_SECS: u64 = 3600;

/// For how long after its arrival an event and a destroy of the same kernel may have crossed, in seconds.
pub(super) const CROSSING_SECS: u64 = 60;

/// One file for each end. All methods block for a small write; call them where that does no harm.
#[derive(Debug)]
pub struct Journal {
    /// The files' directory.
    dir: PathBuf,
    /// Whose ends these are: namespace and instance id. Others' are not looked at.
    owner: String,
    /// What the files say, so that a destroy of an ended kernel costs no disk access. A std mutex, held for a
    /// look-up and never over an await.
    ended: Mutex<HashMap<KernelId, Ended>>,
    /// For a disk that takes no new files.
    reserve: Arc<Reserve>,
    /// For ends that it doesn't take at all.
    shelter: Shelter,
    /// Whether the directory is below the mount point of a file system that is away.
    is_away: AtomicBool,
}

/// Ends whose event has not left, and kernels whose end was told, as far as anybody can know.
pub(super) type Loaded = (HashMap<KernelId, Ending>, HashSet<KernelId>);

impl Journal {
    /// The journal of one agent in this directory.
    pub(super) fn new(dir: PathBuf, owner: &Owner, reserve: Arc<Reserve>, shelter: Shelter) -> Self {
        let owner = owner.to_string();
        Self { dir, owner, ended: Mutex::default(), reserve, shelter, is_away: AtomicBool::default() }
    }

    /// Reads what an earlier life left, but of the kernels whose ends are of this life: those are told, or seen to.
    pub(super) fn load(&self, of_this_life: &HashSet<KernelId>) -> io::Result<Loaded> {
        let (mut untold, mut over) = (HashMap::new(), of_this_life.clone());
        let first = read_all::<Ending>(&self.dir, &self.owner)?.into_iter();
        let mut all: HashMap<_, _> = first.map(|(id, ending)| (id, (ending, true))).collect();
        let second = self.shelter.found::<Ending>(&self.owner).into_iter();
        all.extend(second.map(|(id, ending)| (id, (ending, false))));
        all.retain(|id, _| !of_this_life.contains(id));
        for (id, (ending, written)) in all {
            let ended = Ended { written, ..Ended::found(&ending) };
            let (told, is_unheard) = (ended.told, ending.unheard);
            self.ended().insert(id, ended);
            match told {
                Told::Not { .. } => drop(untold.insert(id, ending)),
                Told::Perhaps(_) => {
                    if !is_unheard {
                        tracing::warn!(kernel = %id, "an earlier agent ended in the moment in which it told this kernel's end, which is told again only if the manager asks for it");
                    }
                    over.insert(id);
                }
                Told::At(_) => drop(over.insert(id)),
            }
        }
        Ok((untold, over))
    }

    /// The file system of the scratch root is away: what is written there from now on is hidden once it is back.
    pub fn root_is_away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
    }

    /// It is back, and is to have all that was kept elsewhere.
    pub fn root_is_back(&self) {
        self.is_away.store(false, Ordering::Relaxed);
        for ended in self.ended().values_mut() {
            (ended.away, ended.written) = (false, false);
        }
    }

    /// Kernels that ended while it was away, as far as it isn't known to be back.
    #[must_use]
    pub fn ended_without_root(&self) -> Vec<KernelId> {
        let ended = self.ended();
        ended.iter().filter(|(_, ended)| ended.away).map(|(kernel, _)| *kernel).collect()
    }

    /// Kernels whose ends are remembered.
    #[must_use]
    pub fn all(&self) -> HashSet<KernelId> {
        self.ended().keys().copied().collect()
    }

    /// Writes what the disk refused before. What it refuses still is left for the next time.
    pub(super) fn catch_up(&self) {
        let behind: Vec<KernelId> =
            self.ended().iter().filter(|(_, ended)| !ended.written).map(|(kernel, _)| *kernel).collect();
        for kernel in behind {
            // Whoever tells this end may write it, too: what is newest in memory is written last.
            while let Some(entry) = self.entry(kernel) {
                if self.write_ending(kernel, entry.clone(), true).is_err()
                    || self.entry(kernel) == Some(entry)
                {
                    break;
                }
            }
        }
    }

    /// Whether any agent has noted an end of this kernel.
    pub(super) fn knows(&self, kernel: KernelId) -> bool {
        file(&self.dir, kernel).exists()
    }

    /// The kernel is about to be ended: before anything is done to it.
    pub fn ending(&self, kernel: KernelId, ending: &Ending) -> io::Result<()> {
        // Remembered even if the disk refuses: this life of the agent still tells it once.
        let told = Told::Not { doubted: false };
        {
            let mut all = self.ended();
            let away = all.get(&kernel).is_some_and(|before| before.away);
            all.insert(kernel, Ended { told, away, written: false, ..Ended::found(ending) });
        }
        self.write_ending(kernel, ending.clone(), true)
    }

    /// The end's event is about to leave, or (`false`) did not arrive and waits again. Not synced: this is for a kill of the
    /// agent, and syncing takes a hundred times as long.
    pub fn under_way(&self, kernel: KernelId, mut ending: Ending, is_under_way: bool) -> io::Result<()> {
        ending.left_at = is_under_way.then(unix_now);
        if let Some(ended) = self.ended().get_mut(&kernel) {
            if matches!(ended.told, Told::At(_)) {
                // A slow disk: it has arrived meanwhile.
                return Ok(());
            }
            ended.under_way = ending.left_at;
        }
        self.write_ending(kernel, ending, false)
    }

    /// The end's event has arrived.
    pub fn told(&self, kernel: KernelId, mut ending: Ending) -> io::Result<()> {
        let now = unix_now();
        {
            let mut all = self.ended();
            let ended = all.entry(kernel).or_insert_with(|| Ended::found(&ending));
            ended.under_way = None;
            if ended.told == (Told::Not { doubted: true }) {
                (ending.left_at, ending.unheard, ended.unheard) = (Some(now), true, true);
                ended.told = Told::Perhaps(now);
            } else {
                ending.told_at = Some(now);
                ended.told = Told::At(now);
            }
        }
        // Renamed before it is synced, for the same reason.
        self.write_ending(kernel, ending, false)?;
        File::open(file(&self.dir, kernel))?.sync_all()
    }

    /// A kernel of this id was made again.
    pub fn born_again(&self, kernel: KernelId) {
        if self.ended().remove(&kernel).is_some() {
            remove(&file(&self.dir, kernel));
            self.shelter.forget(kernel);
        }
    }

    /// The end that has to be told because the manager asks for it; from now on it is being told.
    ///
    /// Not if it was told just now (section 12, item 4): the request and the event may have crossed. A manager that asks
    /// later has not heard it, since it never asks for the end of a session that it knows to be over.
    #[must_use]
    pub fn to_be_told(&self, kernel: KernelId) -> Option<Ending> {
        let mut all = self.ended();
        let ended = all.entry(kernel).or_insert_with(|| {
            let unknown = Ended::found(&Ending::new(kernel, EndReason::AlreadyTerminated, None));
            Ended { told: Told::Perhaps(0), ..unknown }
        });
        let must = match ended.told {
            Told::Perhaps(_) => true,
            Told::Not { .. } => false,
            Told::At(at) => unix_now().saturating_sub(at) >= CROSSING_SECS,
        };
        must.then(|| {
            (ended.told, ended.unheard) = (Told::Not { doubted: false }, false);
            ended.ending(kernel)
        })
    }

    /// An end that was told, or is on its way, is not heard by the manager: the next question after it tells it again.
    pub fn unheard(&self, kernel: KernelId) -> io::Result<()> {
        let now = unix_now();
        let ending = match self.ended().get_mut(&kernel) {
            Some(ended) if matches!(ended.told, Told::At(_)) => {
                (ended.told, ended.unheard) = (Told::Perhaps(now), true);
                Ending { left_at: Some(now), ..ended.ending(kernel) }
            }
            Some(Ended { told: Told::Not { doubted }, .. }) => {
                *doubted = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.write_ending(kernel, ending, false)
    }

    /// Forgets endings that were told more than an hour ago.
    pub fn purge(&self) {
        let limit = unix_now().saturating_sub(REMEMBER_SECS);
        let is_old = |told: &Told| match told {
            Told::At(at) | Told::Perhaps(at) => *at < limit,
            Told::Not { .. } => false,
        };
        let goes = |ended: &Ended| is_old(&ended.told) && !ended.away;
        let old: Vec<_> = self.ended().extract_if(|_, ended| goes(ended)).map(|(kernel, _)| kernel).collect();
        // Without the lock: a disk may hang, and requests look things up.
        for kernel in old {
            remove(&file(&self.dir, kernel));
            self.shelter.forget(kernel);
        }
    }

    /// The entry of an end as the disk should have it.
    fn entry(&self, kernel: KernelId) -> Option<Ending> {
        self.ended().get(&kernel).map(|ended| ended.entry(kernel))
    }

    fn write_ending(&self, kernel: KernelId, ending: Ending, durable: bool) -> io::Result<()> {
        let away = {
            let mut all = self.ended();
            let is_away = self.is_away.load(Ordering::Relaxed);
            all.get_mut(&kernel).map_or(is_away, |ended| {
                ended.away |= is_away;
                ended.away
            })
        };
        let entry = Ending { owner: Some(self.owner.clone()), away, ..ending };
        let written = write(&self.dir, kernel, &entry, durable, &self.reserve);
        let was_written = self
            .ended()
            .get_mut(&kernel)
            .is_none_or(|ended| std::mem::replace(&mut ended.written, written.is_ok()));
        match &written {
            Ok(()) if away => self.shelter.keep(kernel, &entry),
            Ok(()) if !was_written => self.shelter.forget(kernel),
            Ok(()) => {}
            Err(_) => self.shelter.keep(kernel, &entry),
        }
        written
    }

    pub(super) fn ended(&self) -> MutexGuard<'_, HashMap<KernelId, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
