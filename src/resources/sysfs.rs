//! Reads the machine's cores and NUMA nodes from sysfs, once, at the start.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::cpuset::parse_cpuset;
use super::topology::{CoreFacts, CoreLimit, Topology};

/// Where the kernel describes the machine; other places in tests.
#[derive(Debug, Clone)]
pub struct SysfsPaths {
    /// The directory of `node{N}/cpulist`.
    pub nodes: PathBuf,
    /// The file that lists the cores that are online.
    pub online: PathBuf,
}

impl Default for SysfsPaths {
    fn default() -> Self {
        Self { nodes: "/sys/devices/system/node".into(), online: "/sys/devices/system/cpu/online".into() }
    }
}

/// The machine's usable cores. `docker_cores` is the number that Docker reports (NCPU); without it the
/// affinity of this process decides (PROTOCOL section 9). What can't be read is logged and done without.
#[must_use]
pub fn read_topology(paths: &SysfsPaths, docker_cores: Option<u32>) -> Topology {
    let limit = match docker_cores {
        Some(count) if count > 0 => CoreLimit::First(count),
        _ => own_affinity().map_or(CoreLimit::All, CoreLimit::Only),
    };
    let topology = Topology::assemble(&CoreFacts {
        nodes: read_nodes(&paths.nodes),
        online: read_cores(&paths.online),
        limit,
    });
    let nodes: Vec<u32> = topology.nodes().map(|node| node.id).collect();
    debug!(cores = topology.core_count(), ?nodes, "read the machine's cores");
    topology
}

/// Every `node{N}` of the directory; empty if there is none, as on kernels built without NUMA.
fn read_nodes(root: &Path) -> Vec<(u32, Vec<u32>)> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => {
            debug!(path = %root.display(), %error, "no NUMA nodes, all cores count as one node");
            return Vec::new();
        }
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            Some((id, read_cores(&entry.path().join("cpulist"))?))
        })
        .collect()
}

fn read_cores(path: &Path) -> Option<Vec<u32>> {
    let text = fs::read_to_string(path)
        .inspect_err(
            |error| warn!(path = %path.display(), %error, "can't read a list of cores, going on without"),
        )
        .ok()?;
    parse_cpuset(&text)
        .inspect_err(|error| warn!(path = %path.display(), %error, "not a list of cores, going on without"))
        .ok()
}

/// The cores that this process may run on; `None` where the machine has more than the call can tell (1024).
fn own_affinity() -> Option<Vec<u32>> {
    let set = rustix::thread::sched_getaffinity(None)
        .inspect_err(|error| warn!(%error, "can't read this process's CPU affinity, counting all cores"))
        .ok()?;
    let cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    Some(cores.filter_map(|core| u32::try_from(core).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorded tree: files below a directory of their own.
    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, SysfsPaths) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let paths = SysfsPaths { nodes: dir.path().join("node"), online: dir.path().join("cpu/online") };
        (dir, paths)
    }

    fn nodes(topology: &Topology) -> Vec<(u32, Vec<u32>)> {
        topology.nodes().map(|node| (node.id, node.cpus.clone())).collect()
    }

    #[test]
    fn a_recorded_machine_with_a_memory_node_a_gap_and_an_offline_core() {
        let (_dir, paths) = tree(&[
            ("node/node0/cpulist", "0-3\n"),
            ("node/node2/cpulist", "4-7\n"),
            ("node/node3/cpulist", "\n"),
            ("node/possible", "0-3\n"),
            ("node/node2x/cpulist", "nonsense\n"),
            ("cpu/online", "0-4,6-7\n"),
        ]);
        let topology = read_topology(&paths, Some(7));
        assert_eq!(nodes(&topology), [(0, vec![0, 1, 2, 3]), (2, vec![4, 6, 7])]);
        assert_eq!(nodes(&read_topology(&paths, Some(5))), [(0, vec![0, 1, 2, 3]), (2, vec![4])]);
    }

    #[test]
    fn no_numa_directory() {
        let (_dir, paths) = tree(&[("cpu/online", "0-1\n")]);
        assert_eq!(nodes(&read_topology(&paths, Some(2))), [(0, vec![0, 1])]);
    }

    #[test]
    fn damaged_files_are_done_without() {
        let (_dir, paths) =
            tree(&[("node/node0/cpulist", "0-x\n"), ("node/node1/cpulist", "2-3\n"), ("cpu/online", "?")]);
        assert_eq!(nodes(&read_topology(&paths, Some(8))), [(1, vec![2, 3])]);
        let (_dir, paths) = tree(&[]);
        assert_eq!(nodes(&read_topology(&paths, Some(3))), [(0, vec![0, 1, 2])]);
    }

    #[test]
    fn this_machine_has_the_cores_of_this_process() {
        let affinity = own_affinity().unwrap();
        let topology = read_topology(&SysfsPaths::default(), None);
        let mut cores: Vec<u32> = topology.nodes().flat_map(|node| node.cpus.clone()).collect();
        cores.sort_unstable();
        assert_eq!(cores, affinity);
    }
}
