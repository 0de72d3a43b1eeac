//! Whether the machine can give what the manager asks for; pure (PROTOCOL sections 9, 12.11, 12.12).

use crate::units::Memory;

/// Why resources can't be handed out. The texts reach the manager's log.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResourceError {
    /// Docker could not express or would not take it.
    #[error(
        "mem_slot is {given}; a memory limit must be between {MIN_MEMORY} (the least that Docker takes) and \
         {MAX_MEMORY}, or 0 for none: check the session's resource limits"
    )]
    BadMemory {
        /// What was asked for.
        given: Memory,
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

/// Docker engines refuse containers with less memory (later ones: with less than 6 MiB).
const MIN_MEMORY: Memory = Memory::from_mib(4);
/// Above it the number of bytes does not fit Docker's signed 64 bits.
const MAX_MEMORY: Memory = Memory::from_mib(8_000_000_000_000);

/// A container's memory limit; 0 means none.
pub fn memory_limit(mem_slot: Memory) -> Result<Option<Memory>, ResourceError> {
    if mem_slot == Memory::default() {
        return Ok(None);
    }
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&mem_slot) {
        return Err(ResourceError::BadMemory { given: mem_slot });
    }
    Ok(Some(mem_slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_takes_is_a_limit_and_nothing_is_none() {
        assert_eq!(memory_limit(Memory::default()), Ok(None));
        for good in [Memory::from_mib(512), MIN_MEMORY, MAX_MEMORY] {
            assert_eq!(memory_limit(good), Ok(Some(good)));
            assert!(i64::try_from(good.bytes()).is_ok());
        }
        for odd in [1e-6, 3.9, 8.1e12, 1e308].map(|mib| Memory::from_slot(mib).unwrap()) {
            assert!(memory_limit(odd).is_err(), "{odd} was taken");
        }
    }

    #[test]
    fn the_text_tells_what_to_do() {
        assert_eq!(
            memory_limit(Memory::from_mib(1)).unwrap_err().to_string(),
            "mem_slot is 1 MiB; a memory limit must be between 4 MiB (the least that Docker takes) and \
             8000000000000 MiB, or 0 for none: check the session's resource limits"
        );
    }
}
