//! How busy the machine as a whole is: what an operator looks at first when kernels are slow.
//!
//! Figures of the host only. The agent's own process is measured by the metrics library, the scratch file system by
//! `scratch`, and whether the machine was booted since a note was written is told by the boot id, which no clock moves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sysinfo::{MemoryRefreshKind, System};

use crate::units::Memory;

/// The machine at one moment, kernels and everything else that runs on it together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// Tasks that ran or waited for a core or a disk, on average over the last minute.
    pub load: f64,
    /// The memory of the machine.
    pub memory: Memory,
    /// What of it new processes can have without swapping.
    pub memory_available: Memory,
}

/// Reads the machine's figures again and again; a new one looks at the machine first, which costs as much as several readings.
#[derive(Debug)]
pub struct HostReader(System);

impl Default for HostReader {
    fn default() -> Self {
        Self(System::new())
    }
}

impl HostReader {
    /// Reads the figures; takes some microseconds. Figures that can't be read are 0.
    #[must_use]
    pub fn read(&mut self) -> Host {
        self.0.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Host {
            load: System::load_average().one,
            memory: Memory::from_bytes(self.0.total_memory()),
            memory_available: Memory::from_bytes(self.0.available_memory()),
        }
    }
}

/// When the machine was started.
#[must_use]
pub fn booted() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(System::boot_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_a_machine_that_runs() {
        let host = HostReader::default().read();
        assert!(host.load >= 0.0, "{host:?}");
        assert!(host.memory_available.bytes() > 0 && host.memory_available < host.memory, "{host:?}");
        assert!(booted() > UNIX_EPOCH && booted() < SystemTime::now(), "{:?}", booted());
    }
}
