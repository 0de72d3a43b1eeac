//! What keeps a container to itself, and the part of the engine's request that says so. Pure.

use std::collections::HashMap;

use bollard::models::{HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits};

/// What keeps a container to itself. The default leaves everything to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // each a wall of its own
pub struct Confinement {
    /// Whether no system call is filtered; else the engine's own filter holds.
    pub unfiltered_calls: bool,
    /// Whether set-user-id programs and file capabilities give nothing to who runs them.
    pub no_new_privileges: bool,
    /// The only capabilities (`CHOWN`) that its processes can ever have; `None` for the engine's dozen.
    pub capabilities: Option<Vec<String>>,
    /// Whether nobody joins its shared memory, and it sees no path of the host's cgroups.
    pub own_namespaces: bool,
    /// Whether a program that crashes there leaves no core: where one goes is the host's setting, often a directory of the
    /// host.
    pub no_cores: bool,
    /// How willingly the kernel ends its processes when the machine has no memory left, from -1000 to 1000.
    pub oom_score: Option<i64>,
    /// How much of its output the engine keeps.
    pub log: Option<LogLimit>,
}

/// How much of a container's output the engine keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLimit {
    /// The driver, one that knows sizes: `json-file` or `local`.
    pub driver: String,
    /// The size of each file in MiB.
    pub file_mib: u32,
    /// How many files there are, the one that is written included.
    pub files: u32,
}

impl Confinement {
    /// Writes it into the request.
    pub(super) fn apply(&self, host: &mut HostConfig) {
        let options =
            [(self.unfiltered_calls, "seccomp=unconfined"), (self.no_new_privileges, "no-new-privileges")];
        let options: Vec<String> =
            options.iter().filter(|(is, _)| *is).map(|(_, option)| (*option).to_owned()).collect();
        host.security_opt = (!options.is_empty()).then_some(options);
        if let Some(only) = &self.capabilities {
            host.cap_drop = Some(vec!["ALL".to_owned()]);
            host.cap_add = Some(only.clone());
        }
        if self.own_namespaces {
            host.ipc_mode = Some("private".to_owned());
            host.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::PRIVATE);
        }
        if self.no_cores {
            let none = ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) };
            host.ulimits = Some(vec![none]);
        }
        host.oom_score_adj = self.oom_score;
        host.log_config = self.log.as_ref().map(log_config);
    }
}

fn log_config(limit: &LogLimit) -> HostConfigLogConfig {
    let options = [("max-size", format!("{}m", limit.file_mib)), ("max-file", limit.files.to_string())];
    let options: HashMap<_, _> = options.map(|(name, value)| (name.to_owned(), value)).into();
    HostConfigLogConfig { typ: Some(limit.driver.clone()), config: Some(options) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(confinement: &Confinement) -> Value {
        let mut host = HostConfig::default();
        confinement.apply(&mut host);
        serde_json::to_value(host).unwrap()
    }

    #[test]
    fn all_of_it_is_asked_for() {
        let confinement = Confinement {
            unfiltered_calls: false,
            no_new_privileges: true,
            capabilities: Some(vec!["CHOWN".into()]),
            own_namespaces: true,
            no_cores: true,
            oom_score: Some(500),
            log: Some(LogLimit { driver: "local".into(), file_mib: 10, files: 2 }),
        };
        let expected = json!({
            "SecurityOpt": ["no-new-privileges"], "CapDrop": ["ALL"], "CapAdd": ["CHOWN"],
            "IpcMode": "private", "CgroupnsMode": "private", "OomScoreAdj": 500,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "2"}},
        });
        assert_eq!(request(&confinement), expected);
    }

    #[test]
    fn nothing_asked_for_is_the_engine_s_default() {
        assert_eq!(request(&Confinement::default()), json!({}));
        let unfiltered = Confinement { unfiltered_calls: true, ..Confinement::default() };
        assert_eq!(request(&unfiltered), json!({"SecurityOpt": ["seccomp=unconfined"]}));
    }
}
