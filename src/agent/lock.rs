//! That one agent at a time has a scratch root, and one on a machine has a name in a cluster.
//!
//! Two that share a root or a name take each other's runs and output, and the goodbye of one is the other's. Both locks end
//! with the process, however it ends, and leave nothing to clean up. A lock that the system does not give (a file system
//! without locks) is a warning: only a lock that another has keeps an agent from its work.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::kernel::labels::Owner;

/// The file that is locked, below the agent's own directory; holds the pid of the agent that locked it last.
const FILE: &str = "lock";

/// The longest name of an abstract socket, the zero byte at its beginning included.
const LONGEST_NAME: usize = 107;

/// How long the other agent may take to be called; its process may be stopped.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// Another agent has what this one needs.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The scratch root.
    #[error(
        "another agent ({holder}) works in the scratch root {root}; stop that one, or give this one an --instance-id, an \
         --agent-port and a --scratch-root of its own"
    )]
    Root {
        /// The scratch root.
        root: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The namespace and instance id, with whatever scratch root.
    #[error(
        "another agent ({holder}) of this machine is {owner} (namespace/instance id); stop that one, or give this one an \
         --instance-id of its own"
    )]
    Name {
        /// The name.
        owner: String,
        /// Who has it.
        holder: Holder,
    },
}

/// The process that has a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("of an unknown pid"),
        }
    }
}

/// Locks the scratch root whose `.agent` is `agent_dir`, as long as the file lives. Blocks for a small write.
pub(super) fn root(root: &Path, agent_dir: &Path) -> Result<Option<File>, LockError> {
    let path = agent_dir.join(FILE);
    let writable = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    // The lock is held by a file that is open for reading: a file system that is read-only can be locked, too, and one that is locked
    // can be made read-only.
    let made = writable();
    let open = File::open(&path).map_err(|error| made.err().unwrap_or(error));
    let locked = open.map_err(TryLockError::Error).and_then(|mut file| match file.try_lock() {
        Ok(()) => Ok(Ok(file)),
        Err(TryLockError::WouldBlock) => Ok(Err(pid_in(&mut file))),
        Err(error) => Err(error),
    });
    let file = match locked {
        Ok(Ok(file)) => file,
        Ok(Err(pid)) => return Err(LockError::Root { root: root.to_owned(), holder: Holder(pid) }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "can't lock the scratch root; nothing keeps a second agent out of it");
            return Ok(None);
        }
    };
    // Always of one length, so that it overwrites: a full disk has room for that.
    let pid = format!("{:>10}\n", std::process::id());
    if let Err(error) = writable().and_then(|lock| lock.write_all_at(pid.as_bytes(), 0)) {
        tracing::warn!(path = %path.display(), %error, "could not note the pid of this agent");
    }
    Ok(Some(file))
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Takes the name of `owner` on this machine, as long as the socket lives: an abstract one, which any user may take and the
/// system takes back. Whoever calls it learns the pid.
pub(super) async fn name(owner: &Owner) -> Result<Option<UnixListener>, LockError> {
    let socket = socket_of(&owner.to_string());
    match UnixListener::bind(&socket) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let called = timeout(CALL_LIMIT, UnixStream::connect(&socket)).await;
            let peer = called.ok().and_then(Result::ok).and_then(|stream| stream.peer_cred().ok());
            // A process that can't be seen from here has the pid 0.
            let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| pid.try_into().ok());
            Err(LockError::Name { owner: owner.to_string(), holder: Holder(pid.filter(|pid| *pid > 0)) })
        }
        Err(error) => {
            tracing::warn!(%owner, %error, "can't lock this name; nothing keeps a second agent of this machine from it");
            Ok(None)
        }
    }
}

/// Lets calls of other agents go, so that they don't fill the queue.
pub(super) async fn let_callers_go(listener: &UnixListener) {
    loop {
        if listener.accept().await.is_err() {
            tokio::time::sleep(CALL_LIMIT).await;
        }
    }
}

/// The name of an abstract socket; the zero byte makes it one.
fn socket_of(owner: &str) -> String {
    let whole = format!("\0backendai-agent/{owner}");
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    format!("\0backendai-agent/#{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;

    fn owner(instance: &str) -> Owner {
        let namespace = format!("lock-test-{}", std::process::id());
        Owner { namespace, instance: InstanceId::new(instance.to_owned()) }
    }

    #[test]
    fn a_root_is_one_agent_s_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        // What another agent left that was killed.
        std::fs::write(dir.path().join(FILE), "4294967295\n").unwrap();
        let held = root(Path::new("/r"), dir.path()).unwrap().unwrap();
        let refused = root(Path::new("/r"), dir.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(refused.contains(&format!("(pid {pid}) works in the scratch root /r;")), "{refused}");
        drop(held);
        assert!(root(Path::new("/r"), dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_root_that_can_not_be_locked_keeps_nobody_from_work() {
        assert!(root(Path::new("/r"), Path::new("/proc/self/none")).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_name_is_one_agent_s_until_it_lets_go() {
        for instance in ["i-a".to_owned(), "i".repeat(128)] {
            let owner = owner(&instance);
            let held = name(&owner).await.unwrap().unwrap();
            let refused = name(&owner).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
            drop(held);
            assert!(name(&owner).await.unwrap().is_some());
        }
        let (_a, b) = (name(&owner("i-a")).await.unwrap(), name(&owner("i-b")).await.unwrap());
        assert!(b.is_some());
    }

    #[tokio::test]
    async fn the_pid_is_told_however_often_it_is_asked_for() {
        let owner = owner("i-often");
        let held = name(&owner).await.unwrap().unwrap();
        let serving = tokio::spawn(async move { let_callers_go(&held).await });
        for _ in 0..5000 {
            let LockError::Name { holder, .. } = name(&owner).await.unwrap_err() else { panic!() };
            assert_eq!(holder, Holder(Some(std::process::id())));
        }
        serving.abort();
    }
}
