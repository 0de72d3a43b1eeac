//! A container's resource use, as the engine measures it: for an agent that can't read the host's cgroups because
//! it runs in a container itself.

use bollard::models::{ContainerBlkioStatEntry, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::TryStreamExt;

use super::{Docker, DockerError, names};
use crate::ids::ContainerId;

/// A container's resource use since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContainerStats {
    /// CPU time of all cores, in nanoseconds.
    pub cpu_total_ns: u64,
    /// Memory in use, in bytes.
    pub mem_cur: u64,
    /// The most memory that was in use; on cgroup v2, of which the engine gives no peak, what is in use now.
    pub mem_max: u64,
    /// Bytes received by `eth*` interfaces.
    pub net_rx: u64,
    /// Bytes sent by `eth*` interfaces.
    pub net_tx: u64,
    /// Bytes read from block devices.
    pub io_read: u64,
    /// Bytes written to block devices.
    pub io_write: u64,
}

impl Docker {
    /// Measures once; a container that does not run is a [`DockerError::Conflict`].
    ///
    /// Engines before API 1.41 measure twice, a second apart, before they answer.
    pub async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DockerError> {
        let step = names::checked_name(format!("measure container {}", id.short()), id.as_str())?;
        let answer = self
            .connection
            .call(step.clone(), self.deadlines.quick, |engine| async move {
                let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
                Box::pin(engine.stats(id.as_str(), Some(options))).try_next().await
            })
            .await?;
        answer
            .as_ref()
            .and_then(read)
            .ok_or_else(|| DockerError::Conflict { step, message: "it does not run".to_owned() })
    }
}

/// Reads an answer; `None` for the empty one that the engine gives of a container that does not run.
pub(super) fn read(answer: &ContainerStatsResponse) -> Option<ContainerStats> {
    let memory = answer.memory_stats.as_ref();
    let mem_cur = memory.and_then(|memory| memory.usage)?;
    let mem_max = memory.and_then(|memory| memory.max_usage).unwrap_or_default().max(mem_cur);
    let cpu = answer.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage);
    let sum = |pick: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        let networks = answer.networks.iter().flatten();
        networks.filter(|(name, _)| name.starts_with("eth")).filter_map(|(_, stats)| pick(stats)).sum()
    };
    let transfers = answer.blkio_stats.as_ref().and_then(|io| io.io_service_bytes_recursive.as_deref());
    let transfers = transfers.unwrap_or_default();
    Some(ContainerStats {
        cpu_total_ns: cpu.unwrap_or_default(),
        mem_cur,
        mem_max,
        net_rx: sum(|stats| stats.rx_bytes),
        net_tx: sum(|stats| stats.tx_bytes),
        io_read: transferred(transfers, "read"),
        io_write: transferred(transfers, "write"),
    })
}

/// The bytes of one operation over all devices; cgroup v1 writes it with a capital letter.
fn transferred(entries: &[ContainerBlkioStatEntry], operation: &str) -> u64 {
    let is_it = |entry: &&ContainerBlkioStatEntry| {
        entry.op.as_ref().is_some_and(|op| op.eq_ignore_ascii_case(operation))
    };
    entries.iter().filter(is_it).filter_map(|entry| entry.value).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(answer: Value, expected: Option<ContainerStats>) {
        assert_eq!(read(&serde_json::from_value(answer).unwrap()), expected);
    }

    #[test]
    fn both_cgroup_versions_are_read() {
        check(
            json!({
                "cpu_stats": {"cpu_usage": {"total_usage": 7}},
                "memory_stats": {"usage": 10, "max_usage": 20},
                "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20},
                             "docker0": {"rx_bytes": 100, "tx_bytes": 100}},
                "blkio_stats": {"io_service_bytes_recursive": [
                    {"major": 8, "minor": 0, "op": "Read", "value": 3},
                    {"major": 9, "minor": 0, "op": "Read", "value": 3},
                    {"major": 8, "minor": 0, "op": "Write", "value": 4},
                    {"major": 8, "minor": 0, "op": "Total", "value": 7}]}
            }),
            Some(ContainerStats {
                cpu_total_ns: 7,
                mem_cur: 10,
                mem_max: 20,
                net_rx: 11,
                net_tx: 22,
                io_read: 6,
                io_write: 4,
            }),
        );
        check(
            json!({
                "cpu_stats": {"cpu_usage": {"total_usage": 7}}, "memory_stats": {"usage": 10},
                "blkio_stats": {"io_service_bytes_recursive": [{"major": 8, "minor": 0, "op": "read", "value": 3}]}
            }),
            Some(ContainerStats {
                cpu_total_ns: 7,
                mem_cur: 10,
                mem_max: 10,
                io_read: 3,
                ..ContainerStats::default()
            }),
        );
    }

    #[test]
    fn a_container_that_does_not_run_has_no_figures() {
        check(json!({"memory_stats": {}, "blkio_stats": {"io_service_bytes_recursive": null}}), None);
    }
}
