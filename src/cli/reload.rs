//! SIGHUP: reads the settings anew and changes those that can change under running kernels. Whatever is wrong with them,
//! the agent goes on with those that it has.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Command, Effective};
use crate::agent::config::Changeable;
use crate::telemetry::Telemetry;

/// The keys of the settings that can change while the agent runs.
pub(super) const CHANGEABLE: [&str; 9] = [
    "trusted-peers",
    "idle-timeout",
    "auto-update-images",
    "docker-registry",
    "docker-config",
    "remove-old-images",
    "debug",
    "verbose",
    "log-filter",
];

/// Reads settings anew, each time that it is asked to.
pub(super) struct Reload {
    /// As in effect. Held while they are read, so that two signals don't mix.
    effective: Mutex<Effective>,
    /// To the parts of the agent.
    changes: watch::Sender<Changeable>,
    telemetry: Arc<Telemetry>,
}

impl Reload {
    /// `effective` are the settings that the agent was started with.
    pub(super) fn new(
        effective: Effective,
        changes: watch::Sender<Changeable>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { effective: Mutex::new(effective), changes, telemetry }
    }

    /// Reads the file again, with the flags and the environment that this process was started with. Looks at paths among
    /// the settings: may take its time where a file system hangs.
    pub(super) fn reload(&self) {
        let mut effective = self.effective.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match super::parse(std::env::args_os()) {
            Ok(Command::Run(settings) | Command::Dev(settings)) => settings,
            // Only those commands listen for the signal.
            Ok(_) => return,
            Err(refusal) => {
                let wrong = refusal.to_string().replace("\n  ", " ");
                tracing::error!(
                    wrong,
                    "SIGHUP: the settings stay as they are; correct the new ones and signal again"
                );
                return;
            }
        };
        let differing = effective.differing(&read.effective);
        let (changed, kept): (Vec<&str>, Vec<&str>) =
            differing.into_iter().partition(|key| CHANGEABLE.contains(key));
        if changed.is_empty() && kept.is_empty() {
            tracing::info!("SIGHUP: no setting has changed");
            return;
        }
        if !kept.is_empty() {
            tracing::warn!(
                settings = kept.join(" "),
                "SIGHUP: changed, and in effect after a restart of the agent"
            );
        }
        if !changed.is_empty() {
            // Before the levels change, which may silence it.
            tracing::info!(settings = changed.join(" "), "SIGHUP: changed, and in effect");
            self.telemetry.set_levels(&read.config.telemetry);
            self.changes.send_replace(read.config.changeable);
        }
        let with_changes = effective.with(&read.effective, &CHANGEABLE);
        *effective = with_changes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::inventory;
    use super::*;

    #[test]
    fn what_can_change_are_settings() {
        let settings = inventory::settings();
        for key in CHANGEABLE {
            assert!(settings.iter().any(|setting| setting.key == key), "{key}");
        }
    }
}
