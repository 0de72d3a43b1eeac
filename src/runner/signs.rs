//! What can be seen of a kernel's processes from outside, for a runner that says nothing itself.

use std::time::Duration;

use futures_util::future::BoxFuture;

/// Looks at the processes of one kernel.
pub trait Signs: Send + Sync + 'static {
    /// The processor time that they have taken so far; `None` where that can't be told. Takes a second or two at most.
    fn cpu_used(&self) -> BoxFuture<'static, Option<Duration>>;
}
