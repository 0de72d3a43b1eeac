//! Where a container's figures are: directories of its control groups and of its process, found once and kept open.
//!
//! Finding them costs as much as reading does, and an open directory stands for one group and one process for ever: once these have
//! ended nothing is read through it, whoever has their path or number then.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::membership::{Membership, parse_membership, well_known};
use crate::ids::ContainerId;

/// More than any file of the kernel's ever holds.
const MAX_FILE: u64 = 1024 * 1024;

/// As much as these files hold as a rule, so that one read gets all.
const USUAL_FILE: usize = 4096;

/// Where the kernel's files are.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    /// `/proc`.
    pub(super) proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(super) cgroup: PathBuf,
}

/// A directory that is open, as a place to open files in.
#[derive(Debug)]
pub(super) struct Place(OwnedFd);

/// The directories of a container, by what is read there. v1 and v2 can serve side by side.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// v1, processor time.
    pub(super) cpu_v1: Option<Place>,
    /// v1, memory.
    pub(super) memory_v1: Option<Place>,
    /// v1, block devices.
    pub(super) io_v1: Option<Place>,
    /// v2. It exists beside v1 on hybrid systems, without the controllers that v1 has.
    pub(super) v2: Option<Place>,
    /// Its first process, if that was seen to be the container's.
    pub(super) process: Option<Place>,
}

/// The places of one container, kept from one reading to the next.
#[derive(Debug, Default)]
pub(super) struct Kept(
    /// With the number of the process. Locked to take or to leave them, never while a file is read: that may hang.
    Mutex<Option<(u32, Places)>>,
);

impl Kept {
    /// Those that were left for this process, or found now.
    pub(super) fn places(&self, roots: &Roots, container_id: &str, pid: u32) -> Places {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((of, places)) = kept
            && of == pid
        {
            return places;
        }
        Places::find(roots, container_id, pid)
    }

    /// Leaves them for the next reading, which begins anew without.
    pub(super) fn leave(&self, pid: u32, places: Places) {
        // A guess is made again each time: it may have been too early.
        if places.process.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((pid, places));
        }
    }
}

impl Places {
    fn find(roots: &Roots, container_id: &str, pid: u32) -> Self {
        let process = Place::open(&roots.proc.join(pid.to_string()));
        let groups = process.as_ref().map(|process| process.groups(container_id)).unwrap_or_default();
        if groups.is_empty() {
            return Self::guess(&roots.cgroup, container_id);
        }
        Self { process, ..Self::locate(&roots.cgroup, &groups) }
    }

    /// The directories that a process's groups stand for.
    fn locate(root: &Path, membership: &Membership) -> Self {
        let v1 = |controller: &str| {
            let (hierarchy, path) = membership.v1_of(controller)?;
            Place::open(&v1_mount(root, controller, hierarchy).join(path))
        };
        Self {
            cpu_v1: v1("cpuacct"),
            memory_v1: v1("memory"),
            io_v1: v1("blkio"),
            v2: membership.v2.as_ref().and_then(|path| Place::open(&v2_mount(root).join(path))),
            process: None,
        }
    }

    /// The first of Docker's usual places that exists.
    fn guess(root: &Path, container_id: &str) -> Self {
        let usual = well_known(container_id);
        let below = |mount: PathBuf| usual.iter().find_map(|path| Place::open(&mount.join(path)));
        Self {
            cpu_v1: below(v1_mount(root, "cpuacct", "cpu,cpuacct")),
            memory_v1: below(root.join("memory")),
            io_v1: below(root.join("blkio")),
            v2: below(v2_mount(root)),
            process: None,
        }
    }
}

impl Place {
    /// `None` for what can't be opened: what is missing there shows when it is read.
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).ok().map(Self)
    }

    /// The text of a file in it, in `buffer`. `None` for one that isn't there, or no longer: `ENODEV` is what files say whose
    /// group has just gone, `ESRCH` those of a process.
    pub(super) fn read<'b>(&self, name: &str, buffer: &'b mut Vec<u8>) -> io::Result<Option<&'b str>> {
        match self.read_bytes(name, buffer) {
            Ok(()) => str::from_utf8(buffer)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound || has_ended(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_bytes(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.reserve(USUAL_FILE);
        let file = rustix::fs::openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).take(MAX_FILE).read_to_end(buffer).map(drop)
    }

    /// Those groups of a process that are the container's.
    fn groups(&self, container_id: &str) -> Membership {
        let mut buffer = Vec::new();
        let text = self.read("cgroup", &mut buffer).ok().flatten();
        text.map(|text| parse_membership(text, container_id)).unwrap_or_default()
    }

    /// Where it is, for people.
    pub(super) fn path(&self) -> PathBuf {
        let own = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        std::fs::read_link(own).unwrap_or_default()
    }
}

/// Whether the process with this number belongs to the container, as far as this agent can see.
#[must_use]
pub fn is_process_of(pid: u32, container: &ContainerId) -> bool {
    let process = Place::open(&Path::new("/proc").join(pid.to_string()));
    process.is_some_and(|process| !process.groups(container.as_str()).is_empty())
}

fn has_ended(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::NODEV, Errno::SRCH].iter().any(|ended| code == Some(ended.raw_os_error()))
}

/// A v1 controller is mounted under its own name, often a link, or under those of its whole hierarchy (`cpu,cpuacct`).
fn v1_mount(root: &Path, controller: &str, hierarchy: &str) -> PathBuf {
    let own = root.join(controller);
    if own.is_dir() { own } else { root.join(hierarchy) }
}

/// The v2 hierarchy is the root itself, or, beside v1, `unified`.
fn v2_mount(root: &Path) -> PathBuf {
    let unified = root.join("unified");
    if unified.is_dir() { unified } else { root.to_owned() }
}
