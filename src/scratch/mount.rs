//! Where a virtual folder lies on the host and in the container (PROTOCOL section 12, item 15).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::path::is_component;

/// Why a virtual folder can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A part of the request is no plain name.
    #[error(
        "the {part} {given:?} of a virtual folder must be one plain name, without '/', ':' or control characters"
    )]
    BadName {
        /// `host`, `id` or `name`.
        part: &'static str,
        /// As given.
        given: String,
    },
    /// The folder's host is not mounted here.
    #[error(
        "the folder host {host:?} is not at {path}: {source}; mount it there or correct volumes/_mount in etcd"
    )]
    HostMissing {
        /// As given.
        host: String,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder is not there.
    #[error("the virtual folder {id:?} is not at {path}: {source}")]
    Missing {
        /// As given.
        id: String,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is something else of that name.
    #[error("the virtual folder {id:?} at {path} is not a directory")]
    NotDirectory {
        /// As given.
        id: String,
        /// Where it is.
        path: PathBuf,
    },
    /// Links lead out of the folder host.
    #[error("the virtual folder {id:?} leads out of its host directory {host}")]
    Escape {
        /// As given.
        id: String,
        /// The host's directory.
        host: PathBuf,
    },
}

/// A virtual folder's place on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSource {
    /// The directory; all links resolved.
    pub path: PathBuf,
    /// The user to whom it belongs.
    pub owner: u32,
    /// The user to whom the directory of its folder host belongs.
    pub host_owner: u32,
}

/// The directory `{volumes_mount}/{host}/{prefix}/{id}`, which must exist, with all links resolved: what was checked is
/// what Docker will bind. The administrator may make `{volumes_mount}/{host}` itself a link.
///
/// Blocks, for as long as a network file system likes: call it off the runtime and with a time limit.
pub fn mount_source(
    volumes_mount: &Path,
    prefix: &Path,
    folder_host: &str,
    folder_id: &str,
) -> Result<MountSource, MountError> {
    let host_path = volumes_mount.join(plain("host", folder_host)?);
    let path = host_path.join(prefix).join(plain("id", folder_id)?);
    let no_host =
        |source| MountError::HostMissing { host: folder_host.to_owned(), path: host_path.clone(), source };
    let host = host_path.canonicalize().map_err(no_host)?;
    let host_owner = host.metadata().map_err(no_host)?.uid();
    let id = || folder_id.to_owned();
    let missing = |source| MountError::Missing { id: id(), path: path.clone(), source };
    let found = path.canonicalize().map_err(missing)?;
    if found == host || !found.starts_with(&host) {
        return Err(MountError::Escape { id: id(), host });
    }
    let metadata = found.metadata().map_err(missing)?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory { id: id(), path });
    }
    Ok(MountSource { path: found, owner: metadata.uid(), host_owner })
}

/// The folder hosts below `volumes_mount`, in order, each with the user to whom its directory belongs. Blocks like
/// [`mount_source`].
pub fn folder_hosts(volumes_mount: &Path) -> io::Result<Vec<(String, u32)>> {
    let mut hosts = Vec::new();
    for entry in volumes_mount.read_dir()? {
        let entry = entry?;
        // As `mount_source` sees it: the administrator may make it a link.
        if let Ok(found) = entry.path().metadata()
            && found.is_dir()
        {
            hosts.push((entry.file_name().to_string_lossy().into_owned(), found.uid()));
        }
    }
    hosts.sort();
    Ok(hosts)
}

/// Where the folder appears in the container: `/home/work/{name}`. Names with a leading dot are the agent's and the
/// runner's (`.config`, `.output`).
pub fn mount_target(folder_name: &str) -> Result<String, MountError> {
    if folder_name.starts_with('.') {
        return Err(MountError::BadName { part: "name", given: shortened(folder_name) });
    }
    Ok(format!("/home/work/{}", plain("name", folder_name)?))
}

