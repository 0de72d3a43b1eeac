//! Whether a kernel can have what the manager asks for; pure (PROTOCOL sections 9, 12.11, 12.12).

use std::str::FromStr;

use crate::units::Memory;

/// The size of a kernel's `/dev/shm`. What is written there counts as memory of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShmSize {
    /// The same for every kernel.
    Fixed(Memory),
    /// Per cent of the kernel's memory limit, or of the machine's memory where there is none.
    Percent(u8),
}

/// Half, which is what Linux gives its own `/dev/shm`.
impl Default for ShmSize {
    fn default() -> Self {
        Self::Percent(50)
    }
}

/// The text is no size of shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give MiB, as in 256, or a part of the memory limit, as in 50%")]
pub struct BadShmSize;

impl FromStr for ShmSize {
    type Err = BadShmSize;

    fn from_str(text: &str) -> Result<Self, BadShmSize> {
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(BadShmSize),
            },
            None => match text.parse() {
                Ok(mib @ 1..=MAX_MIB) => Ok(Self::Fixed(Memory::from_mib(mib))),
                _ => Err(BadShmSize),
            },
        }
    }
}

impl ShmSize {
    /// For a kernel with this memory limit. A part is never below Docker's default, so that kernels with little memory
    /// lose nothing.
    fn of(self, limit: Option<Memory>, machine: Memory) -> Memory {
        match self {
            Self::Fixed(size) => size,
            Self::Percent(percent) => {
                let part = u128::from(limit.unwrap_or(machine).bytes()) * u128::from(percent) / 100;
                Memory::from_bytes(u64::try_from(part).unwrap_or(u64::MAX)).max(DOCKER_SHM)
            }
        }
    }
}

/// A kernel's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryGrant {
    /// The most that it can take; `None` for no limit.
    pub limit: Option<Memory>,
    /// The size of its `/dev/shm`.
    pub shm: Memory,
}

/// Why resources can't be handed out. The texts reach the manager's log.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResourceError {
    /// Less than a container can have.
    #[error(
        "mem_slot is {given}; a container can't have less than {MIN_MEMORY} (Docker's minimum; 0 means no limit): \
         check the session's resource limits and the image's label io.sorna.maxmem"
    )]
    TooLittleMemory {
        /// What was asked for.
        given: Memory,
    },
    /// More than this machine has.
    #[error("mem_slot is {given}, but this machine has {machine}: check the session's resource limits")]
    TooMuchMemory {
        /// What was asked for.
        given: Memory,
        /// The machine's memory.
        machine: Memory,
    },
    /// GPUs asked for on a machine without.
    #[error(
        "a GPU was asked for, but this agent sees none (NVML): check nvidia-smi, --limit-gpus and the agent's log"
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

/// Docker refuses containers with less since release 20.10; with less than that a container hardly starts anyway.
const MIN_MEMORY: Memory = Memory::from_mib(6);
/// What Docker gives a container as shared memory.
const DOCKER_SHM: Memory = Memory::from_mib(64);
/// 1 PiB, above which a size is a slip of the finger.
const MAX_MIB: u64 = 1 << 30;

/// What a kernel that asks for `mem_slot` gets on a machine of so much memory; 0 means no limit, and of the machine that
/// Docker did not tell.
///
/// The machine's memory is the bound and not what the operator leaves to kernels: a session that was made before the
/// operator kept more must still be able to restart.
pub(super) fn memory(mem_slot: Memory, shm: ShmSize, machine: Memory) -> Result<MemoryGrant, ResourceError> {
    let limit = (mem_slot != Memory::default()).then_some(mem_slot);
    match limit {
        Some(given) if given < MIN_MEMORY => Err(ResourceError::TooLittleMemory { given }),
        Some(given) if given > machine && machine > Memory::default() => {
            Err(ResourceError::TooMuchMemory { given, machine })
        }
        _ => Ok(MemoryGrant { limit, shm: shm.of(limit, machine) }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MACHINE: Memory = Memory::from_mib(16_000);

    fn slot(mib: f64) -> Memory {
        Memory::from_slot(mib).unwrap()
    }

    #[test]
    fn what_can_be_is_a_limit_and_nothing_is_none() {
        let limit = |mem_slot| memory(mem_slot, ShmSize::default(), MACHINE).map(|grant| grant.limit);
        assert_eq!(limit(Memory::default()), Ok(None));
        for good in [Memory::from_mib(512), MIN_MEMORY, MACHINE] {
            assert_eq!(limit(good), Ok(Some(good)));
        }
        for odd in [1e-6, 5.9, 16_000.1, 1e308].map(slot) {
            assert!(limit(odd).is_err(), "{odd} was taken");
        }
    }

    #[test]
    fn the_texts_tell_what_to_do() {
        let refused = |mib| memory(slot(mib), ShmSize::default(), MACHINE).unwrap_err().to_string();
        assert_eq!(
            refused(1.0),
            "mem_slot is 1 MiB; a container can't have less than 6 MiB (Docker's minimum; 0 means no limit): \
             check the session's resource limits and the image's label io.sorna.maxmem"
        );
        assert_eq!(
            refused(20_000.0),
            "mem_slot is 20000 MiB, but this machine has 16000 MiB: check the session's resource limits"
        );
    }

    #[test]
    fn shared_memory_grows_with_the_limit() {
        let shm = |text: &str, mib: f64| memory(slot(mib), text.parse().unwrap(), MACHINE).unwrap().shm.mib();
        assert_eq!(shm("50%", 4096.0), 2048);
        assert_eq!(shm("50%", 100.0), 64);
        assert_eq!(shm("100%", 0.0), 16_000);
        assert_eq!(shm("32", 4096.0), 32);
        assert_eq!(ShmSize::default(), ShmSize::Percent(50));
        for bad in ["", "0", "0%", "101%", "-1", "1.5", "half", "50 %", "1073741825"] {
            assert!(bad.parse::<ShmSize>().is_err(), "{bad:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn what_docker_is_asked_for_fits_its_numbers(bytes in any::<u64>(), percent in 1u8..=100) {
            let machine = Memory::from_mib(MAX_MIB);
            if let Ok(grant) = memory(Memory::from_bytes(bytes), ShmSize::Percent(percent), machine) {
                prop_assert!(grant.limit.is_none_or(|limit| i64::try_from(limit.bytes()).is_ok()));
                prop_assert!(grant.shm <= grant.limit.unwrap_or(machine).max(DOCKER_SHM));
            }
        }
    }
}
