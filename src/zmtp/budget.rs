//! Bytes that many connections may hold together.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// The unit of the budget, in bytes: a semaphore counts to less than the bytes that there are.
const UNIT: u64 = 1024;

/// A number of bytes, shared.
///
/// Messages that are half here must never wait for each other: when nothing is left, one holder at a time may take as
/// much as it needs above the budget. What is held is thus at most the budget and one largest message.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    overdraft: Arc<Mutex<()>>,
}

/// Bytes that are held, until it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    bytes: u64,
    units: Vec<OwnedSemaphorePermit>,
    overdraft: Option<OwnedMutexGuard<()>>,
}

impl Held {
    /// How many they are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Budget {
    /// Of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), overdraft: Arc::default() }
    }

    /// Waits until `held` may be `bytes` in all. First come, first served.
    pub async fn raise(&self, mut held: Held, bytes: u64) -> Held {
        let missing = bytes.saturating_sub(held.bytes).div_ceil(UNIT);
        held.bytes = held.bytes.max(bytes);
        if held.overdraft.is_some() || missing == 0 {
            return held;
        }
        let units = u32::try_from(missing).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            Ok(units) = self.units.clone().acquire_many_owned(units) => held.units.push(units),
            overdraft = self.overdraft.clone().lock_owned() => held.overdraft = Some(overdraft),
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_holder_goes_on_when_nothing_is_left() {
        let budget = Budget::new(10 * UNIT);
        let none = Held::default;
        let six = budget.raise(none(), 6 * UNIT).await;
        let four = budget.raise(none(), 4 * UNIT).await;
        // Both need more than there is: one gets it, and without an end.
        let ten = budget.raise(six, 10 * UNIT).await;
        let mut waits = Box::pin(budget.raise(four, 5 * UNIT));
        assert!((&mut waits).now_or_never().is_none());
        let fifty = budget.raise(ten, 50 * UNIT).now_or_never().unwrap();
        drop(fifty);
        let five = waits.await;
        assert!(five.overdraft.is_none(), "there was room again");
        let five_more = budget.raise(none(), 5 * UNIT).now_or_never().unwrap();
        assert_eq!(budget.units.available_permits(), 0);
        drop((five, five_more));
        assert_eq!(budget.units.available_permits(), 10);
    }

    #[tokio::test]
    async fn what_is_larger_than_all_goes_alone() {
        let budget = Budget::new(UNIT);
        let large = budget.raise(Held::default(), 500 * UNIT).await;
        assert!(budget.raise(Held::default(), 2 * UNIT).now_or_never().is_none());
        let small = budget.raise(Held::default(), UNIT).now_or_never();
        assert!(small.is_some() && large.overdraft.is_some());
    }
}
