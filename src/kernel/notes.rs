//! What the agent itself must remember of kernels, as one small file each below `{scratch root}/.agent/`.
//!
//! - `kernels/{id}.json`: the kernel exists; in which phase; when it was used last; its environment, which would be
//!   everybody's to read among Docker's labels and its user's to lose in the scratch directory. Labels can't change after
//!   the create, and a container that was removed takes its labels with it.
//! - `runs/{id}.json`: the run that goes on in it; `runs/{id}.output/`: output that nobody has collected.
//! - `endings/{id}.json`: the kernel is being ended ([`journal`]).
//!
//! - `samples.{namespace}.{instance}.json`: the last statistics of all kernels, for those that die while no agent runs.
//!
//! - `reserve/`: files that become notes when the disk has no room (`reserve`). Ends and notes of runs that it doesn't take at all are
//!   kept elsewhere (`shelter`).
//!
//! Files are the agent's alone to read (0600). They are written under a temporary name and renamed; notes of runs are written over where
//! they are there and small. Endings are synced to the disk first; notes of runs need to survive the agent only, not the machine, since
//! no run survives that either. A file that can't be understood
//! is renamed to `*.set-aside` with a warning and never stops a start.

mod entries;
mod files;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod journal;
mod outputs;
mod reserve;
mod shelter;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::entries::{Ending, Environ, KernelNote, NotedPhase, RunNote, unix_now};
use self::files::{file, read_all, read_one, remove, set_aside, write, write_over};
pub use self::journal::Journal;
use self::reserve::Reserve;
use self::shelter::Shelter;
use super::disk::Disk;
use super::labels::Owner;
use crate::ids::KernelId;
use crate::runner::{LeftOutput, Spilled};
use crate::wire::sample::Sample;

/// Changes with each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The files. All methods block for a small write; call them where that does no harm.
#[derive(Debug)]
pub struct Notes {
    kernels: PathBuf,
    runs: PathBuf,
    /// The file of statistics.
    samples: PathBuf,
    /// Whose notes these are: namespace and instance id. Others' are not looked at.
    owner: String,
    /// This boot of the machine; `None` where it can't be told from others.
    boot: Option<String>,
    /// For whoever must not wait for it.
    disk: Disk,
    /// The ends.
    pub journal: Journal,
    /// For a disk that takes no new files.
    reserve: Arc<Reserve>,
    /// For notes of runs that it doesn't take at all.
    sheltered_runs: Shelter,
    /// Kernels that exist no more, and whose notes the disk did not let go. A std mutex, held for a look-up.
    unforgotten: Mutex<HashSet<KernelId>>,
}

/// What an earlier life noted of one kernel.
#[derive(Debug, Default)]
pub struct Noted {
    /// The kernel's own note.
    pub kernel: Option<KernelNote>,
    /// That of the run that goes on.
    pub run: Option<RunNote>,
    /// Output of its runs that nobody has collected.
    pub output: Vec<LeftOutput>,
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
    /// This boot of the machine.
    pub boot: Option<String>,
}

/// Where notes are kept; whose is not said yet.
#[derive(Debug)]
pub struct NotesDir {
    /// Holds the directories of all kinds.
    path: PathBuf,
    /// This boot of the machine.
    boot: Option<String>,
    /// Where what the disk doesn't take is kept; on another file system, if anywhere.
    shelter: Option<PathBuf>,
}

impl NotesDir {
    /// The notes in `agent_dir`. The scratch room makes their directories, as soon as the disk takes them. Ends and
    /// notes of runs that it doesn't take are kept in `shelter`, a directory that outlives the agent.
    #[must_use]
    pub fn new(agent_dir: PathBuf, shelter: Option<PathBuf>) -> Self {
        let boot = fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned());
        if let Err(error) = &boot {
            tracing::debug!(%error, "can't tell this boot of the machine from others");
        }
        Self { path: agent_dir, boot: boot.ok(), shelter }
    }

    /// The notes of one agent.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Notes {
        let reserve = Arc::new(Reserve::open(self.path.join("reserve")));
        let sheltered = Shelter::new(self.shelter.as_deref(), "endings", owner);
        Notes {
            kernels: self.path.join("kernels"),
            runs: self.path.join("runs"),
            samples: self.path.join(format!("samples.{}.{}.json", owner.namespace, owner.instance)),
            owner: owner.to_string(),
            boot: self.boot.clone(),
            disk: Disk::default(),
            journal: Journal::new(self.path.join("endings"), owner, reserve.clone(), sheltered),
            reserve,
            sheltered_runs: Shelter::new(self.shelter.as_deref(), "runs", owner),
            unforgotten: Mutex::default(),
        }
    }
}

impl Notes {
    /// This boot of the machine.
    #[must_use]
    pub fn boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// The disk that they are on, for whoever must not wait for it.
    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What an earlier life noted of one kernel and its run.
    #[must_use]
    pub fn of(&self, kernel: KernelId) -> Noted {
        let output = outputs::read(&self.output_dir(kernel)).unwrap_or_else(|error| {
            tracing::warn!(%kernel, %error, "can't read the output that was kept of its runs; that is lost");
            Vec::new()
        });
        Noted {
            kernel: read_one(&self.kernels, kernel, &self.owner),
            run: self
                .sheltered_runs
                .one(kernel, &self.owner)
                .or_else(|| read_one(&self.runs, kernel, &self.owner)),
            output,
        }
    }

