//! Bytes of answers that callers have not taken, of one connection and of all. No answer is dropped for itself; a
//! connection that takes none while all of them hold too much is closed, as if its caller had gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// Of all connections.
#[derive(Debug)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    most: usize,
    /// Whether they are more than may be.
    pressure: watch::Sender<Pressure>,
}

/// How much too much all connections hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Not.
    None,
    /// Whoever has answers to take has to take them, and is not read meanwhile.
    Some,
    /// Twice what may be: nobody is read.
    Full,
}

/// Of one connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct OwnUnread {
    all: Arc<Unread>,
    bytes: usize,
}

impl Unread {
    /// None yet, and at most so many bytes before it matters.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), most, pressure: watch::Sender::new(Pressure::None) })
    }

    /// How it is, from now on.
    pub(super) fn pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }

    fn change(&self, change: impl FnOnce(&AtomicUsize)) {
        change(&self.bytes);
        // Looked at behind the lock of the channel, so that the last to change it also tells what is true in the end.
        self.pressure.send_if_modified(|is| {
            let now = match self.bytes.load(Ordering::SeqCst) {
                few if few <= self.most => Pressure::None,
                many if many <= 2 * self.most => Pressure::Some,
                _ => Pressure::Full,
            };
            std::mem::replace(is, now) != now
        });
    }
}

impl OwnUnread {
    /// None of this connection.
    pub(super) fn new(all: Arc<Unread>) -> Self {
        Self { all, bytes: 0 }
    }

    /// How many they are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An answer waits.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.all.change(|all| {
            all.fetch_add(bytes, Ordering::SeqCst);
        });
    }

    /// An answer is written.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.all.change(|all| {
            all.fetch_sub(bytes, Ordering::SeqCst);
        });
    }
}

impl Drop for OwnUnread {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_presses_when_all_hold_too_much_and_no_longer() {
        let all = Unread::new(100);
        let pressure = all.pressure();
        let (mut first, mut second) = (OwnUnread::new(all.clone()), OwnUnread::new(all.clone()));
        first.add(60);
        second.add(40);
        assert_eq!(*pressure.borrow(), Pressure::None);
        second.add(1);
        assert_eq!((*pressure.borrow(), second.bytes()), (Pressure::Some, 41));
        second.remove(1);
        assert_eq!(*pressure.borrow(), Pressure::None);
        first.add(101);
        assert_eq!(*pressure.borrow(), Pressure::Full);
        drop(first);
        assert_eq!(*pressure.borrow(), Pressure::None);
        drop(second);
        assert_eq!(all.bytes.load(Ordering::SeqCst), 0);
    }
}
