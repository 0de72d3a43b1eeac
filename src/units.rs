//! Amounts of memory, cores and GPUs (PROTOCOL sections 9, 12.11, 12.12). Pure.
//!
//! Each is made where a number enters the agent (a request, a label, the command line, an answer of Docker); from
//! there on no number stands for MiB in one place and for bytes in another, and none is NaN or below 0.

use std::fmt;
use std::str::FromStr;

const MIB: f64 = 1_048_576.0;
const MIB_IN_GIB: f64 = 1_024.0;

/// The scheduler's period that quotas refer to: the Linux kernel's default.
const PERIOD_US: u32 = 100_000;
/// The Linux kernel refuses smaller quotas.
const MIN_QUOTA_US: u32 = 1_000;

/// An amount of memory or of room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Memory {
    bytes: u64,
}

impl Memory {
    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }

    /// So many MiB; what is too large becomes the largest amount.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self { bytes: mib.saturating_mul(1 << 20) }
    }

    /// So many MiB, which may be a fraction, as the manager counts; what is too large becomes the largest amount,
    /// and NaN and what is below 0 no amount.
    #[must_use]
    pub fn from_slot(mib: f64) -> Option<Self> {
        // A cast from f64 saturates, which is what is wanted.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = (amount(mib)? * MIB) as u64;
        Some(Self { bytes })
    }

    /// So many GiB, which may be a fraction, as managers from 1.4 on count; else like [`Memory::from_slot`].
    #[must_use]
    pub fn from_gib(gib: f64) -> Option<Self> {
        Self::from_slot(amount(gib)? * MIB_IN_GIB).or(Some(Self { bytes: u64::MAX }))
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The whole MiB in it.
    #[must_use]
    pub const fn mib(self) -> u64 {
        self.bytes >> 20
    }

    /// In MiB, as the manager counts: [`Memory::from_slot`] makes the same amount of it again.
    #[must_use]
    pub fn slot(self) -> f64 {
        // Exact below 2^53 bytes, 8 PiB.
        #[allow(clippy::cast_precision_loss)]
        let bytes = self.bytes as f64;
        bytes / MIB
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.slot())
    }
}

/// Cores, of which there may be a fraction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Cores(f64);

/// GPUs, of which there may be a fraction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Gpus(f64);

/// GPUs of one kernel, counted exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuParts {
    /// Devices that are wholly its own.
    pub whole: u32,
    /// Of one more device, so many thousandths; below 1000.
    pub thousandths: u32,
}

/// CPU time: a quota of half the period is half a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds that it may run in each period.
    pub quota_us: i64,
    /// The period's length in microseconds.
    pub period_us: i64,
}

impl Cores {
    /// `None` for NaN, an infinity, and what is below 0.
    #[must_use]
    pub fn from_slot(cores: f64) -> Option<Self> {
        amount(cores).map(Self)
    }

    /// As the manager counts.
    #[must_use]
    pub fn slot(self) -> f64 {
        self.0
    }

    /// How many cores that is for a kernel: the whole part, at least one. 0 is the manager's "no particular wish".
    #[must_use]
    pub fn count(self) -> u32 {
        whole(self.0).max(1)
    }

    /// The CPU time of a kernel that gets so many cores; `None` where there is no particular wish.
    #[must_use]
    pub fn quota(self) -> Option<CpuQuota> {
        if self.0 == 0.0 {
            return None;
        }
        let quota = whole(self.0 * f64::from(PERIOD_US)).max(MIN_QUOTA_US);
        Some(CpuQuota { quota_us: quota.into(), period_us: PERIOD_US.into() })
    }
}

impl Gpus {
    /// `None` for NaN, an infinity, and what is below 0.
    #[must_use]
    pub fn from_slot(gpus: f64) -> Option<Self> {
        amount(gpus).map(Self)
    }

    /// As the manager counts.
    #[must_use]
    pub fn slot(self) -> f64 {
        self.0
    }

    /// How many devices that is for a kernel: a fraction is a part of one more device.
    #[must_use]
    pub fn count(self) -> u32 {
        let GpuParts { whole, thousandths } = self.parts();
        whole.saturating_add(u32::from(thousandths > 0))
    }

    /// Whole devices, and the part of one more. What is smaller than a thousandth counts as one.
    #[must_use]
    pub fn parts(self) -> GpuParts {
        let whole = whole(self.0);
        let part = (self.0 - f64::from(whole)).clamp(0.0, 1.0);
        match whole_up(part * 1000.0) {
            1000 => GpuParts { whole: whole.saturating_add(1), thousandths: 0 },
            0 if whole == 0 && self.0 > 0.0 => GpuParts { whole, thousandths: 1 },
            thousandths => GpuParts { whole, thousandths },
        }
    }
}

/// The text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a number, 0 or above")]
pub struct BadAmount;

