//! The pulls that go on, for whoever looks.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::units::Memory;

/// By image (`python:3.6-debian`): what is here, and all that is known to come.
pub type Pulls = BTreeMap<String, (Memory, Memory)>;

/// A pull that is shown until this is dropped.
pub(super) struct Shown<'p> {
    pulls: &'p watch::Sender<Pulls>,
    image: &'p str,
}

impl<'p> Shown<'p> {
    pub(super) fn new(pulls: &'p watch::Sender<Pulls>, image: &'p str) -> Self {
        let shown = Self { pulls, image };
        shown.at((Memory::default(), Memory::default()));
        shown
    }

    /// It has come so far.
    pub(super) fn at(&self, sums: (Memory, Memory)) {
        self.pulls.send_modify(|pulls| {
            pulls.insert(self.image.to_owned(), sums);
        });
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.pulls.send_modify(|pulls| {
            pulls.remove(self.image);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_shown_while_it_goes_on() {
        let pulls = watch::Sender::new(Pulls::new());
        let seen = pulls.subscribe();
        let (first, second) = (Shown::new(&pulls, "a:1"), Shown::new(&pulls, "b:1"));
        first.at((Memory::from_mib(1), Memory::from_mib(4)));
        assert_eq!(seen.borrow()["a:1"], (Memory::from_mib(1), Memory::from_mib(4)));
        drop(first);
        assert_eq!(seen.borrow().keys().collect::<Vec<_>>(), ["b:1"]);
        drop(second);
        assert!(seen.borrow().is_empty());
    }
}
