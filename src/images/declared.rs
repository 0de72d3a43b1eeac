//! What the images declare, remembered so that a look-up costs no Docker call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::labels::{BadLabel, ImageLabels};

/// What one image declares, or the label that breaks it.
pub(super) type Labelled = Result<Arc<ImageLabels>, BadLabel>;

/// What the images declare, by image id. Ids name contents, so an entry never becomes wrong.
///
/// A std lock: held for a look or an insertion, never over an await.
pub(super) type Declared = Arc<Mutex<HashMap<String, Labelled>>>;

pub(super) fn lock(declared: &Declared) -> MutexGuard<'_, HashMap<String, Labelled>> {
    declared.lock().unwrap_or_else(PoisonError::into_inner)
}
