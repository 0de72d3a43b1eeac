//! Figures that Docker gives, for an agent in a container that can't see the host's cgroup files; pure.

use super::reading::Reading;

/// What Docker's stats call says of one container. The composition root fills it, because the rooms of Docker and of
/// statistics know nothing of each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DockerFigures {
    /// `cpu_stats.cpu_usage.total_usage`, nanoseconds.
    pub cpu_total_ns: u64,
    /// `memory_stats.usage`, bytes; absent for a container that is not running.
    pub mem_usage_bytes: Option<u64>,
    /// `memory_stats.max_usage`, bytes; absent on cgroup v2.
    pub mem_max_usage_bytes: Option<u64>,
    /// Bytes read: the sum of `blkio_stats.io_service_bytes_recursive` over entries whose op is `read`, in any case.
    pub io_read_bytes: u64,
    /// Bytes written: the same for `write`.
    pub io_write_bytes: u64,
    /// Bytes received: the sum over `networks`.
    pub net_rx_bytes: u64,
    /// Bytes sent: the sum over `networks`.
    pub net_tx_bytes: u64,
}

impl DockerFigures {
    /// Docker answers for a container that has ended too, with zeros: those are no reading.
    pub(super) fn reading(&self) -> Reading {
        if self.cpu_total_ns == 0 && self.mem_usage_bytes.is_none() {
            return Reading::default();
        }
        Reading {
            cpu_ns: Some(self.cpu_total_ns),
            mem_cur: self.mem_usage_bytes,
            mem_peak: self.mem_max_usage_bytes,
            io: Some((self.io_read_bytes, self.io_write_bytes)),
            net: Some((self.net_rx_bytes, self.net_tx_bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_has_ended_gives_no_reading() {
        assert!(DockerFigures::default().reading().is_gone());
        let running = DockerFigures { cpu_total_ns: 1, net_rx_bytes: 5, ..DockerFigures::default() };
        let reading = running.reading();
        assert_eq!((reading.cpu_ns, reading.net, reading.mem_cur), (Some(1), Some((5, 0)), None));
    }
}
