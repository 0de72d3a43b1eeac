//! Reads the manager's numbers (`cpu_slot`, `mem_slot`, `gpu_slot`); pure (PROTOCOL sections 9, 12.11, 12.12).

/// Why resources can't be handed out. The texts reach the manager's log.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResourceError {
    /// NaN, an infinity, or below 0.
    #[error("{what} must be a finite number of at least 0, not {given}: check the session's resource limits")]
    BadNumber {
        /// The field of the request.
        what: &'static str,
        /// What it held.
        given: f64,
    },
    /// Docker could not express or would not take it.
    #[error(
        "mem_slot is {given} MiB; a memory limit must be between {MIN_MEMORY_MIB} MiB (the least that Docker \
         takes) and {MAX_MEMORY_MIB:e} MiB, or 0 for none: check the session's resource limits"
    )]
    BadMemory {
        /// MiB.
        given: f64,
    },
    /// GPUs asked for on a machine without.
    #[error(
        "a GPU was asked for, but this agent found none at its start (NVML): check nvidia-smi and restart the agent"
    )]
    NoGpus,
    /// More GPUs than the machine has.
    #[error("{asked} GPUs were asked for, but this machine has {present}")]
    TooFewGpus {
        /// Devices wanted.
        asked: usize,
        /// Devices of the machine.
        present: usize,
    },
}

/// Docker engines refuse containers with less memory than 4 MiB (later ones 6 MiB).
const MIN_MEMORY_MIB: f64 = 4.0;
/// Above it the number of bytes does not fit Docker's signed 64 bits.
const MAX_MEMORY_MIB: f64 = 8e12;
const BYTES_PER_MIB: f64 = 1_048_576.0;

/// The scheduler's period that quotas refer to: the kernel's default.
const PERIOD_US: u32 = 100_000;
/// The kernel refuses smaller quotas.
const MIN_QUOTA_US: u32 = 1_000;

/// CPU time per period, as Docker's `CpuQuota` and `CpuPeriod` take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds of CPU time in each period.
    pub quota_us: i64,
    /// Microseconds.
    pub period_us: i64,
}

/// The quota of a kernel that asked for a fraction of a core. A whole core or more needs none, because the set
/// of cores is the limit. 0 is the manager's "no particular wish": one core, no quota.
#[must_use]
pub fn cpu_quota(cpu_slot: f64) -> Option<CpuQuota> {
    if !(cpu_slot > 0.0 && cpu_slot < 1.0) {
        return None;
    }
    let quota = whole(cpu_slot * f64::from(PERIOD_US)).max(MIN_QUOTA_US);
    Some(CpuQuota { quota_us: quota.into(), period_us: PERIOD_US.into() })
}

/// A container's memory limit in bytes from MiB; 0 means none.
pub fn memory_bytes(mem_slot_mib: f64) -> Result<Option<u64>, ResourceError> {
    let mib = checked("mem_slot", mem_slot_mib)?;
    if mib == 0.0 {
        return Ok(None);
    }
    if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib) {
        return Err(ResourceError::BadMemory { given: mib });
    }
    // The range was checked: neither a sign nor bits are lost.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Some((mib * BYTES_PER_MIB) as u64))
}

/// The cores that `cpu_slot` stands for: its whole part, at least one; the map clamps to a node's size.
pub(super) fn core_count(cpu_slot: f64) -> Result<u32, ResourceError> {
    Ok(whole(checked("cpu_slot", cpu_slot)?).max(1))
}

/// The devices that `gpu_slot` stands for: a fraction is a share of one whole device.
pub(super) fn device_count(gpu_slot: f64) -> Result<u32, ResourceError> {
    Ok(whole(checked("gpu_slot", gpu_slot)?.ceil()))
}

fn checked(what: &'static str, given: f64) -> Result<f64, ResourceError> {
    if given.is_finite() && given >= 0.0 { Ok(given) } else { Err(ResourceError::BadNumber { what, given }) }
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
    fn memory_is_in_mib() {
        assert_eq!(memory_bytes(512.0), Ok(Some(512 * 1024 * 1024)));
        assert_eq!(memory_bytes(4.5), Ok(Some(4_718_592)));
        assert_eq!(memory_bytes(0.0), Ok(None));
        assert_eq!(memory_bytes(-0.0), Ok(None));
        assert!(i64::try_from(memory_bytes(MAX_MEMORY_MIB).unwrap().unwrap()).is_ok());
        for odd in ODD.into_iter().chain([1e-300, 3.9, 8.1e12, 1e308]) {
            assert!(memory_bytes(odd).is_err(), "{odd} was taken");
        }
    }

    #[test]
    fn only_fractions_of_a_core_have_a_quota() {
        let quota = |quota_us| Some(CpuQuota { quota_us, period_us: 100_000 });
        assert_eq!(cpu_quota(0.5), quota(50_000));
        assert_eq!(cpu_quota(0.999_999), quota(99_999));
        assert_eq!(cpu_quota(1e-9), quota(1_000));
        for whole in [0.0, 1.0, 1.5, 64.0, 1e308].into_iter().chain(ODD) {
            assert_eq!(cpu_quota(whole), None, "{whole}");
        }
    }

    #[test]
    fn cores_and_devices_are_counted() {
        for (slot, cores, devices) in [(0.0, 1, 0), (0.5, 1, 1), (1.0, 1, 1), (2.9, 2, 3)] {
            assert_eq!((core_count(slot), device_count(slot)), (Ok(cores), Ok(devices)), "{slot}");
        }
        assert_eq!(core_count(1e308), Ok(u32::MAX));
        assert_eq!(device_count(1e308), Ok(u32::MAX));
        for odd in ODD {
            assert!(core_count(odd).is_err() && device_count(odd).is_err(), "{odd} was taken");
        }
    }

    #[test]
    fn the_texts_tell_what_to_do() {
        assert_eq!(
            core_count(f64::NAN).unwrap_err().to_string(),
            "cpu_slot must be a finite number of at least 0, not NaN: check the session's resource limits"
        );
        assert_eq!(
            memory_bytes(1.0).unwrap_err().to_string(),
            "mem_slot is 1 MiB; a memory limit must be between 4 MiB (the least that Docker takes) and 8e12 MiB, \
             or 0 for none: check the session's resource limits"
        );
    }

    proptest! {
        #[test]
        fn any_number_has_an_answer(number in any::<f64>()) {
            let sane = number.is_finite() && number >= 0.0;
            prop_assert_eq!(core_count(number).is_ok(), sane);
            prop_assert_eq!(device_count(number).is_ok(), sane);
            if let Ok(Some(bytes)) = memory_bytes(number) {
                prop_assert!(bytes >= 4 * 1024 * 1024 && i64::try_from(bytes).is_ok());
            }
            if let Some(quota) = cpu_quota(number) {
                prop_assert!((1_000..100_000).contains(&quota.quota_us));
            }
        }
    }
}
