//! How many connections each address has, so that none has all places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

/// The counts; clones are the same counts. An address without a connection costs nothing.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    most: usize,
    /// Std mutex: held for a look-up, never over an await.
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Shares,
    address: IpAddr,
}

/// A connection's place among all and among those of its address; free when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) _of_all: OwnedSemaphorePermit,
    pub(super) _of_one: Share,
}

impl Shares {
    /// Of at most so many connections for one address.
    pub(super) fn new(most: usize) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// One more for this address; `None` when it has as many as it may.
    pub(super) fn take(&self, address: IpAddr) -> Option<Share> {
        let address = address.to_canonical();
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        // An address that is here for the first time has at least one.
        if *count >= self.most.max(1) {
            return None;
        }
        *count += 1;
        Some(Share { of: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_as_it_may_and_leaves_nothing_behind() {
        let shares = Shares::new(2);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let first = shares.take(a).unwrap();
        let second = shares.take("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert!(shares.take(a).is_none() && shares.take(b).is_some());
        drop(first);
        assert!(shares.take(a).is_some());
        drop(second);
        assert!(shares.counts().is_empty());
    }
}
