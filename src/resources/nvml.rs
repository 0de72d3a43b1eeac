//! Finds the GPUs of this machine, once, at the start.

use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use tracing::{debug, info, warn};

use super::gpu_map::Gpu;

/// The GPUs that NVML shows; none without NVML, with a driver that fails, or when it takes longer than `limit`.
///
/// NVML is asked on a thread of its own, not on the runtime's blocking pool: a driver that hangs keeps the thread
/// in the kernel for ever, and the pool would make the end of the process wait for it.
pub async fn discover_gpus(limit: Duration) -> Vec<Gpu> {
    discover_with(limit, ask_nvml).await
}

async fn discover_with<F>(limit: Duration, probe: F) -> Vec<Gpu>
where
    F: FnOnce() -> Result<Vec<Gpu>, NvmlError> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("nvml".into()).spawn(move || {
        // Nobody listens any more when the limit has passed.
        let _ = sender.send(probe());
    });
    if let Err(error) = thread {
        warn!(%error, "can't start the thread that looks for GPUs, going on without GPUs");
        return Vec::new();
    }
    match tokio::time::timeout(limit, receiver).await {
        Ok(Ok(Ok(gpus))) => {
            for gpu in &gpus {
                info!(index = gpu.index, uuid = gpu.uuid, model = gpu.name, "found a GPU");
            }
            gpus
        }
        Ok(Ok(Err(error))) if is_absent(&error) => {
            debug!(%error, "no NVML on this machine, no GPUs");
            Vec::new()
        }
        Ok(Ok(Err(error))) => {
            warn!(%error, "NVML failed, going on without GPUs; check nvidia-smi and restart the agent");
            Vec::new()
        }
        Ok(Err(_)) => {
            warn!("looking for GPUs panicked, going on without GPUs");
            Vec::new()
        }
        Err(_) => {
            warn!(
                ?limit,
                "the GPU driver does not answer, going on without GPUs; check nvidia-smi and restart the agent"
            );
            Vec::new()
        }
    }
}

/// A machine without the library or without the driver is an ordinary machine.
fn is_absent(error: &NvmlError) -> bool {
    matches!(error, NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded)
}

fn ask_nvml() -> Result<Vec<Gpu>, NvmlError> {
    let nvml = Nvml::init()?;
    let describe = |index| -> Result<Gpu, NvmlError> {
        let device = nvml.device_by_index(index)?;
        Ok(Gpu { index, uuid: device.uuid()?, name: device.name()? })
    };
    let found = (0..nvml.device_count()?).filter_map(|index| {
        // A device that fell off the bus does not take the others with it.
        describe(index)
            .inspect_err(|error| warn!(index, %error, "leaving out a GPU that can't be asked"))
            .ok()
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    fn gpu() -> Gpu {
        Gpu { index: 0, uuid: "GPU-0".into(), name: "test".into() }
    }

    #[tokio::test]
    async fn what_the_driver_shows_is_taken() {
        assert_eq!(discover_with(Duration::from_secs(10), || Ok(vec![gpu()])).await, [gpu()]);
    }

    #[tokio::test]
    async fn a_driver_that_hangs_is_given_up() {
        let (release, hanging) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let started = Instant::now();
        let found = discover_with(Duration::from_millis(50), move || {
            let _ = hanging.recv();
            let _ = ended.send(());
            Ok(vec![gpu()])
        });
        assert_eq!(found.await, []);
        assert!(started.elapsed() < Duration::from_secs(5));
        // Its thread was still there, and its late answer harms nobody.
        drop(release);
        end.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[tokio::test]
    async fn failures_and_panics_mean_no_gpus() {
        let limit = Duration::from_secs(10);
        assert_eq!(discover_with(limit, || Err(NvmlError::GpuLost)).await, []);
        assert_eq!(discover_with(limit, || panic!("a driver went mad (part of a test)")).await, []);
    }

    #[tokio::test]
    async fn this_machine_is_asked_for_real() {
        let found = discover_gpus(Duration::from_secs(10)).await;
        let driver = std::path::Path::new("/proc/driver/nvidia").exists();
        assert!(driver || found.is_empty(), "GPUs without a driver: {found:?}");
        assert!(found.iter().all(|gpu| gpu.uuid.starts_with("GPU-")), "{found:?}");
    }
}
