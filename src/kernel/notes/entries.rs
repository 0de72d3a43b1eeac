//! What the files say: one type for each kind.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::{NoteFile, VERSION};
use crate::ids::{KernelId, RunId};
use crate::runner::{GoingRun, Way};
use crate::wire::event::EndReason;
use crate::wire::sample::Sample;

/// A kernel that exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelNote {
    pub(super) version: u32,
    /// Which agent wrote it; several may share a scratch root.
    #[serde(default)]
    pub(super) owner: Option<String>,
    /// Which kernel.
    pub kernel: String,
    /// How far it is.
    pub phase: NotedPhase,
    /// The run that goes on, as earlier versions of the agent noted it; now it has a note of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Whether that waits for input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// When it was used last, in seconds since 1970.
    pub last_use: u64,
    /// The container of a kernel that was adopted, which has no labels.
    pub adopted: Option<String>,
    /// Whether the manager waits for the answer of a restart that has not begun: until it has that, or has given up,
    /// it hears of no end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart_asked: bool,
    /// In which boot of the machine this was written (`/proc/sys/kernel/random/boot_id`); `None` in notes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The environment that it was made with; `None` in notes of earlier versions of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environ: Option<Environ>,
}

/// A kernel's environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environ(pub BTreeMap<String, String>);

/// Without the values: users put secrets there.
impl std::fmt::Debug for Environ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How far a noted kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotedPhase {
    /// The manager has not been answered: after a crash all of it is undone, and nothing is reported.
    Creating,
    /// The kernel runs.
    Running,
    /// Between two containers.
    Restarting,
}

/// The run that goes on in a kernel, written by its runner's task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunNote {
    pub(super) version: u32,
    /// Which agent wrote it.
    #[serde(default)]
    pub(super) owner: Option<String>,
    /// In which kernel.
    pub kernel: String,
    /// The run; `None` when none goes on.
    pub run: Option<String>,
    /// How far its code is, and the code itself while that waits to leave.
    #[serde(default)]
    pub way: Way,
    /// Whether it waits for input.
    pub waits: bool,
    /// How many of the runner's answers may come that are no later run's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers: u8,
    /// When this was written, in seconds since 1970: the last use of a kernel in which no run goes on.
    pub at: u64,
}

/// A kernel that is ending or has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    pub(super) version: u32,
    /// Which agent wrote it.
    #[serde(default)]
    pub(super) owner: Option<String>,
    /// Which kernel.
    pub kernel: String,
    /// Why, as on the wire.
    pub reason: String,
    /// The kernel's last statistics, if any were taken.
    pub sample: Option<Sample>,
    /// When its event began to leave for the manager, in seconds since 1970; `None` while it waits. Found by the next life
    /// without `told_at`, it is open whether the event arrived.
    #[serde(default)]
    pub left_at: Option<u64>,
    /// When its event arrived, in seconds since 1970; `None` while that is still to do.
    pub told_at: Option<u64>,
    /// Whether `left_at` stands for an event that arrived and was not heard: the manager was restarting the kernel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheard: bool,
    /// Whether it ended while the file system of the scratch root was away, which may still have a note of it as one that runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
}

/// For serde, which hands out a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u8) -> bool {
    *count == 0
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
            restart_asked: false,
            boot: None,
            environ: None,
        }
    }

    /// Whether this was written before the machine was started last: no process of then lives.
    #[must_use]
    pub fn is_of_another_boot(&self, boot: Option<&str>) -> bool {
        boot.zip(self.boot.as_deref()).is_some_and(|(now, then)| now != then)
    }

    /// Whether the manager waits for the answer of a restart.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.restart_asked || self.phase == NotedPhase::Restarting
    }

    /// The run that goes on, as earlier versions of the agent noted it here.
    #[must_use]
    pub fn going_by_earlier_versions(&self) -> GoingRun {
        let run = self.run.as_deref().map(RunId::new);
        GoingRun { run, way: Way::Left, waits: self.waits, answers: 0 }
    }
}

