//! What kernels' containers are kept from, and where that can't be. Pure.
//!
//! The rule for kernels of before: a container is hardened when it is made, so a restart hardens those of the Python agent
//! and of earlier versions, too. It runs the same image over the same files, and what an image can't bear shows at its creates
//! as well, where its label or `--container-hardening off` gives it back. The one thing that lies in the files is who
//! owns them, and a restart keeps that ([`super::account`]).

use crate::docker::{Confinement, EngineInfo, LogLimit};

/// What the entry points of images need to become the account in `LOCAL_USER_ID`: to make it, to give files to it, to become
/// it, and to end what it runs.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"];

/// Output of a container that the engine keeps, in MiB and files: `get_logs` answers with 10 MiB at most, and they are there
/// also when a file has just been begun.
const LOG_FILE_MIB: u32 = 10;
const LOG_FILES: u32 = 2;

/// The drivers that write files which have no limit of their own.
const SIZED_DRIVERS: [&str; 2] = ["json-file", "local"];

/// A machine without memory ends kernels before its own services; kubelet gives pods without limits 1000.
const OOM_SCORE: i64 = 500;

/// Before Linux 4.8 a tracer could change a system call after the filter had let it pass, so that engines refuse ptrace there.
const PTRACE_SINCE: (u32, u32) = (4, 8);
/// Docker's filter lets ptrace pass since 19.03.
const PTRACE_SINCE_API: (usize, usize) = (1, 40);

/// What the engine can do of it; found out once, since only another boot or release changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// Whether the images' ptrace jail works under the engine's filter of system calls.
    is_filtered: bool,
    /// The driver of containers' output, where that has to be limited.
    log_driver: Option<String>,
}

impl Hardening {
    /// Reads off what this engine can do.
    #[must_use]
    pub fn of(engine: &EngineInfo) -> Self {
        let is_new = release(&engine.kernel_version).is_some_and(|release| release >= PTRACE_SINCE);
        let is_sized = SIZED_DRIVERS.contains(&engine.log_driver.as_str());
        Self {
            is_filtered: is_new && engine.api_version >= PTRACE_SINCE_API,
            log_driver: is_sized.then(|| engine.log_driver.clone()),
        }
    }

    /// What kernels can't be kept from on this machine, a line each, for the log and for `check`.
    #[must_use]
    pub fn gaps(engine: &EngineInfo) -> Vec<String> {
        let hardening = Self::of(engine);
        let unfiltered = format!(
            "kernels may make any system call: Linux {} with Docker's API {}.{} would stop the images' ptrace jail (4.8 and 1.40 would not)",
            engine.kernel_version, engine.api_version.0, engine.api_version.1
        );
        let none = "kernels may make any system call: Docker filters none (seccomp)".to_owned();
        let unlimited = format!(
            "what kernels print is kept by Docker's log driver {:?}; see to it that it can't fill the disk",
            engine.log_driver
        );
        let gaps = [
            (!hardening.is_filtered, unfiltered),
            (hardening.is_filtered && !engine.filters_calls, none),
            (hardening.log_driver.is_none() && engine.log_driver != "none", unlimited),
        ];
        gaps.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect()
    }

    /// What a new container is kept from. Not `hardened`, its image gets all that it had before there was any of this; what
    /// is left touches no image.
    #[must_use]
    pub(super) fn confinement(&self, hardened: bool) -> Confinement {
        let log = self.log_driver.as_ref().map(|driver| LogLimit {
            driver: driver.clone(),
            file_mib: LOG_FILE_MIB,
            files: LOG_FILES,
        });
        Confinement {
            unfiltered_calls: !(hardened && self.is_filtered),
            no_new_privileges: hardened,
            capabilities: hardened.then(|| CAPABILITIES.map(str::to_owned).to_vec()),
            // The kernels that don't know cgroup namespaces are those that stop the jail.
            own_namespaces: hardened && self.is_filtered,
            no_cores: true,
            oom_score: Some(OOM_SCORE),
            log,
        }
    }
}

/// The first two numbers of a kernel's release, `6.1.0-13-amd64`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Memory;

    fn engine(kernel: &str, api: (usize, usize), driver: &str) -> EngineInfo {
        EngineInfo {
            cpus: 2,
            memory: Memory::from_mib(1024),
            cgroup_driver: "cgroupfs".into(),
            cgroup_version: 1,
            server_version: "20.10.24".into(),
            data_root: "/var/lib/docker".into(),
            api_version: api,
            kernel_version: kernel.into(),
            log_driver: driver.into(),
            filters_calls: true,
        }
    }

    #[test]
    fn calls_are_filtered_where_the_jail_works_under_the_filter() {
        for (kernel, api, is_filtered) in [
            ("6.1.0-13-amd64", (1, 41), true),
            ("4.8.0", (1, 40), true),
            ("4.4.0-210-generic", (1, 41), false),
            ("3.10.0-1160.el7.x86_64", (1, 41), false),
            ("6.1", (1, 39), false),
            ("10.0", (2, 0), true),
            ("", (1, 41), false),
            ("odd", (1, 41), false),
        ] {
            let engine = engine(kernel, api, "json-file");
            let confinement = Hardening::of(&engine).confinement(true);
            assert_eq!(confinement.unfiltered_calls, !is_filtered, "{kernel}");
            assert!(confinement.no_new_privileges && confinement.capabilities.is_some(), "{kernel}");
            let gaps = Hardening::gaps(&engine);
            assert_eq!(gaps.is_empty(), is_filtered, "{gaps:?}");
        }
    }

    #[test]
    fn what_is_not_hardened_has_what_it_had_and_bounds_all_the_same() {
        let hardening = Hardening::of(&engine("6.1.0", (1, 41), "local"));
        let soft = hardening.confinement(false);
        assert!(soft.unfiltered_calls && !soft.no_new_privileges && !soft.own_namespaces);
        assert_eq!((soft.capabilities, soft.no_cores), (None, true));
        assert_eq!(soft.log, hardening.confinement(true).log);
        assert_eq!(soft.log.unwrap().driver, "local");
    }

    #[test]
    fn a_driver_that_keeps_no_files_is_left_alone_and_told() {
        let journald = engine("6.1.0", (1, 41), "journald");
        assert_eq!(Hardening::of(&journald).confinement(true).log, None);
        assert!(Hardening::gaps(&journald)[0].contains("journald"));
        assert!(Hardening::gaps(&engine("6.1.0", (1, 41), "none")).is_empty());
        let unfiltered = EngineInfo { filters_calls: false, ..engine("6.1.0", (1, 41), "local") };
        assert!(Hardening::gaps(&unfiltered)[0].contains("seccomp"));
    }
}
