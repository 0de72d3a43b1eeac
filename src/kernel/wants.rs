//! When containers were last out of memory: what Docker told, by container.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::ContainerId;

/// Of containers that run. A std mutex, held for a look-up and never over an await.
#[derive(Debug, Default)]
pub struct Wants(Mutex<HashMap<ContainerId, Option<Instant>>>);

impl Wants {
    /// Docker tells of it now.
    pub(super) fn note(&self, container: &ContainerId) {
        self.all().insert(container.clone(), Some(Instant::now()));
    }

    /// Whatever want there was, the container's end is of something else.
    pub(super) fn note_past(&self, container: &ContainerId) {
        self.all().insert(container.clone(), None);
    }

    /// How long ago that was.
    pub(super) fn since(&self, container: &ContainerId) -> Option<Duration> {
        self.all().get(container).map(|at| at.map_or(Duration::MAX, |at| at.elapsed()))
    }

    /// The container is gone.
    pub(super) fn forget(&self, container: &ContainerId) {
        self.all().remove(container);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ContainerId, Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
