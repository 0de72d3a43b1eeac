//! Asks the GPUs' driver again and again which devices there are and how they do.
//!
//! The driver is asked on a thread of its own, not on the runtime's blocking pool: a driver that hangs keeps the thread
//! in the kernel for ever, and the pool would make the end of the process wait for it. While it hangs it is not
//! asked again, and the machine has no GPUs: a container that is given one would hang as well.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use super::gpu_map::Gpu;
use super::pool::Resources;
use crate::patience::Outage;
use crate::units::Memory;

/// How long one look may take, which the driver does in some milliseconds.
const LIMIT: Duration = Duration::from_secs(3);

/// Whoever knows the devices of this machine.
pub trait GpuDriver: Send + 'static {
    /// The devices as they are now. May block.
    fn look(&mut self) -> Result<GpuSight, DriverError>;
}

/// What a look at the devices shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuSight {
    /// Devices that answer.
    pub devices: Vec<GpuReading>,
    /// Devices that the driver knows and can't ask, each with the reason.
    pub broken: Vec<String>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReading {
    /// Which.
    pub gpu: Gpu,
    /// How it does.
    pub figures: GpuFigures,
}

/// How a device does. Some devices don't tell all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuFigures {
    /// The device's own memory in use.
    pub memory_used: Memory,
    /// The part of the last second or so in which it computed.
    pub busy_percent: Option<u32>,
    /// The device's temperature.
    pub celsius: Option<u32>,
    /// What it consumes.
    pub milliwatts: Option<u32>,
}

/// The driver does not show any device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// There is none; this machine has no GPUs.
    #[error("there is no driver: {0}")]
    Absent(String),
    /// The driver is there and failed.
    #[error("the driver failed: {0}")]
    Failed(String),
    /// The driver does not answer.
    #[error("the driver does not answer within {} s", LIMIT.as_secs())]
    Hangs,
}

type Answer = Result<GpuSight, DriverError>;

/// The devices of this machine, kept up to date.
#[derive(Debug)]
pub struct GpuWatch {
    /// To the driver's thread: where it shall answer.
    questions: mpsc::Sender<oneshot::Sender<Answer>>,
    /// The answer that was given up waiting for, if it has not come yet.
    pending: Option<oneshot::Receiver<Answer>>,
    /// Looks that failed since the last good one.
    outage: Outage,
    /// Broken devices as they were told last.
    broken: Vec<String>,
    /// How the devices do.
    readings: watch::Sender<Vec<GpuReading>>,
}

impl GpuWatch {
    /// Starts the driver's thread, which ends with this watch unless the driver hangs.
    #[must_use]
    pub fn new(mut driver: impl GpuDriver) -> Self {
        let (questions, asked) = mpsc::channel::<oneshot::Sender<Answer>>();
        let thread = std::thread::Builder::new().name("gpus".into()).spawn(move || {
            while let Ok(question) = asked.recv() {
                // Nobody listens any more when the watch is gone.
                let _ = question.send(driver.look());
            }
        });
        if let Err(error) = thread {
            // The first look finds that nobody answers.
            warn!(%error, "can't start the thread that looks for GPUs");
        }
        Self {
            questions,
            pending: None,
            outage: Outage::default(),
            broken: Vec::new(),
            readings: watch::Sender::default(),
        }
    }