impl FromStr for Cores {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        text.parse().ok().and_then(Self::from_slot).ok_or(BadAmount)
    }
}

impl FromStr for Gpus {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        text.parse().ok().and_then(Self::from_slot).ok_or(BadAmount)
    }
}

fn amount(number: f64) -> Option<f64> {
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// Rounded up, but for what floating point adds to a decimal fraction.
fn whole_up(number: f64) -> u32 {
    whole((number - 1e-6).ceil().max(0.0))
}

/// The whole part; what is too large becomes the largest.
fn whole(number: f64) -> u32 {
    // A cast from f64 saturates, which is what is wanted.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = number as u32;
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ODD: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -1e-300];

    #[test]
    fn memory_is_counted_in_mib_outside_and_in_bytes_inside() {
        assert_eq!(Memory::from_slot(512.0), Some(Memory::from_mib(512)));
        assert_eq!(Memory::from_slot(4.5).map(Memory::bytes), Some(4_718_592));
        assert_eq!(Memory::from_slot(-0.0), Some(Memory::default()));
        assert_eq!(Memory::from_slot(1e308), Some(Memory::from_bytes(u64::MAX)));
        assert_eq!(
            (Memory::from_bytes((3 << 20) - 1).mib(), Memory::from_mib(u64::MAX).bytes()),
            (2, u64::MAX)
        );
        assert_eq!(Memory::from_bytes(1 << 19).to_string(), "0.5 MiB");
    }

    #[test]
    fn managers_from_1_4_on_count_in_gib() {
        for (gib, bytes) in
            [(0.0, 0), (0.5, 1 << 29), (0.25, 1 << 28), (0.1, 107_374_182), (1.0, 1 << 30), (1e308, u64::MAX)]
        {
            assert_eq!(Memory::from_gib(gib).map(Memory::bytes), Some(bytes), "{gib}");
        }
    }

    #[test]
    fn any_wish_for_cores_has_a_quota() {
        let quota = |quota_us| Some(CpuQuota { quota_us, period_us: 100_000 });
        for (slot, expected) in [
            (0.5, quota(50_000)),
            (0.999_999, quota(99_999)),
            (1e-9, quota(1_000)),
            (0.0, None),
            (1.0, quota(100_000)),
            (1.5, quota(150_000)),
            (1e308, quota(u32::MAX.into())),
        ] {
            assert_eq!(Cores::from_slot(slot).unwrap().quota(), expected, "{slot}");
        }
    }

    #[test]
    fn cores_and_devices_are_counted() {
        for (slot, cores, gpus) in
            [(0.0, 1, 0), (0.5, 1, 1), (1.0, 1, 1), (2.9, 2, 3), (1e308, u32::MAX, u32::MAX)]
        {
            let counts = (Cores::from_slot(slot).unwrap().count(), Gpus::from_slot(slot).unwrap().count());
            assert_eq!(counts, (cores, gpus), "{slot}");
        }
    }

    #[test]
    fn a_gpu_is_counted_in_thousandths() {
        for (slot, whole, thousandths) in [
            (0.0, 0, 0),
            (0.3, 0, 300),
            (2.7, 2, 700),
            (1.0001, 1, 1),
            (0.999_99, 1, 0),
            (1.1, 1, 100),
            (1e-9, 0, 1),
        ] {
            assert_eq!(Gpus::from_slot(slot).unwrap().parts(), GpuParts { whole, thousandths }, "{slot}");
        }
    }

    #[test]
    fn what_is_no_amount_gets_no_further() {
        for odd in ODD {
            assert_eq!(
                (Memory::from_slot(odd), Cores::from_slot(odd), Gpus::from_slot(odd)),
                (None, None, None)
            );
            assert_eq!(Memory::from_gib(odd), None);
        }
        for text in ["", "x", "-1", "nan", "inf", "1,5"] {
            assert!(text.parse::<Cores>().is_err() && text.parse::<Gpus>().is_err(), "{text:?}");
        }
        assert_eq!("0.5".parse::<Cores>().ok(), Cores::from_slot(0.5));
    }

    proptest! {
        #[test]
        fn an_amount_of_memory_comes_back_from_the_managers_count(bytes in 0..1_u64 << 53) {
            let memory = Memory::from_bytes(bytes);
            prop_assert_eq!(Memory::from_slot(memory.slot()), Some(memory));
        }

        #[test]
        fn any_number_has_an_answer(number in any::<f64>()) {
            let is_amount = number.is_finite() && number >= 0.0;
            prop_assert_eq!(Memory::from_slot(number).is_some(), is_amount);
            prop_assert_eq!(Gpus::from_slot(number).is_some(), is_amount);
            let cores = Cores::from_slot(number);
            prop_assert_eq!(cores.is_some(), is_amount);
            if let Some(quota) = cores.and_then(Cores::quota) {
                prop_assert!((1_000..=u32::MAX.into()).contains(&quota.quota_us));
            }
        }
    }
}
