//! Reads the machine's cores, NUMA nodes and hardware threads from sysfs, once, at the start.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::{debug, info, warn};

use super::cpuset::{parse_cpuset, ranges_text};
use super::topology::{CoreFacts, Topology};

/// Where the kernel describes the machine; other places in tests.
#[derive(Debug, Clone)]
pub struct SysfsPaths {
    /// The directory of `node{N}/cpulist`.
    pub nodes: PathBuf,
    /// The directory of `online` and `cpu{N}/topology`.
    pub cpus: PathBuf,
    /// The file in which `Cpus_allowed_list` tells where this process may run.
    pub status: PathBuf,
}

impl Default for SysfsPaths {
    fn default() -> Self {
        Self {
            nodes: "/sys/devices/system/node".into(),
            cpus: "/sys/devices/system/cpu".into(),
            status: "/proc/self/status".into(),
        }
    }
}

/// The machine's usable cores. `docker_cores` is the number that Docker reports (NCPU). What can't be read is logged
/// and done without.
#[must_use]
pub fn read_topology(paths: &SysfsPaths, docker_cores: Option<u32>) -> Topology {
    let online = read_cores(&paths.cpus.join("online"));
    let allowed = read_allowed(&paths.status);
    if let (Some(online), Some(allowed)) = (&online, &allowed)
        && online.iter().any(|cpu| !allowed.contains(cpu))
    {
        let (online, allowed) = (ranges_text(online), ranges_text(allowed));
        info!(online, allowed, "the agent's affinity or cgroup leaves out cores; kernels get none of those");
    }
    let siblings = read_siblings(&paths.cpus, online.as_deref().unwrap_or_default());
    let topology = Topology::assemble(&CoreFacts {
        nodes: read_nodes(&paths.nodes),
        online,
        allowed,
        docker_cores,
        siblings,
    });
    let nodes: Vec<u32> = topology.nodes().map(|node| node.id).collect();
    debug!(cores = topology.core_count(), nodes = ranges_text(&nodes), "read the machine's cores");
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

/// The groups of hardware threads, each once for every thread in it. A machine that does not tell has none.
fn read_siblings(root: &Path, online: &[u32]) -> Vec<Vec<u32>> {
    let list = |cpu: &u32| {
        let path = root.join(format!("cpu{cpu}/topology/thread_siblings_list"));
        parse_cpuset(&fs::read_to_string(path).ok()?).ok()
    };
    online.iter().filter_map(list).filter(|group| group.len() > 1).collect()
}

/// The cores that this process may run on: its affinity, which the Linux kernel keeps within its cgroup's cores.
/// From a file and not by the system call, which has an answer for a fixed number of cores.
fn read_allowed(path: &Path) -> Option<Vec<u32>> {
    let text = fs::read_to_string(path)
        .inspect_err(|error| warn!(path = %path.display(), %error, "can't read this process's CPU affinity"))
        .ok()?;
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    parse_cpuset(list).inspect_err(|error| warn!(%error, "not a list of cores, going on without")).ok()
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
        let at = |name: &str| dir.path().join(name);
        let paths = SysfsPaths { nodes: at("node"), cpus: at("cpu"), status: at("status") };
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
    fn hardware_threads_and_the_agent_s_own_affinity() {
        let (_dir, paths) = tree(&[
            ("node/node0/cpulist", "0-7\n"),
            ("cpu/online", "0-7\n"),
            ("cpu/cpu1/topology/thread_siblings_list", "1,5\n"),
            ("cpu/cpu5/topology/thread_siblings_list", "1,5\n"),
            ("cpu/cpu2/topology/thread_siblings_list", "2\n"),
            ("status", "Name:\tx\nCpus_allowed:\tfe\nCpus_allowed_list:\t1-7\n"),
        ]);
        let topology = read_topology(&paths, Some(8));
        assert_eq!(nodes(&topology), [(0, (1..8).collect())]);
        let physical: Vec<u32> = (1..8).map(|cpu| topology.physical(cpu)).collect();
        assert_eq!(physical, [1, 2, 3, 4, 1, 6, 7]);
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
        let affinity = rustix::thread::sched_getaffinity(None).unwrap();
        let affinity: Vec<u32> =
            (0..1024_u32).filter(|core| affinity.is_set(usize::try_from(*core).unwrap())).collect();
        let topology = read_topology(&SysfsPaths::default(), None);
        let mut cores: Vec<u32> = topology.nodes().flat_map(|node| node.cpus.clone()).collect();
        cores.sort_unstable();
        assert_eq!(cores, affinity);
    }
}
