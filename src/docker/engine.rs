//! Questions about the engine itself.

use super::spec::{CDI_KIND, GpuAccess};
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
    /// Where its images and containers are on its own machine; empty if it does not say.
    pub data_root: String,
    /// The API version that it and this agent speak, major and minor.
    pub api_version: (usize, usize),
    /// The release of the Linux kernel that containers run on, `6.1.0-13-amd64`.
    pub kernel_version: String,
    /// Where the output of containers goes unless they ask for something else, `json-file`.
    pub log_driver: String,
    /// Whether it filters the system calls of containers.
    pub filters_calls: bool,
}

impl Docker {
    /// Whether it answers. Costs the engine next to nothing; for its version it starts two processes.
    pub async fn ping(&self) -> Result<(), DockerError> {
        let step = "ask whether the engine answers".to_owned();
        self.connection
            .call(step, self.deadlines.quick, |engine| async move { engine.ping().await.map(drop) })
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
        let security = answer.security_options.unwrap_or_default();
        let has = |name: &str| security.iter().any(|option| option.split(',').any(|part| part == name));
        let is_v2 = answer.cgroup_version.is_some_and(|version| version.to_string() == "2");
        Ok(EngineInfo {
            cpus: answer.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
            memory: Memory::from_bytes(
                answer.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
            ),
            cgroup_driver: answer.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            cgroup_version: if is_v2 { 2 } else { 1 },
            server_version: answer.server_version.unwrap_or_default(),
            data_root: answer.docker_root_dir.unwrap_or_default(),
            api_version: self.connection.api_version().unwrap_or_default(),
            kernel_version: answer.kernel_version.unwrap_or_default(),
            log_driver: answer.logging_driver.unwrap_or_default(),
            filters_calls: has("name=seccomp") && !has("profile=unconfined"),
        })
    }

    /// How it gives GPUs to containers.
    pub(super) async fn gpu_access(&self) -> Result<GpuAccess, DockerError> {
        let step = "ask how the engine gives out GPUs".to_owned();
        let answer = self
            .connection
            .call(step, self.deadlines.list, |engine| async move { engine.info().await })
            .await?;
        let described = cdi_devices(&answer).await;
        if described.is_empty() {
            let has_runtime = answer.runtimes.is_some_and(|runtimes| runtimes.contains_key("nvidia"));
            return Ok(GpuAccess::Nvidia { has_runtime });
        }
        Ok(GpuAccess::Cdi(described))
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
}

/// The GPUs that CDI describes to the engine. Engines tell which since API 1.50; before, they tell the directories of
/// the descriptions, if they read them at all, and the agent looks there.
async fn cdi_devices(info: &bollard::models::SystemInfo) -> Vec<String> {
    let discovered =
        info.discovered_devices.iter().flatten().filter(|device| device.source.as_deref() == Some("cdi"));
    let ids: Vec<String> = discovered.filter_map(|device| device.id.clone()).collect();
    if info.discovered_devices.is_some() {
        return ids;
    }
    let directories = info.cdi_spec_dirs.clone().unwrap_or_default();
    tokio::task::spawn_blocking(move || cdi_specs(&directories)).await.unwrap_or_default()
}

/// The devices in the descriptions, which are YAML or JSON; what names a GPU looks the same in both.
fn cdi_specs(directories: &[String]) -> Vec<String> {
    let files = directories.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.filter(|text| text.contains("nvidia.com/gpu")).flat_map(|text| gpus_named(&text)).collect()
}

fn gpus_named(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("GPU-")).map(|word| format!("{CDI_KIND}{word}")).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cdi_is_there_if_the_engine_says_so_or_reads_a_description() {
        let info = |json: serde_json::Value| serde_json::from_value(json).unwrap();
        let told = serde_json::json!({"CDISpecDirs": ["/nowhere"], "DiscoveredDevices": [
            {"Source": "cdi", "ID": "nvidia.com/gpu=GPU-a"}, {"Source": "other", "ID": "x"}]});
        assert_eq!(cdi_devices(&info(told)).await, ["nvidia.com/gpu=GPU-a"]);
        assert!(cdi_devices(&info(serde_json::json!({}))).await.is_empty());

        let dir = tempfile::tempdir().unwrap();
        let spec = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n- name: GPU-12ab-34\n";
        std::fs::write(dir.path().join("nvidia.yaml"), spec).unwrap();
        std::fs::write(dir.path().join("other.json"), "{\"kind\": \"vendor.com/net\", \"name\": \"GPU-x\"}")
            .unwrap();
        let read = serde_json::json!({"CDISpecDirs": ["/nowhere", dir.path()]});
        assert_eq!(cdi_devices(&info(read.clone())).await, ["nvidia.com/gpu=GPU-12ab-34"]);
        // An engine that knows of no device there reads none.
        let mut none = read;
        none["DiscoveredDevices"] = serde_json::json!([]);
        assert!(cdi_devices(&info(none)).await.is_empty());
    }
}
