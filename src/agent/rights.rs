//! What an agent can't do that isn't root, said once at the start.

/// One line, unless it is root.
pub(super) fn advise() {
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        tracing::warn!(
            uid = uid.as_raw(),
            "this agent is not root: its kernels run as its own user; what programs that are root in their containers leave in scratch directories can't be removed; nothing of the host's firewall or quotas can be set"
        );
    }
}
