//! What the bytes of any note must not do, for the fuzzer and for `tests/decoders.rs`.
#![allow(clippy::missing_panics_doc, reason = "a panic is what this is for")]

use bytes::Bytes;

use super::entries::{Ended, Ending, KernelNote, RunNote};
use super::{files, outputs};

/// Whose notes these are, and of which kernel.
const OWNER: &str = "local/i-1";
const KERNEL: &str = "77075ef2-25b5-4f8f-88d5-ea282890faee";

/// A note, taken for each kind of them. It may have been cut, or be another program's: no reason not to start.
pub fn notes(bytes: &[u8]) {
    if let Ok(Some((_, note))) = files::understood::<KernelNote>(bytes, KERNEL, OWNER) {
        let _ = (note.going_by_earlier_versions(), note.is_restarting());
    }
    if let Ok(Some((_, note))) = files::understood::<RunNote>(bytes, KERNEL, OWNER) {
        let _ = note.going();
    }
    if let Ok(Some((kernel, ending))) = files::understood::<Ending>(bytes, KERNEL, OWNER) {
        let again = Ended::found(&ending).entry(kernel);
        assert_eq!(again.reason(), ending.reason(), "an end has another reason after a start");
        assert_eq!(again.told_at, ending.told_at, "an end was told or was not");
    }
    let _ = files::samples(bytes);
    if let Some(left) = outputs::parse(1, Bytes::copy_from_slice(bytes)) {
        let _ = crate::runner::output::Output::restored(left.records);
    }
}
