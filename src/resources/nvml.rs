//! NVIDIA's library, loaded at run time, as a [`GpuDriver`].

use std::fs;
use std::path::PathBuf;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::gpu_map::Gpu;
use super::gpu_watch::{DriverError, GpuDriver, GpuFigures, GpuReading, GpuSight};
use crate::units::Memory;

/// Asks NVML.
#[derive(Debug)]
pub struct NvmlDriver {
    /// Kept open between two looks; opened anew after a failure, since the driver may have been replaced.
    nvml: Option<Nvml>,
    /// The directory of PCI devices, in which `numa_node` tells where a GPU is attached.
    pci: PathBuf,
}

impl Default for NvmlDriver {
    fn default() -> Self {
        Self { nvml: None, pci: "/sys/bus/pci/devices".into() }
    }
}

impl GpuDriver for NvmlDriver {
    fn look(&mut self) -> Result<GpuSight, DriverError> {
        let nvml = match self.nvml.take() {
            Some(nvml) => nvml,
            None => Nvml::init().map_err(|error| sorted(&error))?,
        };
        let count = nvml.device_count().map_err(|error| sorted(&error))?;
        let mut sight = GpuSight::default();
        for index in 0..count {
            let device = nvml.device_by_index(index);
            match device.and_then(|device| self.describe(index, &device)) {
                Ok(reading) => sight.devices.push(reading),
                // A device that fell off the bus does not take the others with it.
                Err(error) => sight.broken.push(format!("GPU {index}: {error}")),
            }
        }
        self.nvml = Some(nvml);
        Ok(sight)
    }
}

impl NvmlDriver {
    fn describe(&self, index: u32, device: &Device<'_>) -> Result<GpuReading, NvmlError> {
        // Fails where the device is lost, while what names it may still be remembered by the library.
        let memory = device.memory_info()?;
        let gpu = Gpu {
            index,
            uuid: device.uuid()?,
            name: device.name()?,
            node: device.pci_info().ok().and_then(|pci| self.node(&pci.bus_id)),
            memory: Memory::from_bytes(memory.total),
        };
        let figures = GpuFigures {
            memory_used: Memory::from_bytes(memory.used),
            busy_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            milliwatts: device.power_usage().ok(),
        };
        Ok(GpuReading { gpu, figures })
    }

    /// The NUMA node of a PCI device; the kernel says -1 where it does not know.
    fn node(&self, bus_id: &str) -> Option<u32> {
        let text = fs::read_to_string(self.pci.join(sysfs_name(bus_id)).join("numa_node")).ok()?;
        text.trim().parse().ok()
    }
}

/// NVML writes a PCI address with eight digits of a domain, sysfs with four: `00000000:65:00.0`, `0000:65:00.0`.
fn sysfs_name(bus_id: &str) -> String {
    let name = bus_id.to_ascii_lowercase();
    match name.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => {
            format!("{}:{rest}", domain.strip_prefix("0000").unwrap_or(domain))
        }
        _ => name,
    }
}

/// A machine without the library or without the driver is an ordinary machine.
fn sorted(error: &NvmlError) -> DriverError {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded => {
            DriverError::Absent(error.to_string())
        }
        _ => DriverError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_s_node_is_found_in_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        for (name, node) in [("0000:65:00.0", "1\n"), ("0001:e3:00.0", "-1\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("numa_node"), node).unwrap();
        }
        let driver = NvmlDriver { nvml: None, pci: dir.path().to_owned() };
        assert_eq!(driver.node("00000000:65:00.0"), Some(1));
        assert_eq!(driver.node("00000001:E3:00.0"), None);
        assert_eq!(driver.node("00000000:66:00.0"), None);
        assert_eq!(sysfs_name("00010000:65:00.0"), "00010000:65:00.0");
    }

    #[test]
    fn this_machine_is_asked_for_real() {
        let sight = NvmlDriver::default().look();
        if std::path::Path::new("/proc/driver/nvidia").exists() {
            let sight = sight.unwrap();
            assert!(sight.devices.iter().all(|found| found.gpu.uuid.starts_with("GPU-")), "{sight:?}");
        } else {
            assert!(matches!(sight, Err(DriverError::Absent(_))), "{sight:?}");
        }
    }
}
