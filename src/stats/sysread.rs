//! Reads one container's figures from the host's `/proc` and cgroup files.
//!
//! Nothing is kept open or remembered between readings: six or seven small files a container cost a few tens of
//! microseconds each time, and every reading finds out anew that the pid is still the container's.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::cgroup::{parse_number, parse_v1_cpu_ns, parse_v1_io, parse_v2_cpu_ns, parse_v2_io};
use super::membership::{Membership, parse_membership, well_known};
use super::netdev::parse_netdev;
use super::reading::Reading;
use crate::ids::ContainerId;

/// More than any of these files ever holds.
const MAX_FILE: u64 = 1024 * 1024;

/// Where the kernel's files are.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    /// `/proc`.
    pub(super) proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(super) cgroup: PathBuf,
}

/// A reading, and what went wrong in it besides files that just are not there.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What could be read.
    pub(super) reading: Reading,
    /// The first file that exists and could not be read or understood, with the reason.
    pub(super) trouble: Option<String>,
}

impl Outcome {
    /// Reads and parses a file of `dir`. `None` for one that does not exist (or, with `ENODEV`, does no longer:
    /// that is what cgroup files say when their group has just gone).
    fn figure<T>(&mut self, dir: Option<&Path>, name: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        let path = dir?.join(name);
        let trouble = match read_small(&path) {
            Ok(text) => match parse(&text) {
                Some(figure) => return Some(figure),
                None => "its text is not what the kernel writes".to_owned(),
            },
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) =>
            {
                return None;
            }
            Err(error) => error.to_string(),
        };
        self.trouble.get_or_insert_with(|| format!("{}: {trouble}", path.display()));
        None
    }
}

/// The directories of a container's groups, by what is read there. v1 and v2 can serve side by side.
#[derive(Debug, Default)]
struct Groups {
    cpu_v1: Option<PathBuf>,
    memory_v1: Option<PathBuf>,
    io_v1: Option<PathBuf>,
    v2: Option<PathBuf>,
}

/// Whether the process with this number belongs to the container, as far as this agent can see.
#[must_use]
pub fn is_process_of(pid: u32, container: &ContainerId) -> bool {
    read_small(&Path::new("/proc").join(pid.to_string()).join("cgroup"))
        .is_ok_and(|text| !parse_membership(&text, container.as_str()).is_empty())
}

/// Reads a container. Never fails as a whole: what is missing is missing in the outcome.
pub(super) fn read_container(roots: &Roots, container_id: &str, pid: u32) -> Outcome {
    let process = roots.proc.join(pid.to_string());
    let membership = read_small(&process.join("cgroup"))
        .map(|text| parse_membership(&text, container_id))
        .unwrap_or_default();
    let is_its_process = !membership.is_empty();
    let groups =
        if is_its_process { locate(&roots.cgroup, &membership) } else { guess(&roots.cgroup, container_id) };

    let mut out = Outcome::default();
    let (cpu_v1, memory_v1, io_v1) =
        (groups.cpu_v1.as_deref(), groups.memory_v1.as_deref(), groups.io_v1.as_deref());
    // A hierarchy of v2 exists beside v1 on hybrid systems; a controller that v1 has is not there.
    let v2 = |v1: Option<&Path>| groups.v2.as_deref().filter(|_| v1.is_none());

    out.reading.cpu_ns = out
        .figure(cpu_v1, "cpuacct.usage", parse_v1_cpu_ns)
        .or_else(|| out.figure(v2(cpu_v1), "cpu.stat", parse_v2_cpu_ns));
    out.reading.mem_cur = out
        .figure(memory_v1, "memory.usage_in_bytes", parse_number)
        .or_else(|| out.figure(v2(memory_v1), "memory.current", parse_number));
    out.reading.mem_peak = out
        .figure(memory_v1, "memory.max_usage_in_bytes", parse_number)
        .or_else(|| out.figure(v2(memory_v1), "memory.peak", parse_number));
    // The recursive file includes groups that the container made below its own; old kernels lack it.
    out.reading.io = out
        .figure(io_v1, "blkio.throttle.io_service_bytes_recursive", parse_v1_io)
        .or_else(|| out.figure(io_v1, "blkio.throttle.io_service_bytes", parse_v1_io))
        .or_else(|| out.figure(v2(io_v1), "io.stat", parse_v2_io));
    if is_its_process {
        out.reading.net = out.figure(Some(&process), "net/dev", parse_netdev);
    }
    out
}

