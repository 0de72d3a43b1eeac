//! What the agent itself must remember of kernels, as one small file each below `{scratch root}/.agent/`.
//!
//! - `kernels/{id}.json`: the kernel exists; in which phase; the run that goes on; when it was used last. Docker's
//!   labels can't change after the create, and a container that was removed takes its labels with it.
//! - `endings/{id}.json`: the kernel is being ended, why, and its last statistics; after the event arrived it is
//!   kept for an hour, marked as told, so that a second destroy is not told again (section 12, items 1 and 4).
//!   While the event is under way it is marked as such: a crash in that moment leaves open whether it arrived. It most
//!   likely did, and a second one would do harm in the manager, so it is told again only if the manager asks for the
//!   kernel's end: a manager that knows of the end never does.
//!
//! - `samples.{namespace}.{instance}.json`: the last statistics of all kernels, for those that die while no agent runs.
//!
//! Files are written under a temporary name and renamed. Endings are synced to the disk first; notes of runs need
//! to survive the agent only, not the machine, since no run survives that either. A file that can't be understood
//! is renamed to `*.set-aside` with a warning and never stops a start.

mod files;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use self::files::{Entry, VERSION, file, read_all, remove, set_aside, write};
use super::labels::Owner;
use crate::ids::KernelId;
use crate::wire::event::EndReason;
use crate::wire::sample::Sample;

/// How long a told ending is remembered, in seconds (section 12, item 4).
const REMEMBER_SECS: u64 = 3600;

/// A kernel that exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelNote {
    version: u32,
    /// Which agent wrote it; several may share a scratch root.
    #[serde(default)]
    owner: Option<String>,
    /// Which kernel.
    pub kernel: String,
    /// How far it is.
    pub phase: NotedPhase,
    /// The run that goes on.
    pub run: Option<String>,
    /// Whether it waits for input.
    #[serde(default)]
    pub waits: bool,
    /// When it was used last, in seconds since 1970.
    pub last_use: u64,
    /// The container of a kernel that was adopted, which has no labels.
    pub adopted: Option<String>,
}

/// How far a noted kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotedPhase {
    /// The manager has not been answered: after a crash all of it is undone, and nothing is reported.
    Creating,
    /// It runs.
    Running,
    /// Between two containers.
    Restarting,
}

/// A kernel that is ending or has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    version: u32,
    /// Which agent wrote it.
    #[serde(default)]
    owner: Option<String>,
    /// Which kernel.
    pub kernel: String,
    /// Why, as on the wire.
    pub reason: String,
    /// Its last statistics, if any were taken.
    pub sample: Option<Sample>,
    /// When its event began to leave for the manager, in seconds since 1970; `None` while it waits. Found by the next life
    /// without `told_at`, it is open whether the event arrived.
    #[serde(default)]
    pub left_at: Option<u64>,
    /// When its event arrived, in seconds since 1970; `None` while that is still to do.
    pub told_at: Option<u64>,
}

impl KernelNote {
    /// A note of now.
    #[must_use]
    pub fn new(kernel: KernelId, phase: NotedPhase) -> Self {
        let kernel = kernel.to_string();
        Self {
            version: VERSION,
            owner: None,
            kernel,
            phase,
            run: None,
            waits: false,
            last_use: unix_now(),
            adopted: None,
        }
    }
}

impl Ending {
    /// An ending that begins.
    #[must_use]
    pub fn new(kernel: KernelId, reason: EndReason, sample: Option<Sample>) -> Self {
        let (kernel, reason) = (kernel.to_string(), reason.to_string());
        Self { version: VERSION, owner: None, kernel, reason, sample, left_at: None, told_at: None }
    }
}

/// The files. All methods block for a small write; call them where that does no harm.
#[derive(Debug)]
pub struct Notes {
    kernels: PathBuf,
    endings: PathBuf,
    /// The file of statistics.
    samples: PathBuf,
    /// Whose notes these are: namespace and instance id. Others' are not looked at.
    owner: String,
    /// What `endings` holds, so that a destroy of an ended kernel costs no disk access. A std mutex, held for a
    /// look-up and never over an await.
    ended: Mutex<HashMap<KernelId, Told>>,
}

