//! The scratch root: whose it is, who may write there, what is left of it, and what it lies on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::super::paths;
use super::finding::Finding;
use crate::scratch::{MinFree, Mount, Quota, space_of, unlimited};

/// A network file system may hang.
const LIMIT: Duration = Duration::from_secs(5);

/// Below this part, in percent, somebody should look; below the second, no kernel will get far.
const LITTLE: u64 = 10;
const NOTHING: u64 = 1;

/// The files of sessions would not be there after a boot, or are slow and not safe from other machines.
const POOR_FILE_SYSTEMS: [(&str, &str); 7] = [
    ("tmpfs", "takes memory, and is empty after a boot"),
    ("ramfs", "takes memory, and is empty after a boot"),
    ("nfs", "hangs when its server does"),
    ("nfs4", "hangs when its server does"),
    ("cifs", "knows no owners"),
    ("vfat", "knows no owners"),
    ("fuse.sshfs", "hangs when its server does"),
];

pub(super) async fn look(root: &Path, min_free: MinFree, quota: Option<Quota>) -> Vec<Finding> {
    let at = root.display().to_string();
    let root = root.to_owned();
    let looked = tokio::task::spawn_blocking(move || look_at(&root, min_free, quota));
    match tokio::time::timeout(LIMIT, looked).await {
        Ok(Ok(found)) => found,
        _ => vec![Finding::bad("scratch root", at, "its file system does not answer", "use a local disk")],
    }
}

fn look_at(root: &Path, min_free: MinFree, quota: Option<Quota>) -> Vec<Finding> {
    let at = root.display();
    if let Some(trouble) = paths::refuses_files(root) {
        let remedy =
            format!("mkdir -p {at}; chown root {at}; chmod 700 {at}; or give another --scratch-root");
        return vec![Finding::bad("scratch root", at, trouble, remedy)];
    }
    let mut found = vec![owner(root)];
    found.extend(lacks("scratch space", root, min_free));
    match statvfs(root) {
        Ok(figures) => found.extend([space(root, &figures), inodes(root, &figures), options(root, &figures)]),
        Err(error) => found.push(Finding::doubtful("scratch space", at, error, "")),
    }
    found.push(file_system(root));
    found.extend(quota.map(|quota| limit(root, quota)));
    found
}

/// What would keep the agent from offering slots: less than `--min-free` is left there.
pub(super) fn lacks(what: &'static str, path: &Path, min_free: MinFree) -> Option<Finding> {
    let lacks = space_of(path).ok().and_then(|space| min_free.lacks(space, false, path))?;
    Some(Finding::bad(what, path.display(), lacks, "make room there: without, no slots are offered"))
}

fn owner(root: &Path) -> Finding {
    let at = root.display();
    let metadata = match root.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Finding::bad("scratch root", at, error, ""),
    };
    let own = rustix::process::geteuid().as_raw();
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != own && own != 0 {
        let found = format!("belongs to user {}, the agent is user {own}", metadata.uid());
        return Finding::doubtful("scratch root", &at, found, format!("chown {own} {at}"));
    }
    if mode & 0o022 != 0 {
        let found = format!("others may write there (mode {mode:o})");
        return Finding::doubtful("scratch root", &at, found, format!("chmod 700 {at}"));
    }
    Finding::good("scratch root", at, format!("usable (mode {mode:o})"))
}

fn space(root: &Path, figures: &StatVfs) -> Finding {
    let (left, all) = (figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize);
    let text = format!("{} of {} MiB are free", left >> 20, all >> 20);
    judged("scratch space", root, percent(left, all), text, "remove files, or use a larger disk")
}

fn inodes(root: &Path, figures: &StatVfs) -> Finding {
    // Some file systems don't count them.
    if figures.f_files == 0 {
        return Finding::good("scratch inodes", root.display(), "without a limit");
    }
    let text = format!("{} of {} are free", figures.f_favail, figures.f_files);
    judged(
        "scratch inodes",
        root,
        percent(figures.f_favail, figures.f_files),
        text,
        "remove files, or make the file system with more inodes",
    )
}

fn judged(what: &'static str, root: &Path, left: u64, text: String, remedy: &str) -> Finding {
    match left {
        ..NOTHING => Finding::bad(what, root.display(), text, remedy),
        NOTHING..LITTLE => Finding::doubtful(what, root.display(), text, remedy),
        LITTLE.. => Finding::good(what, root.display(), text),
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

fn options(root: &Path, figures: &StatVfs) -> Finding {
    let flags = figures.f_flag;
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        return Finding::doubtful(
            "scratch mount",
            root.display(),
            "noexec: what users compile can't be run",
            "mount it without noexec",
        );
    }
    if !flags.contains(StatVfsMountFlags::NOSUID) {
        return Finding::doubtful(
            "scratch mount",
            root.display(),
            "without nosuid: a program that a user makes there may become another user's on this machine",
            "mount a disk of its own there, with nosuid,nodev",
        );
    }
    Finding::good("scratch mount", root.display(), "nosuid")
}

/// Whether kernels will have the limit that the operator wants.
fn limit(root: &Path, quota: Quota) -> Finding {
    let (what, at) = ("scratch quota", root.display());
    let path = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if let Some(why) = unlimited(&path) {
        let why = why.to_string();
        let (found, remedy) = why.split_once("; ").unwrap_or((&why, ""));
        return Finding::doubtful(what, at, format!("kernels will have no limit: {found}"), remedy);
    }
    let absent = ["setquota", "chattr"].into_iter().find(|program| !paths::is_in_path(program));
    match absent {
        Some(program) => Finding::doubtful(
            what,
            at,
            format!("kernels will have no limit: there is no {program}"),
            "install quota and e2fsprogs",
        ),
        None => Finding::good(what, at, format!("{} for each kernel", quota.size())),
    }
}

fn file_system(root: &Path) -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let Some(Mount { kind, .. }) = Mount::of(&mounts, &path) else {
        return Finding::good("scratch file system", root.display(), "unknown");
    };
    match POOR_FILE_SYSTEMS.iter().find(|(name, _)| *name == kind) {
        Some((_, why)) => Finding::doubtful(
            "scratch file system",
            root.display(),
            format!("{kind}: {why}"),
            "use a local disk (ext4, xfs)",
        ),
        None => Finding::good("scratch file system", root.display(), kind),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn little_space_is_told_and_no_space_is_bad() {
        let verdict = |left, all| judged("x", Path::new("/"), percent(left, all), String::new(), "").verdict;
        assert_eq!(verdict(50, 100), Verdict::Good);
        assert_eq!(verdict(9, 100), Verdict::Doubtful);
        assert_eq!(verdict(9, 1000), Verdict::Bad);
        assert_eq!(verdict(0, 0), Verdict::Bad);
    }

    #[test]
    fn a_root_that_others_may_write_to_is_doubtful_and_an_absent_one_bad() {
        let dir = tempfile::tempdir().unwrap();
        let of = |what: &str| {
            look_at(dir.path(), MinFree::default(), None)
                .into_iter()
                .find(|found| found.what == what)
                .unwrap()
        };
        assert_eq!(of("scratch root").verdict, Verdict::Good);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(of("scratch root").verdict, Verdict::Doubtful);
        let absent = look_at(&dir.path().join("none"), MinFree::default(), None);
        assert_eq!((absent.len(), absent[0].verdict), (1, Verdict::Bad));
    }
}
