//! Kernels' directories as projects of their file system, each held to the same limit.
//!
//! Linux takes a directory's project and a project's limit by calls for which there is no safe binding, so the system's own programs
//! make them: `setquota` of the package quota, for both file systems, and `chattr` of e2fsprogs. Which numbers are taken is in
//! `{root}/.agent/projects/{number}`, each file with the name of whose it is; the sweeper gives a number back when
//! nothing is left of that kernel. So a kernel keeps its limit over the agent's death, and also when the setting is another one then.
//!
//! A limit that can't be set never stands in the way of a kernel: the kernel is made without, and the log says so, once until it
//! works again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, Mode, OFlags};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::mounts::Mount;
use super::quota::{self, Limit, Names, Quota, Unfit};
use super::root::ScratchRoot;
use super::watch::space_of;
use crate::programs::{self, ProgramError};

/// How long one of the programs may take: a manager waits 3 s for a kernel.
const LIMIT: Duration = Duration::from_secs(1);

/// The table of mounts, as the agent sees them.
const MOUNTS: &str = "/proc/self/mountinfo";

/// How the directory is called that is limited for a trial.
const TRIAL: &str = "trial";

/// Why a directory has no limit.
#[derive(Debug, thiserror::Error)]
pub enum Unlimited {
    /// The file system can't.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Nobody knows the file system.
    #[error("{MOUNTS} has no mount for {path}")]
    Nowhere {
        /// The scratch root.
        path: PathBuf,
    },
    /// The administrator limits the whole root already.
    #[error(
        "the scratch root {path} is a project itself, which takes no directories of other projects; `chattr -P {path}`, and limit kernels by --scratch-quota alone"
    )]
    Nested {
        /// The scratch root.
        path: PathBuf,
    },
    /// One of the programs can't be run, or hangs.
    #[error("{source}; install {package}")]
    Program {
        /// What has it.
        package: &'static str,
        /// What became of it.
        #[source]
        source: ProgramError,
    },
    /// One of them was refused.
    #[error(
        "{program} could not {step}: {text}; the agent has to be root with CAP_SYS_ADMIN and the system call quotactl (docs/operating.md, \"A limit for each kernel\")"
    )]
    Refused {
        /// Which.
        program: &'static str,
        /// What it was to do.
        step: &'static str,
        /// Its own words.
        text: String,
    },
    /// All went well and nothing came of it.
    #[error("the file system at {path} took a limit and shows none; look for its errors in dmesg")]
    NotSeen {
        /// Where.
        path: PathBuf,
    },
    /// The agent's own note of it, or the directory.
    #[error("could not look after {path}: {source}; check the disk below the scratch root")]
    Note {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl ScratchRoot {
    /// Holds each kernel's directory that is made from now on to `quota`. Tries that at once, and says in the log what came of it.
    /// Blocks; on a thread of a runtime.
    pub fn limit_kernels(&self, quota: Quota) {
        let limit = self.limit().get_or_init(|| Limit::new(quota));
        let trial = self.making().join(format!("{TRIAL}.{}", Uuid::new_v4().as_simple()));
        let made = fs::create_dir(&trial).map_err(|source| Unlimited::Note { path: trial.clone(), source });
        let tried = made.and_then(|()| self.hold(quota, TRIAL, &trial));
        let _ = fs::remove_dir(&trial);
        if tried.is_ok() {
            let (mib, files) = (quota.size().mib(), quota.files());
            tracing::info!(mib, files, "each kernel's files are held to a limit");
        }
        self.tell(limit, tried);
        self.free_projects();
    }

    /// Holds a kernel's directory, which is still empty, to the limit, if there is one. Blocks.
    pub(super) fn hold_to_limit(&self, owner: &str, dir: &Path) {
        if let Some(limit) = self.limit().get() {
            let held = self.hold(limit.quota, owner, dir);
            self.tell(limit, held);
        }
    }

    fn tell(&self, limit: &Limit, held: Result<(), Unlimited>) {
        let mut outage = limit.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match held {
            Ok(()) => {
                if let Some(past) = outage.worked(Instant::now()) {
                    tracing::info!(
                        seconds = past.seconds(),
                        directories = past.failures,
                        "new kernels' files are held to the limit again"
                    );
                }
            }
            Err(error) if outage.failed(Instant::now()) => {
                tracing::warn!(root = %self.path().display(), %error, "kernels' files have no limit, and kernels are made without (--scratch-quota)");
            }
            Err(error) => tracing::debug!(%error, "no limit for this directory either"),
        }
    }

    fn hold(&self, quota: Quota, owner: &str, dir: &Path) -> Result<(), Unlimited> {
        let mount = limitable(self.path())?;
        let number = self.take_number(owner)?;
        let (kib, files) = (quota.kib().to_string(), quota.files().to_string());
        set_limit(number, &kib, &files, &mount)?;
        let path = dir.to_string_lossy();
        let args = ["-p", &number.to_string(), "+P", &path];
        run("chattr", "e2fsprogs", "make a directory a project", &args)?;
        let note = |source| Unlimited::Note { path: dir.to_owned(), source };
        // Such a directory shows its project's limit in the place of the file system's size.
        if space_of(dir).map_err(note)?.bytes > quota.kib() * 1024 {
            return Err(Unlimited::NotSeen { path: mount.point });
        }
        Ok(())
    }

    /// A number that nobody has, noted as this owner's.
    fn take_number(&self, owner: &str) -> Result<u32, Unlimited> {
        let dir = self.projects();
        let note = |source| Unlimited::Note { path: dir.clone(), source };
        let inode = fs::metadata(self.path()).map_err(note)?.ino();
        let mut taken = numbers(&dir).map_err(note)?;
        loop {
            let number =
                quota::free_number(inode, &taken).ok_or_else(|| note(io::ErrorKind::QuotaExceeded.into()))?;
            let mut options = fs::OpenOptions::new();
            let path = dir.join(number.to_string());
            match options.write(true).create_new(true).mode(0o600).open(path) {
                Ok(mut file) => return file.write_all(owner.as_bytes()).map(|()| number).map_err(note),
                // Another create was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken.insert(number),
                Err(error) => return Err(note(error)),
            };
        }
    }

    /// Gives the numbers back of kernels of which nothing is left. Blocks; on a thread of a runtime.
    pub(super) fn free_projects(&self) {
        if let Err(error) = self.try_to_free() {
            tracing::debug!(%error, "can't give the numbers of projects back now");
        }
    }

    fn try_to_free(&self) -> io::Result<()> {
        let (dir, mut names) = (self.projects(), Names::default());
        let taken = numbers(&dir)?;
        if taken.is_empty() {
            return Ok(());
        }
        // Directories go this way, so that none is missed between two looks.
        for place in [&self.making(), self.path(), &self.trash()] {
            for entry in fs::read_dir(place)? {
                names.0.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        let mount = limitable(self.path());
        for number in taken {
            let path = dir.join(number.to_string());
            let owner = fs::read_to_string(&path)?;
            // A note without an owner is being written, or its disk was full then.
            if owner.is_empty() || !names.lack(&owner) {
                continue;
            }
            // Whoever gets the number next is given a limit anew.
            match mount.as_ref().map(|mount| set_limit(number, "0", "0", mount)) {
                // The rest would be as slow, and the sweeper has other work.
                Ok(Err(Unlimited::Program { source: ProgramError::Late { .. }, .. })) => return Ok(()),
                Ok(Err(error)) => {
                    tracing::debug!(number, %error, "the limit of a project without files stays");
                }
                Ok(Ok(())) | Err(_) => {}
            }
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Why kernels' directories below `root` can't be held to a limit, as far as that is seen without trying. Blocks.
#[must_use]
pub fn unlimited(root: &Path) -> Option<Unlimited> {
    limitable(root).err()
}

/// The mount of the root, if directories below it can be held to limits.
fn limitable(root: &Path) -> Result<Mount, Unlimited> {
    let table =
        fs::read_to_string(MOUNTS).map_err(|source| Unlimited::Note { path: MOUNTS.into(), source })?;
    let mount = Mount::of(&table, root).ok_or_else(|| Unlimited::Nowhere { path: root.to_owned() })?;
    quota::fits(&mount)?;
    let flags = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(rustix::fs::ioctl_getflags);
    if flags.is_ok_and(|flags| flags.contains(IFlags::PROJECT_INHERIT)) {
        return Err(Unlimited::Nested { path: root.to_owned() });
    }
    Ok(mount)
}

fn set_limit(number: u32, kib: &str, files: &str, mount: &Mount) -> Result<(), Unlimited> {
    let point = mount.point.to_string_lossy();
    // No soft limits, which would become hard ones after a week.
    let args = ["-P", &number.to_string(), "0", kib, "0", files, &point];
    run("setquota", "quota", "limit a project", &args).map(drop)
}

fn run(
    program: &'static str,
    package: &'static str,
    step: &'static str,
    args: &[&str],
) -> Result<Output, Unlimited> {
    let output = Handle::current()
        .block_on(programs::run(program, args, "", LIMIT))
        .map_err(|source| Unlimited::Program { package, source })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Unlimited::Refused { program, step, text: programs::complaint(&output) })
}

/// The numbers that are taken.
fn numbers(dir: &Path) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}
