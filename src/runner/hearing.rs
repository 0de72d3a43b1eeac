//! What becomes of a message that a runner sent: a record of the run that goes on, or an answer to whoever asked.

use std::fmt::Display;
use std::time::Instant;

use super::shared::Shared;
use crate::patience::Tally;
use crate::wire::record::{BadRecord, Record};
use crate::zmtp::Message;

/// Takes a message in.
pub(super) fn handle(shared: &Shared, message: &Message, skipped: &mut Tally) {
    let record = match Record::decode(&message.frames).map_err(|bad| bad.of_cut(message.cut)) {
        Ok(record) => record,
        Err(bad) => {
            skip(shared, &bad, skipped);
            if let BadRecord::MediaTooLarge(_) = bad {
                shared.runs().note(&format!("[{bad}; it was dropped]"));
            }
            return;
        }
    };
    match &record {
        Record::Completion(found) if shared.completions.answered(found) => return,
        Record::ServiceResult(found) => {
            // Nothing of a run, whoever sent it.
            shared.services.answered(found);
            return;
        }
        _ => {}
    }
    let is_text = matches!(record, Record::Stdout(_) | Record::Stderr(_));
    let wake = {
        let mut runs = shared.runs();
        // There may be a million a second: of these, the first that the disk lacks is all that anybody else needs to know of.
        let is_plain = is_text && runs.doubt().is_none() && runs.has_to_spill();
        let wake = runs.record(record, Instant::now());
        if !is_plain {
            shared.publish(&runs);
        }
        wake
    };
    if wake {
        // Ordinary output wakes nobody: answers go out at a stop, a full buffer, or when time is up.
        shared.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Leaves out what can't be taken in.
pub(super) fn skip(shared: &Shared, reason: &dyn Display, skipped: &mut Tally) {
    // User code can send garbage as fast as it likes.
    if let Some(skipped) = skipped.more() {
        tracing::warn!(kernel = %shared.kernel, %reason, skipped, "skipped what the runner sent");
    }
}
