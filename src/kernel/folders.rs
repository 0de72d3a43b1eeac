//! The virtual folders of a kernel, looked up on the host without getting stuck there.
//!
//! Folders may lie on a network file system that does not answer. A look-up then never ends, and neither does its
//! thread, so no folder host gets more than a few of them: everything else needs threads too.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::account::Folder;
use super::error::KernelError;
use crate::scratch::{self, MountSource};
use crate::wire::config::Mount;

/// Look-ups of one folder host at a time.
const AT_ONCE: usize = 4;
/// How long a create waits for its folders; the manager waits 3 s for all of it.
const LIMIT: Duration = Duration::from_secs(2);

/// Where folders are on this machine.
#[derive(Debug, Clone)]
pub(super) struct FolderRoot {
    /// Holds the directories of folder hosts.
    pub(super) mount: PathBuf,
    /// Between a folder host's directory and its folders.
    pub(super) prefix: PathBuf,
}

impl FolderRoot {
    /// The folder host and the id of a folder that lies there; of one that lies elsewhere, the last two parts of its path.
    pub(super) fn host_and_id(&self, folder: &Path) -> Option<(String, String)> {
        let text = |part: Option<&OsStr>| Some(part?.to_str()?.to_owned());
        let above = folder.parent()?;
        let host = above.strip_prefix(&self.mount).ok().and_then(|below| {
            let (host, prefix) = (below.iter().next()?, below.iter().skip(1));
            prefix.eq(self.prefix.iter()).then_some(host)
        });
        Some((text(host.or(above.file_name()))?, text(folder.file_name())?))
    }
}

/// Look-ups that go on, by folder host.
#[derive(Default)]
pub struct FolderChecks {
    /// Std mutex: held for a look-up, never over an await.
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl FolderChecks {
    /// The folders on this machine; all must exist there.
    pub(super) async fn look_up(
        &self,
        root: FolderRoot,
        mounts: &[Mount],
    ) -> Result<Vec<Folder>, KernelError> {
        let mut found = Vec::with_capacity(mounts.len());
        for mount in mounts {
            found.push(self.look_up_one(root.clone(), mount).await?);
        }
        Ok(found)
    }

    async fn look_up_one(&self, root: FolderRoot, mount: &Mount) -> Result<Folder, KernelError> {
        let stuck = || KernelError::FolderHost { host: mount.host.clone(), limit: LIMIT };
        let target = scratch::mount_target(&mount.name)?;
        let places = self.places(&mount.host);
        let wanted = mount.clone();
        let work = async {
            let place = places.acquire_owned().await.map_err(|_| KernelError::Thread("wait for a folder"))?;
            let looking = tokio::task::spawn_blocking(move || {
                let found = scratch::mount_source(&root.mount, &root.prefix, &wanted.host, &wanted.id);
                // Only now: a look-up that hangs keeps its place.
                drop(place);
                found
            });
            Ok::<_, KernelError>(
                looking.await.map_err(|_| KernelError::Thread("check the virtual folders"))??,
            )
        };
        let found = timeout(LIMIT, work).await.map_err(|_| stuck())??;
        let MountSource { path: source, owner, host_owner } = found;
        Ok(Folder { source, target, host: mount.host.clone(), owner, host_owner })
    }

    fn places(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        // Names come from requests; those that nobody waits for are not kept.
        hosts.retain(|_, places| places.available_permits() < AT_ONCE);
        hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(host: &str) -> Mount {
        Mount { name: "data".to_owned(), host: host.to_owned(), id: "id".to_owned() }
    }

    fn at(mount: &std::path::Path) -> FolderRoot {
        FolderRoot { mount: mount.to_owned(), prefix: PathBuf::new() }
    }

    #[test]
    fn a_folder_s_path_says_its_host_and_its_id() {
        let root = |prefix: &str| FolderRoot { mount: "/mnt".into(), prefix: prefix.into() };
        let check = |prefix: &str, folder: &str, host: &str, id: &str| {
            let found = root(prefix).host_and_id(Path::new(folder));
            assert_eq!(found, Some((host.to_owned(), id.to_owned())), "{folder}");
        };
        check("", "/mnt/local/0a1b", "local", "0a1b");
        check("vf/root", "/mnt/local/vf/root/0a1b", "local", "0a1b");
        // Mounted before the cluster's settings were these.
        check("vf", "/mnt/local/0a1b", "local", "0a1b");
        check("", "/old/local/0a1b", "local", "0a1b");
        assert_eq!(root("").host_and_id(Path::new("/")), None);
    }

    #[tokio::test]
    async fn a_host_whose_look_ups_hang_is_refused_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("good/id")).unwrap();
        let checks = FolderChecks::default();
        let _stuck = checks.places("bad").acquire_many_owned(4).await.unwrap();
        let refused = checks.look_up(at(root.path()), &[mount("bad")]).await.unwrap_err();
        assert!(refused.to_string().contains("bad"), "{refused}");
        for _ in 0..20 {
            let found = checks.look_up(at(root.path()), &[mount("good")]).await.unwrap();
            assert_eq!(found[0].target, scratch::mount_target("data").unwrap());
        }
        assert!(checks.hosts.lock().unwrap().len() <= 2);
    }
}