/// The directories that a process's groups stand for.
fn locate(root: &Path, membership: &Membership) -> Groups {
    let v1 = |controller: &str| {
        let (hierarchy, path) = membership.v1_of(controller)?;
        Some(v1_mount(root, controller, hierarchy).join(path))
    };
    Groups {
        cpu_v1: v1("cpuacct"),
        memory_v1: v1("memory"),
        io_v1: v1("blkio"),
        v2: membership.v2.as_ref().map(|path| v2_mount(root).join(path)),
    }
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

/// The first of Docker's usual places that exists.
fn guess(root: &Path, container_id: &str) -> Groups {
    let usual = well_known(container_id);
    let below = |mount: PathBuf| usual.iter().map(|path| mount.join(path)).find(|path| path.is_dir());
    Groups {
        cpu_v1: below(v1_mount(root, "cpuacct", "cpu,cpuacct")),
        memory_v1: below(root.join("memory")),
        io_v1: below(root.join("blkio")),
        v2: below(v2_mount(root)),
    }
}

/// The text of a file of the kernel's, cut at a size that none of them reaches.
fn read_small(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6ace199109c07e6525422498d6bda5b995e00b85ca062d187077d19da8e9a8a5";
    const NETDEV: &str = "eth0: 200 2 0 0 0 0 0 0 300 0 0 0 0 0 0 0\n";

    /// A recorded host: files below a directory of their own; `ID` in a name or text stands for the container's id.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name.replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ID", ID)).unwrap();
        }
        let roots = Roots { proc: dir.path().join("proc"), cgroup: dir.path().join("cg") };
        (dir, roots)
    }

    fn check(files: &[(&str, &str)], expected: Reading) {
        let (_dir, roots) = host(files);
        let outcome = read_container(&roots, ID, 7);
        assert_eq!((outcome.reading, outcome.trouble), (expected, None));
    }

    const FULL: Reading = Reading {
        cpu_ns: Some(1_500_000),
        mem_cur: Some(4096),
        mem_peak: Some(8192),
        io: Some((10, 20)),
        net: Some((200, 300)),
    };

    #[test]
    fn v1_cgroupfs() {
        let io = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n";
        check(
            &[
                (
                    "proc/7/cgroup",
                    "7:blkio:/docker/ID\n4:memory:/docker/ID\n2:cpuacct:/docker/ID\n0::/docker/ID\n",
                ),
                ("proc/7/net/dev", NETDEV),
                ("cg/cpuacct/docker/ID/cpuacct.usage", "1500000\n"),
                ("cg/memory/docker/ID/memory.usage_in_bytes", "4096\n"),
                ("cg/memory/docker/ID/memory.max_usage_in_bytes", "8192\n"),
                ("cg/blkio/docker/ID/blkio.throttle.io_service_bytes_recursive", io),
                ("cg/blkio/docker/ID/blkio.throttle.io_service_bytes", "Total 0\n"),
                ("cg/unified/docker/ID/cpu.stat", "usage_usec 99\n"),
            ],
            FULL,
        );
    }

    #[test]
    fn v1_systemd_with_joined_controllers() {
        check(
            &[
                (
                    "proc/7/cgroup",
                    "11:cpu,cpuacct:/system.slice/docker-ID.scope\n10:blkio:/system.slice/docker-ID.scope\n\
                     4:memory:/system.slice/docker-ID.scope\n",
                ),
                ("proc/7/net/dev", NETDEV),
                ("cg/cpu,cpuacct/system.slice/docker-ID.scope/cpuacct.usage", "1500000\n"),
                ("cg/memory/system.slice/docker-ID.scope/memory.usage_in_bytes", "4096\n"),
                ("cg/memory/system.slice/docker-ID.scope/memory.max_usage_in_bytes", "8192\n"),
                (
                    "cg/blkio/system.slice/docker-ID.scope/blkio.throttle.io_service_bytes",
                    "8:0 Read 10\n8:0 Write 20\n",
                ),
            ],
            FULL,
        );
    }

    #[test]
    fn v2_cgroupfs() {
        check(
            &[
                ("proc/7/cgroup", "0::/docker/ID\n"),
                ("proc/7/net/dev", NETDEV),
                ("cg/cgroup.controllers", "cpuset cpu io memory pids\n"),
                ("cg/docker/ID/cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
                ("cg/docker/ID/memory.current", "4096\n"),
                ("cg/docker/ID/memory.peak", "8192\n"),
                ("cg/docker/ID/io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n"),
            ],
            FULL,
        );
    }

    #[test]
    fn v2_systemd_on_a_kernel_without_memory_peak_and_a_container_with_groups_of_its_own() {
        check(
            &[
                ("proc/7/cgroup", "0::/system.slice/docker-ID.scope/init.scope\n"),
                ("proc/7/net/dev", NETDEV),
                ("cg/system.slice/docker-ID.scope/cpu.stat", "usage_usec 1500\n"),
                ("cg/system.slice/docker-ID.scope/memory.current", "4096\n"),
                ("cg/system.slice/docker-ID.scope/io.stat", "8:0 rbytes=10 wbytes=20\n"),
                ("cg/system.slice/docker-ID.scope/init.scope/memory.current", "1\n"),
            ],
            Reading { mem_peak: None, ..FULL },
        );
    }

    #[test]
    fn hybrid_takes_each_controller_where_it_is() {
        check(
            &[
                ("proc/7/cgroup", "4:memory:/docker/ID\n0::/docker/ID\n"),
                ("cg/memory/docker/ID/memory.usage_in_bytes", "4096\n"),
                ("cg/unified/docker/ID/cpu.stat", "usage_usec 1500\n"),
                ("cg/unified/docker/ID/memory.current", "1\n"),
                ("cg/unified/docker/ID/memory.peak", "1\n"),
            ],
            Reading { cpu_ns: FULL.cpu_ns, mem_cur: FULL.mem_cur, ..Reading::default() },
        );
    }

    #[test]
    fn a_pid_of_somebody_else_is_not_believed() {
        // The usual place still gives the container's own figures; the stranger's network is not counted.
        check(
            &[
                ("proc/7/cgroup", "0::/user.slice\n"),
                ("proc/7/net/dev", NETDEV),
                ("cg/user.slice/memory.current", "5\n"),
                ("cg/system.slice/docker-ID.scope/memory.current", "4096\n"),
            ],
            Reading { mem_cur: FULL.mem_cur, ..Reading::default() },
        );
        check(
            &[("cg/docker/ID/cpu.stat", "usage_usec 1500\n")],
            Reading { cpu_ns: FULL.cpu_ns, ..Reading::default() },
        );
    }

    #[test]
    fn a_container_that_is_gone() {
        check(&[("cg/memory/docker/other/memory.usage_in_bytes", "1\n")], Reading::default());
        check(&[("proc/7/cgroup", "4:memory:/docker/ID\n")], Reading::default());
    }

    #[test]
    fn damaged_files_are_named_and_spoil_nothing_else() {
        let (dir, roots) = host(&[
            ("proc/7/cgroup", "0::/docker/ID\n"),
            ("cg/docker/ID/cpu.stat", "\u{1}\n"),
            ("cg/docker/ID/memory.current", "4096\n"),
            ("cg/docker/ID/io.stat", "8:0 rbytes=x\n"),
        ]);
        let outcome = read_container(&roots, ID, 7);
        assert_eq!(outcome.reading, Reading { mem_cur: Some(4096), ..Reading::default() });
        let path = dir.path().join("cg/docker").join(ID).join("cpu.stat");
        let expected = format!("{}: its text is not what the kernel writes", path.display());
        assert_eq!(outcome.trouble, Some(expected));
    }
}
