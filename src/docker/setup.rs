//! How the engine is set up, for an operator who wants to know before the first kernel.

use super::{Docker, DockerError};

/// How the engine is set up; what it does not tell is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineSetup {
    /// Its release, `20.10.24`.
    pub version: String,
    /// Where containers' files lie: `overlay2`.
    pub storage: String,
    /// Where containers' output goes: `json-file`.
    pub log_driver: String,
    /// Whether containers outlive the daemon.
    pub live_restore: Option<bool>,
    /// Limits that the engine can't set, in its own words: `memory`, `cores`, `processes`.
    pub missing_limits: Vec<&'static str>,
    /// Where its files are.
    pub data_root: String,
    /// What it warns of itself.
    pub warnings: Vec<String>,
}

impl Docker {
    /// Asks how it is set up.
    pub async fn setup(&self) -> Result<EngineSetup, DockerError> {
        let step = "ask how the engine is set up".to_owned();
        let answer = self
            .connection
            .call(step, self.deadlines.list, |engine| async move { engine.info().await })
            .await?;
        // Engines that don't say can do it.
        let limits =
            [("memory", answer.memory_limit), ("cores", answer.cpu_set), ("processes", answer.pids_limit)];
        Ok(EngineSetup {
            version: answer.server_version.unwrap_or_default(),
            storage: answer.driver.unwrap_or_default(),
            log_driver: answer.logging_driver.unwrap_or_default(),
            live_restore: answer.live_restore_enabled,
            missing_limits: limits
                .into_iter()
                .filter(|(_, can)| *can == Some(false))
                .map(|(name, _)| name)
                .collect(),
            data_root: answer.docker_root_dir.unwrap_or_default(),
            warnings: answer.warnings.unwrap_or_default(),
        })
    }
}
