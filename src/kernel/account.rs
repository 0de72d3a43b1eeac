//! As which user of the machine a kernel's code runs. Pure.
//!
//! Root inside of a container is root of the machine wherever a wall has a hole, so it is `--kernel-uid` unless something
//! that users can write today would be closed to them:
//!
//! - An image without the feature `uid-match` decides by itself.
//! - An agent that isn't root can't give files away, so that its kernels run as itself.
//! - **Virtual folders.** A kernel runs as `--kernel-uid` only if all its folders, and the directories of the folder hosts
//!   above them, belong to that user. Before, kernels wrote as root into whatever was there, and nobody but the operator
//!   knows whose the files in it are: giving a host's directory away (`chown -R`) is how they say that they know.
//! - **A restart** keeps the user to whom the files of the scratch directory belong, as it has the same files.

use std::path::PathBuf;

/// A virtual folder that was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    /// Where it is; all links resolved.
    pub(super) source: PathBuf,
    /// Where it appears in the container.
    pub(super) target: String,
    /// Its folder host.
    pub(super) host: String,
    /// To whom it belongs.
    pub(super) owner: u32,
    /// To whom the directory of its folder host belongs.
    pub(super) host_owner: u32,
}

/// As whom a kernel's code runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// As whomever the image chooses: it isn't told.
    OfImage,
    /// As the user to whom its files belong.
    Uid(u32),
    /// As the agent's own user, though another was wanted.
    Agents(Instead),
}

/// Why a kernel runs as the agent's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instead {
    /// Neither its image nor the operator wants hardening.
    Soft,
    /// The folder host's directory, or the folder in it, belongs to somebody else.
    Folder {
        /// The folder host.
        host: String,
        /// To whom it belongs.
        owner: u32,
    },
}

/// What decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'c> {
    /// `--kernel-uid`.
    pub(super) wanted: u32,
    /// The agent's user.
    pub(super) agent: u32,
    /// Whether the kernel is hardened.
    pub(super) hardened: bool,
    /// Whether its image runs as the user it is told.
    pub(super) matches_uid: bool,
    /// Its virtual folders.
    pub(super) folders: &'c [Folder],
    /// To whom its files belong, at a restart.
    pub(super) files: Option<u32>,
}

impl Account {
    /// Decides.
    pub(super) fn of(given: Circumstances<'_>) -> Self {
        let Circumstances { wanted, agent, hardened, matches_uid, folders, files } = given;
        if !matches_uid {
            return Self::OfImage;
        }
        if agent != 0 || wanted == agent {
            return Self::Uid(agent);
        }
        if !hardened {
            return Self::Agents(Instead::Soft);
        }
        let owners = folders.iter().flat_map(|folder| [(folder, folder.host_owner), (folder, folder.owner)]);
        for (folder, owner) in owners {
            if owner != wanted {
                return Self::Agents(Instead::Folder { host: folder.host.clone(), owner });
            }
        }
        Self::Uid(files.unwrap_or(wanted))
    }

    /// The user whom the image is told, and to whom the scratch directory belongs; `None` where the image chooses.
    pub(super) fn uid(&self, agent: u32) -> Option<u32> {
        match self {
            Self::OfImage => None,
            Self::Uid(uid) => Some(*uid),
            Self::Agents(_) => Some(agent),
        }
    }
}

/// Which of the folder hosts keep kernels from running as `wanted`, and what to do, on one line; `None` where none does.
#[must_use]
pub fn advice(hosts: &[(String, u32)], wanted: u32) -> Option<String> {
    let others: Vec<&str> =
        hosts.iter().filter(|(_, owner)| *owner != wanted).map(|(host, _)| host.as_str()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "kernels with folders of these hosts run as the agent's user: {}; give the hosts to uid {wanted} (chown -R) once the manager writes as that user, too",
            others.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Circumstances<'_> = Circumstances {
        wanted: 9001,
        agent: 0,
        hardened: true,
        matches_uid: true,
        folders: &[],
        files: None,
    };

    fn folder(owner: u32, host_owner: u32) -> Folder {
        let (source, target) = (PathBuf::from("/mnt/local/id"), "/home/work/data".to_owned());
        Folder { source, target, host: "local".into(), owner, host_owner }
    }

    fn uid(given: Circumstances<'_>) -> Option<u32> {
        Account::of(given).uid(given.agent)
    }

    #[test]
    fn a_kernel_without_folders_is_not_root() {
        assert_eq!(uid(USUAL), Some(9001));
        assert_eq!(uid(Circumstances { matches_uid: false, ..USUAL }), None);
        assert_eq!(uid(Circumstances { hardened: false, ..USUAL }), Some(0));
        assert_eq!(uid(Circumstances { wanted: 0, ..USUAL }), Some(0));
    }

    #[test]
    fn an_agent_that_is_not_root_gives_nothing_away() {
        for folders in [&[][..], &[folder(0, 0)], &[folder(9001, 9001)]] {
            assert_eq!(uid(Circumstances { agent: 1000, folders, ..USUAL }), Some(1000));
        }
    }

    #[test]
    fn folders_that_users_can_write_today_stay_writable() {
        let with = |folders: &[Folder]| Account::of(Circumstances { folders, ..USUAL });
        assert_eq!(with(&[folder(9001, 9001)]), Account::Uid(9001));
        for (owner, host_owner, told) in [(0, 0, 0), (9001, 0, 0), (1000, 9001, 1000), (0, 9001, 0)] {
            let expected = Account::Agents(Instead::Folder { host: "local".into(), owner: told });
            assert_eq!(with(&[folder(9001, 9001), folder(owner, host_owner)]), expected);
        }
    }

    #[test]
    fn hosts_of_others_are_named() {
        let hosts = [("local".to_owned(), 0), ("given".to_owned(), 9001), ("nfs".to_owned(), 1000)];
        let advice = super::advice(&hosts, 9001).unwrap();
        assert!(advice.contains("local, nfs;") && !advice.contains("given"), "{advice}");
        assert_eq!(super::advice(&hosts[1..2], 9001), None);
        assert_eq!(super::advice(&[], 9001), None);
    }

    #[test]
    fn a_restart_keeps_the_files_owner_unless_a_folder_needs_more() {
        assert_eq!(uid(Circumstances { files: Some(0), ..USUAL }), Some(0));
        assert_eq!(uid(Circumstances { files: Some(1234), ..USUAL }), Some(1234));
        assert_eq!(uid(Circumstances { files: Some(9001), folders: &[folder(0, 0)], ..USUAL }), Some(0));
    }
}