    /// How the devices do, as of the last look.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<Vec<GpuReading>> {
        self.readings.subscribe()
    }

    /// Looks once, tells `resources`, and says in the log what changed. `false`: there is no driver, and another look
    /// is of no use.
    pub async fn look(&mut self, resources: &Resources) -> bool {
        let answer = self.ask(LIMIT).await;
        self.take(answer, resources)
    }

    /// Looks every so often, for ever; to the end of the first look if there is no driver.
    pub async fn run(mut self, resources: Resources, every: Duration) {
        while self.look(&resources).await {
            tokio::time::sleep(every).await;
        }
    }

    async fn ask(&mut self, limit: Duration) -> Answer {
        let mut answer = self.pending.take().unwrap_or_else(|| {
            let (to, answer) = oneshot::channel();
            // Without a thread the answer's sender is dropped, which is seen next.
            let _ = self.questions.send(to);
            answer
        });
        match tokio::time::timeout(limit, &mut answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(DriverError::Failed("its thread has ended".to_owned())),
            Err(_) => {
                self.pending = Some(answer);
                Err(DriverError::Hangs)
            }
        }
    }

    fn take(&mut self, answer: Answer, resources: &Resources) -> bool {
        let sight = match answer {
            Ok(sight) => sight,
            Err(error @ DriverError::Absent(_)) if self.readings.borrow().is_empty() => {
                debug!(%error, "this machine has no GPUs");
                return false;
            }
            Err(error) => {
                if self.outage.failed(Instant::now()) {
                    warn!(%error, "can't look at GPUs, going on without; check nvidia-smi");
                } else {
                    debug!(%error, "still can't look at GPUs");
                }
                GpuSight { devices: Vec::new(), broken: self.broken.clone() }
            }
        };
        for device in sight.broken.iter().filter(|device| !self.broken.contains(device)) {
            warn!(%device, "leaving out a GPU that can't be asked; check nvidia-smi");
        }
        self.broken = sight.broken;
        let changes = resources.update_gpus(sight.devices.iter().map(|seen| seen.gpu.clone()).collect());
        for (gpu, kernels) in changes.lost {
            warn!(
                gpu = gpu.index,
                uuid = gpu.uuid,
                kernels,
                "a GPU is gone, no session gets it until it is back; check nvidia-smi and the kernel's log (dmesg)"
            );
        }
        for gpu in changes.found {
            info!(gpu = gpu.index, uuid = gpu.uuid, model = gpu.name, node = gpu.node, "found a GPU");
        }
        self.readings.send_replace(sight.devices);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::resources::{NodeLimits, Request, Topology};
    use crate::units::Gpus;

    /// A driver that answers as a test wants; `None` hangs until the other end is dropped.
    struct Described {
        answers: Arc<Mutex<Option<Answer>>>,
        release: mpsc::Receiver<()>,
    }

    impl GpuDriver for Described {
        fn look(&mut self) -> Answer {
            let answer = self.answers.lock().unwrap().clone();
            answer.unwrap_or_else(|| {
                let _ = self.release.recv();
                self.answers.lock().unwrap().clone().unwrap()
            })
        }
    }

    fn machine(numbers: impl IntoIterator<Item = u32>) -> GpuSight {
        let reading = |index: u32| GpuReading {
            gpu: Gpu {
                index,
                uuid: format!("GPU-{index}"),
                name: "described".into(),
                node: Some(index / 4),
                memory: Memory::from_mib(81_920),
            },
            figures: GpuFigures { busy_percent: Some(index), ..GpuFigures::default() },
        };
        GpuSight { devices: numbers.into_iter().map(reading).collect(), broken: Vec::new() }
    }

    fn watch(answer: Option<Answer>) -> (GpuWatch, Resources, Arc<Mutex<Option<Answer>>>, mpsc::Sender<()>) {
        let answers = Arc::new(Mutex::new(answer));
        let (release, held) = mpsc::channel();
        let watch = GpuWatch::new(Described { answers: Arc::clone(&answers), release: held });
        let resources =
            Resources::new(Topology::flat(2), Memory::from_mib(1), NodeLimits::default()).unwrap();
        (watch, resources, answers, release)
    }

    fn gpus(resources: &Resources) -> usize {
        resources.totals().gpus
    }

    #[tokio::test]
    async fn a_device_that_falls_off_the_bus_leaves_the_slots_and_comes_back() {
        let (mut watch, resources, answers, _release) = watch(Some(Ok(machine(0..8))));
        assert!(watch.look(&resources).await);
        assert_eq!(gpus(&resources), 8);
        assert_eq!(watch.readings().borrow()[5].figures.busy_percent, Some(5));
        let gpu_slot = Gpus::from_slot(8.0).unwrap();
        let all = resources.allocate(Request { gpu_slot, ..Request::default() }).unwrap();
        let mut seven = machine((0..8).filter(|n| *n != 3));
        seven.broken.push("GPU 3: the GPU has fallen off the bus".into());
        *answers.lock().unwrap() = Some(Ok(seven));
        assert!(watch.look(&resources).await);
        assert_eq!(gpus(&resources), 7);
        drop(all);
        *answers.lock().unwrap() = Some(Ok(machine(0..8)));
        assert!(watch.look(&resources).await);
        assert_eq!(gpus(&resources), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_hangs_is_given_up_and_asked_no_more_until_it_answers() {
        let (mut watch, resources, answers, release) = watch(None);
        // The clock of the test jumps over the limit, since nothing else is to be done.
        assert!(watch.look(&resources).await);
        assert!(watch.look(&resources).await);
        assert_eq!(gpus(&resources), 0);
        *answers.lock().unwrap() = Some(Ok(machine(0..8)));
        drop(release);
        tokio::time::resume();
        assert!(watch.look(&resources).await);
        assert_eq!(gpus(&resources), 8);
    }

    #[tokio::test]
    async fn a_driver_that_fails_takes_the_slots_away_and_none_at_all_is_asked_once() {
        let (mut seen, resources, answers, _release) = watch(Some(Ok(machine(0..2))));
        assert!(seen.look(&resources).await);
        *answers.lock().unwrap() = Some(Err(DriverError::Failed("mismatch".into())));
        assert!(seen.look(&resources).await);
        assert_eq!(gpus(&resources), 0);
        *answers.lock().unwrap() = Some(Err(DriverError::Absent("removed".into())));
        let (mut watch, resources, _answers, _release) =
            watch(Some(Err(DriverError::Absent("no library".into()))));
        assert!(!watch.look(&resources).await);
    }

    #[tokio::test]
    async fn a_driver_that_panics_means_no_gpus() {
        struct Mad;
        impl GpuDriver for Mad {
            fn look(&mut self) -> Answer {
                panic!("a driver went mad (part of a test)")
            }
        }
        let (_, resources, ..) = watch(None);
        let mut watch = GpuWatch::new(Mad);
        assert!(watch.look(&resources).await);
        assert!(watch.look(&resources).await);
        assert_eq!(gpus(&resources), 0);
    }
}