/// What the manager knows of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing yet; this life of the agent sees to it. `doubted`: it may come at a moment in which it is not heard.
    Not {
        /// See [`Notes::unheard`].
        doubted: bool,
    },
    /// An earlier life was killed at the moment of telling, in seconds since 1970.
    Perhaps(u64),
    /// It was told, in seconds since 1970.
    At(u64),
}

impl Told {
    fn of(ending: &Ending) -> Self {
        match (ending.told_at, ending.left_at) {
            (Some(at), _) => Self::At(at),
            (None, Some(at)) => Self::Perhaps(at),
            (None, None) => Self::Not { doubted: false },
        }
    }
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Found {
    /// Kernels that existed.
    pub kernels: HashMap<KernelId, KernelNote>,
    /// Endings whose event has not left.
    pub untold: HashMap<KernelId, Ending>,
    /// Kernels whose end was told, as far as anybody can know: nothing of them shall be told by itself.
    pub over: HashSet<KernelId>,
    /// Each kernel's last statistics.
    pub samples: HashMap<KernelId, Sample>,
}

/// Where notes are kept; whose is not said yet.
#[derive(Debug)]
pub struct NotesDir {
    /// Holds the directories of both kinds.
    path: PathBuf,
}

impl NotesDir {
    /// Opens the two directories, making them where they are missing.
    pub fn open(agent_dir: &Path) -> io::Result<Self> {
        for dir in ["kernels", "endings"] {
            fs::create_dir_all(agent_dir.join(dir))?;
        }
        Ok(Self { path: agent_dir.to_owned() })
    }

    /// The notes of one agent.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Notes {
        Notes {
            kernels: self.path.join("kernels"),
            endings: self.path.join("endings"),
            samples: self.path.join(format!("samples.{}.{}.json", owner.namespace, owner.instance)),
            owner: owner.to_string(),
            ended: Mutex::default(),
        }
    }
}

impl Notes {
    /// Reads everything an earlier life left.
    pub fn load(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for (id, note) in read_all::<KernelNote>(&self.kernels, &self.owner)? {
            found.kernels.insert(id, note);
        }
        for (id, ending) in read_all::<Ending>(&self.endings, &self.owner)? {
            let told = Told::of(&ending);
            self.ended().insert(id, told);
            match told {
                Told::Not { .. } => drop(found.untold.insert(id, ending)),
                Told::Perhaps(_) => {
                    tracing::warn!(kernel = %id, "the agent was killed while it told this kernel's end; not telling it twice");
                    found.over.insert(id);
                }
                Told::At(_) => drop(found.over.insert(id)),
            }
        }
        found.samples = self.samples();
        Ok(found)
    }

