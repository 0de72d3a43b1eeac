//! The local socket: where the operator's commands find a running agent. Only root and the socket's group reach it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Gid;
use rustix::io::Errno;
use tokio::net::UnixListener;

/// What may be done with the file: its owner and its group talk to the agent.
const MODE: u32 = 0o660;

/// The socket, listening; its file goes with it.
pub(super) struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another's by now, or gone, is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at `path`. An agent without it is an agent all the same: what fails is a warning.
pub(super) fn listen(path: &Path, group: Option<&str>) -> Option<(Socket, UnixListener)> {
    match bind(path, group) {
        Ok(listener) => Some((Socket { path: path.to_owned() }, listener)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error,
                "no local socket: status, ps, top, events and drain don't find this agent; set --socket");
            None
        }
    }
}

fn bind(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there")),
        // Left by an agent that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    // Until its mode is set, nobody but the agent's user can write to it, and that is what connecting needs.
    let listener = UnixListener::bind(path)?;
    let shared = match group.map(|name| share(path, name)) {
        Some(Err(Errno::PERM)) => {
            tracing::info!(
                group,
                "only the agent's own user reaches the local socket: it may not give it to that group"
            );
            false
        }
        Some(given) => given?,
        None => false,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(if shared { MODE } else { 0o600 }))?;
    Ok(listener)
}

/// Gives the file to the group of this name; says whether there is one.
fn share(path: &Path, group: &str) -> Result<bool, Errno> {
    let Some(gid) = group_id(&fs::read_to_string("/etc/group").unwrap_or_default(), group) else {
        return Ok(false);
    };
    rustix::fs::chown(path, None, Some(gid)).map(|()| true)
}

/// The number of a group, as `/etc/group` has it.
fn group_id(groups: &str, name: &str) -> Option<Gid> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok().map(Gid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name() {
        let groups = "root:x:0:\nbackendai:x:991:ann,bob\nbackendai-x:x:5:\n";
        assert_eq!(group_id(groups, "backendai").map(Gid::as_raw), Some(991));
        assert_eq!(group_id(groups, "backend"), None);
    }

    #[tokio::test]
    async fn it_is_the_owner_s_and_replaces_one_that_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let (socket, listener) = listen(&path, Some("no-such-group")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(listen(&path, None).is_none(), "somebody listens there");
        drop(listener);
        let (_again, _listener) = listen(&path, None).unwrap();
        drop(socket);
        assert!(!path.exists());
    }
}