/// Docker writes a bind as `source:target:mode`, so a colon would change its meaning.
fn plain<'a>(part: &'static str, given: &'a str) -> Result<&'a str, MountError> {
    if is_component(given) && !given.contains(|c: char| c == ':' || c.is_control()) {
        Ok(given)
    } else {
        Err(MountError::BadName { part, given: shortened(given) })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_folder_that_exists_is_found() {
        let mnt = tempfile::tempdir().unwrap();
        fs::create_dir_all(mnt.path().join("local/0123abcd")).unwrap();
        let found = mount_source(mnt.path(), Path::new(""), "local", "0123abcd").unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!((found.owner, found.host_owner), (me, me));
        assert_eq!(found.path, mnt.path().canonicalize().unwrap().join("local/0123abcd"));
        assert_eq!(mount_target("my data").unwrap(), "/home/work/my data");
    }

    #[test]
    fn a_cluster_may_have_its_folders_below_a_prefix() {
        let mnt = tempfile::tempdir().unwrap();
        fs::create_dir_all(mnt.path().join("local/vf/root/0123abcd")).unwrap();
        let found = mount_source(mnt.path(), Path::new("vf/root"), "local", "0123abcd").unwrap();
        assert!(found.path.ends_with("local/vf/root/0123abcd"));
        let out = mount_source(mnt.path(), Path::new("../.."), "local", "tmp").unwrap_err();
        assert!(matches!(out, MountError::Escape { .. } | MountError::Missing { .. }), "{out}");
    }

    #[test]
    fn hosts_are_listed_with_their_owners() {
        let mnt = tempfile::tempdir().unwrap();
        for host in ["nfs", "local"] {
            fs::create_dir(mnt.path().join(host)).unwrap();
        }
        symlink("local", mnt.path().join("linked")).unwrap();
        symlink("none", mnt.path().join("dangling")).unwrap();
        fs::write(mnt.path().join("file"), "").unwrap();
        let me = rustix::process::geteuid().as_raw();
        let expected = ["linked", "local", "nfs"].map(|host| (host.to_owned(), me));
        assert_eq!(folder_hosts(mnt.path()).unwrap(), expected);
        assert!(folder_hosts(&mnt.path().join("none")).is_err());
    }

    #[test]
    fn missing_folders_and_hosts_are_errors_and_are_not_made() {
        let mnt = tempfile::tempdir().unwrap();
        let error = mount_source(mnt.path(), Path::new(""), "nfs", "id").unwrap_err();
        assert!(matches!(error, MountError::HostMissing { .. }), "{error}");
        fs::create_dir(mnt.path().join("nfs")).unwrap();
        let error = mount_source(mnt.path(), Path::new(""), "nfs", "id").unwrap_err();
        assert!(matches!(error, MountError::Missing { .. }), "{error}");
        fs::write(mnt.path().join("nfs/id"), "").unwrap();
        let error = mount_source(mnt.path(), Path::new(""), "nfs", "id").unwrap_err();
        assert!(matches!(error, MountError::NotDirectory { .. }), "{error}");
    }

    #[test]
    fn links_may_not_lead_out_of_the_host() {
        let mnt = tempfile::tempdir().unwrap();
        fs::create_dir_all(mnt.path().join("local/real")).unwrap();
        fs::create_dir_all(mnt.path().join("local2/other")).unwrap();
        for (name, target) in [("etc", "/etc"), ("up", ".."), ("self", "."), ("near", "../local2/other")] {
            symlink(target, mnt.path().join("local").join(name)).unwrap();
            let error = mount_source(mnt.path(), Path::new(""), "local", name).unwrap_err();
            assert!(matches!(error, MountError::Escape { .. }), "{name}: {error}");
        }
        symlink("real", mnt.path().join("local/alias")).unwrap();
        assert!(
            mount_source(mnt.path(), Path::new(""), "local", "alias").unwrap().path.ends_with("local/real")
        );
        symlink("local", mnt.path().join("linked-host")).unwrap();
        assert!(mount_source(mnt.path(), Path::new(""), "linked-host", "real").is_ok());
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        let mnt = tempfile::tempdir().unwrap();
        fs::create_dir_all(mnt.path().join("local/id")).unwrap();
        for bad in ["", ".", "..", "/", "a/b", "../local", "id\0", "id:ro", "a\nb"] {
            let refused =
                |result: Result<MountSource, MountError>| matches!(result, Err(MountError::BadName { .. }));
            assert!(refused(mount_source(mnt.path(), Path::new(""), bad, "id")), "host {bad:?}");
            assert!(refused(mount_source(mnt.path(), Path::new(""), "local", bad)), "id {bad:?}");
            assert!(mount_target(bad).is_err(), "name {bad:?}");
        }
        assert!(mount_target(".config").is_err());
    }

    proptest! {
        #[test]
        fn a_target_is_a_direct_child_of_the_home(name in "[a-z./:\\x00\\n -]{0,8}") {
            if let Ok(target) = mount_target(&name) {
                prop_assert_eq!(Path::new(&target).parent(), Some(Path::new("/home/work")));
                prop_assert!(!target.contains(':'));
            }
        }
    }
}