    /// Changes what is kept of the output of a kernel's runs.
    pub fn spill(&self, kernel: KernelId, output: Vec<Spilled>) -> io::Result<()> {
        outputs::change(&self.output_dir(kernel), output)
    }

    fn output_dir(&self, kernel: KernelId) -> PathBuf {
        self.runs.join(format!("{kernel}.output"))
    }

    /// Reads everything an earlier life left.
    pub fn load(&self) -> io::Result<Found> {
        self.load_but(&HashSet::new())
    }

    /// The same once the file system of the scratch root is there, of which this life had to do without: what this life has ended is
    /// over.
    pub fn load_late(&self) -> io::Result<Found> {
        self.journal.root_is_back();
        self.load_but(&self.journal.all())
    }

    fn load_but(&self, of_this_life: &HashSet<KernelId>) -> io::Result<Found> {
        let mut found = Found { boot: self.boot.clone(), ..Found::default() };
        for (id, note) in read_all::<KernelNote>(&self.kernels, &self.owner)? {
            found.kernels.insert(id, note);
        }
        // Only for what can't be understood: each kernel reads its own.
        read_all::<RunNote>(&self.runs, &self.owner)?;
        (found.untold, found.over) = self.journal.load(of_this_life)?;
        if self.journal.ended_without_root().iter().any(|kernel| found.kernels.contains_key(kernel)) {
            self.journal.root_is_back();
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
        match files::samples(&bytes) {
            Ok(found) => found,
            Err(error) => {
                set_aside(&self.samples, &error.to_string());
                HashMap::new()
            }
        }
    }

    /// Writes a kernel's note; `durable` syncs it, so that it survives the machine.
    pub fn note(&self, kernel: KernelId, note: &KernelNote, durable: bool) -> io::Result<()> {
        self.unforgotten().remove(&kernel);
        let (owner, boot) = (Some(self.owner.clone()), self.boot.clone());
        let note = KernelNote { owner, boot, ..note.clone() };
        write(&self.kernels, kernel, &note, durable, &self.reserve)
    }

    /// Writes the note of the run that goes on. Not synced: no run survives the machine. That none goes on is true
    /// without a note, too, so that a full disk does not keep the note of a run that is over.
    pub fn run(&self, kernel: KernelId, note: RunNote) -> io::Result<()> {
        let is_over = note.run.is_none();
        let note = RunNote { owner: Some(self.owner.clone()), ..note };
        let written = write_over(&self.runs, kernel, &note, &self.reserve);
        let written = match written {
            Err(_) if is_over => {
                fs::remove_file(file(&self.runs, kernel)).or_else(|error| match error.kind() {
                    // Where the directory is gone, the whole disk is, and an older note with it for now.
                    io::ErrorKind::NotFound if self.runs.is_dir() => Ok(()),
                    _ => Err(error),
                })
            }
            written => written,
        };
        match &written {
            Ok(()) => self.sheltered_runs.forget(kernel),
            Err(_) => self.sheltered_runs.keep(kernel, &note),
        }
        written
    }

    /// The kernel exists no more.
    pub fn forget(&self, kernel: KernelId) {
        // The kernel's own note last: what it speaks of is looked at again after a crash.
        let mut is_gone = remove(&file(&self.runs, kernel));
        self.sheltered_runs.forget(kernel);
        if let Err(error) = fs::remove_dir_all(self.output_dir(kernel))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%kernel, %error, "could not remove the output that was kept of its runs");
            is_gone = false;
        }
        is_gone &= remove(&file(&self.kernels, kernel));
        // Where the directory is gone, the whole disk is, and the notes with it for now.
        is_gone &= self.kernels.is_dir();
        if is_gone {
            self.unforgotten().remove(&kernel);
        } else if self.unforgotten().insert(kernel) {
            tracing::warn!(%kernel, "could not remove the notes of a kernel that is over; trying until that works");
        }
    }

    /// Writes and removes what the disk refused before; with room, makes the reserve whole again. What it refuses still is left
    /// for the next time.
    pub fn catch_up(&self, has_room: bool) {
        self.journal.catch_up();
        let unforgotten: Vec<KernelId> = self.unforgotten().iter().copied().collect();
        for kernel in unforgotten {
            self.forget(kernel);
        }
        if has_room && let Err(error) = self.reserve.fill() {
            tracing::debug!(%error, "the reserve of the journal is not whole");
        }
    }

    fn unforgotten(&self) -> MutexGuard<'_, HashSet<KernelId>> {
        self.unforgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a note of any of these kernels, but of their ends.
    #[must_use]
    pub fn has_any(&self, kernels: &[KernelId]) -> bool {
        kernels.iter().any(|kernel| file(&self.kernels, *kernel).exists())
    }

    /// Whether any agent has a note of the kernel, or of its end.
    #[must_use]
    pub fn knows(&self, kernel: KernelId) -> bool {
        file(&self.kernels, kernel).exists() || self.journal.knows(kernel)
    }
}

#[cfg(test)]
mod tests;