impl RunNote {
    /// A note of now.
    #[must_use]
    pub fn new(kernel: KernelId, going: &GoingRun) -> Self {
        let run = going.run.as_ref().map(|run| run.as_str().to_owned());
        let GoingRun { way, waits, answers, .. } = going.clone();
        let (kernel, at) = (kernel.to_string(), unix_now());
        Self { version: VERSION, owner: None, kernel, run, way, waits, answers, at }
    }

    /// What its writer knew.
    #[must_use]
    pub fn going(&self) -> GoingRun {
        let run = self.run.as_deref().map(RunId::new);
        GoingRun { run, way: self.way.clone(), waits: self.waits, answers: self.answers }
    }
}

impl Ending {
    /// An ending that begins.
    #[must_use]
    pub fn new(kernel: KernelId, reason: EndReason, sample: Option<Sample>) -> Self {
        let (kernel, reason) = (kernel.to_string(), reason.to_string());
        Self {
            version: VERSION,
            owner: None,
            kernel,
            reason,
            sample,
            left_at: None,
            told_at: None,
            unheard: false,
            away: false,
        }
    }

    /// Why it ends.
    #[must_use]
    pub fn reason(&self) -> EndReason {
        EndReason::from_text(&self.reason).unwrap_or(EndReason::SelfTerminated)
    }
}

/// An end that is remembered, for an hour as a rule: small, since a node may see many ends in it.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whether somebody has to tell it.
    pub(super) told: Told,
    /// Why the kernel ended.
    pub(super) reason: EndReason,
    /// Its last statistics. Apart, as many ends have none and the map has places for more ends than there are.
    pub(super) sample: Option<Box<Sample>>,
    /// See [`Ending::unheard`].
    pub(super) unheard: bool,
    /// See [`Ending::away`].
    pub(super) away: bool,
    /// When its event began to leave, while that is under way.
    pub(super) under_way: Option<u64>,
    /// Whether the disk has it as it is.
    pub(super) written: bool,
}

impl Ended {
    /// An entry that was found.
    pub(super) fn found(ending: &Ending) -> Self {
        Self {
            told: Told::of(ending),
            reason: ending.reason(),
            sample: ending.sample.map(Box::new),
            unheard: ending.unheard,
            away: ending.away,
            under_way: None,
            written: true,
        }
    }

    /// The entry as it was begun.
    pub(super) fn ending(&self, kernel: KernelId) -> Ending {
        let begun = Ending::new(kernel, self.reason, self.sample.as_deref().copied());
        Ending { unheard: self.unheard, away: self.away, ..begun }
    }

    /// The entry as the disk should have it.
    pub(super) fn entry(&self, kernel: KernelId) -> Ending {
        let (left_at, told_at) = match self.told {
            Told::At(at) => (None, Some(at)),
            Told::Perhaps(at) => (Some(at), None),
            Told::Not { .. } => (self.under_way, None),
        };
        Ending { left_at, told_at, ..self.ending(kernel) }
    }
}

/// What the manager knows of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing yet; this life of the agent sees to it. `doubted`: it may come at a moment in which it is not heard.
    Not {
        /// See [`Notes::unheard`].
        doubted: bool,
    },
    /// An earlier life was killed at the moment of telling, in seconds since 1970.
    Perhaps(u64),
    /// The end was told, in seconds since 1970.
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

/// Seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl NoteFile for KernelNote {
    fn head(&mut self) -> (u32, &str, Option<String>) {
        (self.version, &self.kernel, self.owner.take())
    }
}

impl NoteFile for Ending {
    fn head(&mut self) -> (u32, &str, Option<String>) {
        (self.version, &self.kernel, self.owner.take())
    }
}

impl NoteFile for RunNote {
    fn head(&mut self) -> (u32, &str, Option<String>) {
        (self.version, &self.kernel, self.owner.take())
    }
}