    /// Keeps the last statistics; a file that is lost costs figures, never a kernel.
    pub fn keep_samples(&self, samples: &[(KernelId, Sample)]) -> io::Result<()> {
        let by_text: HashMap<String, &Sample> = samples.iter().map(|(k, s)| (k.to_string(), s)).collect();
        let temporary = self.samples.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec(&by_text)?)?;
        fs::rename(&temporary, &self.samples)
    }

    /// The statistics that were kept last.
    #[must_use]
    pub fn samples(&self) -> HashMap<KernelId, Sample> {
        let Ok(bytes) = fs::read(&self.samples) else { return HashMap::new() };
        match serde_json::from_slice::<HashMap<String, Sample>>(&bytes) {
            Ok(found) => found.into_iter().filter_map(|(k, s)| Some((k.parse().ok()?, s))).collect(),
            Err(error) => {
                set_aside(&self.samples, &error.to_string());
                HashMap::new()
            }
        }
    }

    /// Writes a kernel's note; `durable` syncs it, so that it survives the machine.
    pub fn note(&self, kernel: KernelId, note: &KernelNote, durable: bool) -> io::Result<()> {
        write(&self.kernels, kernel, &KernelNote { owner: Some(self.owner.clone()), ..note.clone() }, durable)
    }

    /// The kernel exists no more.
    pub fn forget(&self, kernel: KernelId) {
        remove(&file(&self.kernels, kernel));
    }

    /// The kernel is about to be ended: before anything is done to it.
    pub fn ending(&self, kernel: KernelId, ending: &Ending) -> io::Result<()> {
        // Remembered even if the disk refuses: this life of the agent still tells it once.
        self.ended().insert(kernel, Told::Not { doubted: false });
        self.write_ending(kernel, ending.clone(), true)
    }

    /// Its event is about to leave, or (`false`) did not arrive and waits again. Not synced: this is for a kill of the
    /// agent, and syncing takes a hundred times as long.
    pub fn under_way(&self, kernel: KernelId, mut ending: Ending, is_under_way: bool) -> io::Result<()> {
        if matches!(self.ended().get(&kernel), Some(Told::At(_))) {
            // A slow disk: it has arrived meanwhile.
            return Ok(());
        }
        ending.left_at = is_under_way.then(unix_now);
        self.write_ending(kernel, ending, false)
    }

    /// Its event has arrived.
    pub fn told(&self, kernel: KernelId, mut ending: Ending) -> io::Result<()> {
        let now = unix_now();
        let mut ended = self.ended();
        if ended.get(&kernel) == Some(&(Told::Not { doubted: true })) {
            ending.left_at = Some(now);
            ended.insert(kernel, Told::Perhaps(now));
        } else {
            ending.told_at = Some(now);
            ended.insert(kernel, Told::At(now));
        }
        drop(ended);
        // Renamed before it is synced, for the same reason.
        self.write_ending(kernel, ending, false)?;
        File::open(file(&self.endings, kernel))?.sync_all()
    }

    /// A kernel of this id was made again.
    pub fn born_again(&self, kernel: KernelId) {
        if self.ended().remove(&kernel).is_some() {
            remove(&file(&self.endings, kernel));
        }
    }

    /// Whether an end that the manager asks for has to be told; from now on it is being told.
    ///
    /// Not if it was told (section 12, item 4): the request and the event may have crossed.
    #[must_use]
    pub fn must_tell(&self, kernel: KernelId) -> bool {
        let mut ended = self.ended();
        let must = match ended.get(&kernel) {
            None | Some(Told::Perhaps(_)) => true,
            Some(Told::Not { .. } | Told::At(_)) => false,
        };
        if must {
            ended.insert(kernel, Told::Not { doubted: false });
        }
        must
    }

    /// The end as it was told, if it is remembered.
    #[must_use]
    pub fn stored(&self, kernel: KernelId) -> Option<Ending> {
        let ending: Ending = serde_json::from_slice(&fs::read(file(&self.endings, kernel)).ok()?).ok()?;
        Some(Ending { left_at: None, told_at: None, ..ending })
    }

    /// An end that was told, or is on its way, is not heard by the manager: the next question after it tells it again.
    pub fn unheard(&self, kernel: KernelId) -> io::Result<()> {
        let now = unix_now();
        match self.ended().get_mut(&kernel) {
            Some(told @ Told::At(_)) => *told = Told::Perhaps(now),
            Some(Told::Not { doubted }) => {
                *doubted = true;
                return Ok(());
            }
            Some(Told::Perhaps(_)) | None => return Ok(()),
        }
        let path = file(&self.endings, kernel);
        let mut ending: Ending = serde_json::from_slice(&fs::read(path)?)?;
        (ending.left_at, ending.told_at) = (Some(now), None);
        self.write_ending(kernel, ending, false)
    }

    /// Forgets endings that were told more than an hour ago.
    pub fn purge(&self) {
        let limit = unix_now().saturating_sub(REMEMBER_SECS);
        let is_old = |told: &Told| match told {
            Told::At(at) | Told::Perhaps(at) => *at < limit,
            Told::Not { .. } => false,
        };
        let old: Vec<_> = self.ended().extract_if(|_, told| is_old(told)).map(|(kernel, _)| kernel).collect();
        // Without the lock: a disk may hang, and requests look things up.
        for kernel in old {
            remove(&file(&self.endings, kernel));
        }
    }

    fn write_ending(&self, kernel: KernelId, ending: Ending, durable: bool) -> io::Result<()> {
        write(&self.endings, kernel, &Ending { owner: Some(self.owner.clone()), ..ending }, durable)
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<KernelId, Told>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Entry for KernelNote {
    fn head(&mut self) -> (u32, &str, Option<String>) {
        (self.version, &self.kernel, self.owner.take())
    }
}

impl Entry for Ending {
    fn head(&mut self) -> (u32, &str, Option<String>) {
        (self.version, &self.kernel, self.owner.take())
    }
}

#[cfg(test)]
mod tests;
