//! The engine: whether it answers, and how it is set up.

use std::path::Path;

use super::finding::Finding;
use super::scratch::lacks;
use crate::docker::{Docker, EngineAddress, EngineSetup};
use crate::scratch::MinFree;

/// Before it, engines know no cgroups of version 2 and no live-restore worth the name.
const OLDEST: (u32, u32) = (20, 10);

/// What `get_logs` can read.
const READABLE_LOGS: [&str; 3] = ["json-file", "local", "journald"];

/// Copies every image for every container, or is gone from new releases.
const POOR_STORAGE: [&str; 3] = ["vfs", "devicemapper", "aufs"];

pub(super) async fn look(docker: &Docker, address: &EngineAddress, min_free: MinFree) -> Vec<Finding> {
    match docker.setup().await {
        Ok(setup) => {
            let mut found = judge(&setup, &address.to_string());
            // Where the engine is on another machine, its disk is not to be seen.
            if Path::new(&setup.data_root).is_dir() {
                let root = Path::new(&setup.data_root);
                found.push(
                    lacks("Docker's disk", root, min_free)
                        .unwrap_or_else(|| Finding::good("Docker's disk", root.display(), "has room")),
                );
            }
            found
        }
        Err(error) => vec![Finding::bad(
            "Docker",
            address,
            error,
            "systemctl start docker; the agent's user must be root or in the group docker",
        )],
    }
}

/// What is to be said of an engine that is set up like this.
fn judge(setup: &EngineSetup, at: &str) -> Vec<Finding> {
    let EngineSetup { version, storage, log_driver, live_restore, missing_limits, warnings, data_root: _ } =
        setup;
    let mut found = vec![match release(version) {
        Some(release) if release < OLDEST => {
            Finding::doubtful("Docker", at, format!("version {version} is old"), "install 20.10 or newer")
        }
        _ => Finding::good("Docker", at, format!("version {version}")),
    }];
    found.push(if *live_restore == Some(false) {
        Finding::doubtful(
            "live-restore",
            "",
            "off: a restart of dockerd ends every kernel",
            "set \"live-restore\": true in /etc/docker/daemon.json",
        )
    } else {
        Finding::good("live-restore", "", "on: kernels outlive dockerd")
    });
    found.push(if POOR_STORAGE.contains(&storage.as_str()) {
        Finding::doubtful("storage", "", format!("{storage} is slow and large"), "use overlay2")
    } else {
        Finding::good("storage", "", storage)
    });
    found.push(if READABLE_LOGS.contains(&log_driver.as_str()) {
        Finding::good("logs of kernels", "", log_driver)
    } else {
        Finding::doubtful(
            "logs of kernels",
            "",
            format!("go to {log_driver}, where the manager's get_logs can't read them"),
            "set \"log-driver\": \"local\" in /etc/docker/daemon.json",
        )
    });
    if !missing_limits.is_empty() {
        found.push(Finding::bad(
            "limits of kernels",
            "",
            format!("the system gives Docker no limit of {}", missing_limits.join(", ")),
            "boot with these control groups (cgroup_enable=memory, or cgroups of version 2)",
        ));
    }
    found.extend(warnings.iter().map(|text| Finding::doubtful("Docker's own warning", "", text, "")));
    found
}

/// `20.10.24` → (20, 10). Podman and others count in their own ways, which can't be judged.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if major >= 17 => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn good() -> EngineSetup {
        EngineSetup {
            version: "27.1.2".into(),
            storage: "overlay2".into(),
            log_driver: "json-file".into(),
            live_restore: Some(true),
            missing_limits: vec![],
            warnings: vec![],
            data_root: String::new(),
        }
    }

    /// What is not good, and how bad.
    fn doubts(setup: &EngineSetup) -> Vec<(&'static str, Verdict)> {
        let found = judge(setup, "unix:///x");
        found.iter().filter(|f| f.verdict != Verdict::Good).map(|f| (f.what, f.verdict)).collect()
    }

    #[test]
    fn a_good_engine_raises_no_doubt() {
        assert_eq!(doubts(&good()), []);
        assert_eq!(doubts(&EngineSetup { version: "5.4.2".into(), ..good() }), [], "Podman's own count");
    }

    #[test]
    fn each_thing_that_is_wrong_is_told() {
        let doubtful = |setup: EngineSetup, what| assert_eq!(doubts(&setup), [(what, Verdict::Doubtful)]);
        doubtful(EngineSetup { version: "19.03.1".into(), ..good() }, "Docker");
        doubtful(EngineSetup { live_restore: Some(false), ..good() }, "live-restore");
        doubtful(EngineSetup { storage: "vfs".into(), ..good() }, "storage");
        doubtful(EngineSetup { log_driver: "syslog".into(), ..good() }, "logs of kernels");
        doubtful(EngineSetup { warnings: vec!["No swap limit".into()], ..good() }, "Docker's own warning");
        let without = EngineSetup { missing_limits: vec!["memory"], ..good() };
        assert_eq!(doubts(&without), [("limits of kernels", Verdict::Bad)]);
    }
}
