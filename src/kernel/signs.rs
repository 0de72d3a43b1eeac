//! What the agent sees of a kernel's processes while its runner says nothing: their processor time, from the control group.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::runner::Signs;
use crate::stats::{Collector, Target};

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The processes of one container.
pub(super) struct Processes {
    /// Reads it.
    pub(super) collector: Arc<Collector>,
    /// Of which container.
    pub(super) target: Target,
}

impl Signs for Processes {
    fn cpu_used(&self) -> BoxFuture<'static, Option<Duration>> {
        let (collector, target) = (self.collector.clone(), self.target.clone());
        async move {
            let sample = timeout(LIMIT, collector.collect_one(&target)).await.ok()?.ok()?;
            Duration::try_from_secs_f64(sample.cpu_used_ms / 1000.0).ok()
        }
        .boxed()
    }
}
