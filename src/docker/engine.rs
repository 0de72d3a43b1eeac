//! Questions about the engine itself.

use super::{Docker, DockerError, names};
use crate::units::Memory;

/// What the engine's machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Cores that Docker may use; 0 if it does not say.
    pub cpus: u32,
    /// The machine's memory.
    pub memory: Memory,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// 1 or 2. Engines before 20.10 do not say and know only 1.
    pub cgroup_version: u8,
    /// The engine's release, `20.10.24`.
    pub server_version: String,
}

impl Docker {
    /// Whether it answers: asks for its version, which costs the engine least.
    pub async fn ping(&self) -> Result<(), DockerError> {
        let step = "ask for the engine's version".to_owned();
        self.connection
            .call(step, self.deadlines.quick, |engine| async move { engine.version().await.map(drop) })
            .await
    }

    /// Asks what the engine's machine has.
    pub async fn info(&self) -> Result<EngineInfo, DockerError> {
        let step = "ask for the engine's machine".to_owned();
        // The engine counts its containers for this answer, so it takes as long as a list.
        let answer = self
            .connection
            .call(step, self.deadlines.list, |engine| async move { engine.info().await })
            .await?;
        let is_v2 = answer.cgroup_version.is_some_and(|version| version.to_string() == "2");
        Ok(EngineInfo {
            cpus: answer.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
            memory: Memory::from_bytes(
                answer.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
            ),
            cgroup_driver: answer.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            cgroup_version: if is_v2 { 2 } else { 1 },
            server_version: answer.server_version.unwrap_or_default(),
        })
    }

    /// Whether there is a volume of that name.
    pub async fn volume_exists(&self, name: &str) -> Result<bool, DockerError> {
        let step = format!("look for volume {name}");
        let step = names::checked_name(step, name)?;
        let found = self
            .connection
            .call(step, self.deadlines.quick, |engine| async move {
                missing_is_none(engine.inspect_volume(name).await)
            })
            .await?;
        Ok(found.is_some())
    }

    /// Whether containers on the engine's own network reach each other, as they do unless `icc` is off.
    pub async fn containers_reach_each_other(&self) -> Result<bool, DockerError> {
        let step = "look at the network of containers".to_owned();
        let found = self
            .connection
            .call(step, self.deadlines.quick, |engine| async move {
                missing_is_none(engine.inspect_network("bridge", None).await)
            })
            .await?;
        let options = found.and_then(|network| network.options).unwrap_or_default();
        Ok(options.get("com.docker.network.bridge.enable_icc").is_some_and(|value| value == "true"))
    }
}

/// Turns the engine's "not found" into `None`.
pub(super) fn missing_is_none<T>(
    answer: Result<T, bollard::errors::Error>,
) -> Result<Option<T>, bollard::errors::Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
