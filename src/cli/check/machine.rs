//! What the machine has for kernels: control groups, cores, memory, GPUs.

use std::fs;
use std::path::Path;

use super::finding::Finding;
use crate::docker::Docker;
use crate::resources::{GpuWatch, NodeLimits, NvmlDriver, Resources, SysfsPaths, read_topology};

/// Where the system shows its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What limits and statistics need of them.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

pub(super) async fn look(docker: &Docker, limits: &NodeLimits) -> Vec<Finding> {
    let mut found = vec![cgroups(Path::new(CGROUPS))];
    // Docker's own topic says why it does not answer.
    let Ok(info) = docker.info().await else { return found };
    let topology = read_topology(&SysfsPaths::default(), Some(info.cpus));
    let nodes = topology.nodes().count();
    match Resources::new(topology, info.memory, limits.clone()) {
        Err(error) => found.push(Finding::bad(
            "cores and memory",
            "",
            error,
            "leave kernels something with --reserved-cpus, --limit-cpus and --reserved-memory",
        )),
        Ok(resources) => {
            let totals = resources.totals();
            let text = format!(
                "{} cores in {nodes} NUMA node(s), {} MiB for kernels",
                totals.cpus,
                totals.memory.mib()
            );
            found.push(Finding::good("cores and memory", "", text));
            let mut watch = GpuWatch::new(NvmlDriver::default());
            let has_driver = watch.look(&resources).await;
            found.push(match (has_driver, resources.totals().gpus) {
                (false, _) => Finding::good("GPUs", "", "none (no NVIDIA driver)"),
                (true, 0) => Finding::doubtful(
                    "GPUs",
                    "",
                    "the driver shows none for kernels",
                    "check nvidia-smi and --limit-gpus",
                ),
                (true, count) => Finding::good("GPUs", "", format!("{count} for kernels")),
            });
        }
    }
    found
}

fn cgroups(root: &Path) -> Finding {
    let Ok(list) = fs::read_to_string(root.join("cgroup.controllers")) else {
        return if root.join("memory").is_dir() {
            Finding::good("control groups", root.display(), "version 1")
        } else {
            Finding::doubtful(
                "control groups",
                root.display(),
                "are not to be seen from here: statistics come from Docker, slower",
                "run the agent outside of a container, or give it the host's /sys/fs/cgroup",
            )
        };
    };
    let missing: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| !list.split_whitespace().any(|c| c == *name)).collect();
    if missing.is_empty() {
        Finding::good("control groups", root.display(), "version 2")
    } else {
        let found = format!("version 2 without {}", missing.join(", "));
        Finding::doubtful("control groups", root.display(), found, "enable them in the system's boot options")
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn control_groups_of_both_versions_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let look = || {
            let found = cgroups(dir.path());
            (found.verdict, found.found)
        };
        assert_eq!(look().0, Verdict::Doubtful);
        fs::create_dir(dir.path().join("memory")).unwrap();
        assert_eq!(look(), (Verdict::Good, "version 1".into()));
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory\n").unwrap();
        assert_eq!(look(), (Verdict::Doubtful, "version 2 without pids".into()));
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        assert_eq!(look(), (Verdict::Good, "version 2".into()));
    }
}
