//! Which outputs the disk holds of a kernel's runs, and which of them nobody needs any more. Pure; `spill` has what each
//! output still lacks there.

use super::spill::{Change, Spilled};
use crate::ids::RunId;

/// An output on the disk: its number, and whose it is.
pub(super) type Place = (u64, RunId);

/// The places of a kernel's outputs on the disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The last number given to an output.
    last_number: u64,
    /// Outputs that the disk still holds and nobody needs.
    gone: Vec<Place>,
    /// The output of the run whose end was answered last. Whether the answer arrives is not known here, so the output
    /// stays until the next run begins: after a kill of the agent the caller may come back for it.
    answered: Option<Place>,
}

impl Kept {
    /// After a life of the agent whose highest number was this.
    pub(super) fn after(last_number: u64) -> Self {
        Self { last_number, ..Self::default() }
    }

    /// The number of a new output.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Nobody needs what is there.
    pub(super) fn forget(&mut self, places: impl IntoIterator<Item = Place>) {
        self.gone.extend(places);
    }

    /// The end of a run is answered; `None` if the disk holds nothing of it.
    pub(super) fn answered(&mut self, place: Option<Place>) {
        self.answered_arrived();
        self.answered = place;
    }

    /// The last answer has arrived: a caller asks for the next run, or the kernel is gone.
    pub(super) fn answered_arrived(&mut self) {
        self.gone.extend(self.answered.take());
    }

    /// Whether something is to be removed.
    pub(super) fn is_due(&self) -> bool {
        !self.gone.is_empty()
    }

    /// What is to be removed; from here on it counts as done.
    pub(super) fn take(&mut self) -> Vec<Spilled> {
        self.gone.drain(..).map(|(number, run)| Spilled { number, run, change: Change::Remove }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        (number, RunId::new("run"))
    }

    fn removed(kept: &mut Kept) -> Vec<u64> {
        kept.take().into_iter().map(|spilled| spilled.number).collect()
    }

    #[test]
    fn the_last_answered_output_stays_until_its_answer_has_arrived() {
        let mut kept = Kept::after(7);
        assert_eq!(kept.next_number(), 8);
        kept.answered(Some(place(8)));
        assert!(!kept.is_due());
        kept.answered(Some(place(9)));
        assert_eq!(removed(&mut kept), [8]);
        kept.answered_arrived();
        kept.forget([place(3)]);
        assert!(kept.is_due());
        assert_eq!(removed(&mut kept), [9, 3]);
        assert!(!kept.is_due());
    }
}
