//! What whoever asks for the stop, whoever carries it out and whoever limits its time have in common.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long a stop may take in all that ends the kernels, with what comes before that is known.
pub const WITH_KERNELS: Duration = Duration::from_secs(60);

/// The stop, for whoever wants it and whoever limits its time.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Cancelled when the agent is to stop.
    pub asked: CancellationToken,
    /// Cancelled when it ends the kernels, which a machine that goes down wants without having said so before. It then takes up to
    /// [`WITH_KERNELS`].
    pub ends_kernels: CancellationToken,
}
