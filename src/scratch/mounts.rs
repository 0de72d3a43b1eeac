//! The mount that a path is on, as `/proc/self/mountinfo` tells it. Pure.

use std::path::{Path, PathBuf};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// The type of its file system: `ext4`.
    pub kind: String,
    /// What it was mounted from: `/dev/sda1`.
    pub source: String,
    /// The file system's own options, in the table's order.
    pub options: Vec<String>,
}

impl Mount {
    /// The one that `path`, absolute and free of links, is on; of several at one place the last, which covers the others.
    #[must_use]
    pub fn of(table: &str, path: &Path) -> Option<Self> {
        let around = table.lines().filter_map(Self::read).filter(|mount| path.starts_with(&mount.point));
        around.max_by_key(|mount| mount.point.components().count())
    }

    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`
    fn read(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(Self {
            point: unescaped(before.split(' ').nth(4)?).into(),
            kind: after.next()?.to_owned(),
            source: unescaped(after.next()?),
            options: after.next().unwrap_or_default().split(',').map(str::to_owned).collect(),
        })
    }
}

/// The table writes white space and backslashes in octal.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "21 1 8:1 / / rw - ext4 /dev/sda1 rw,errors=remount-ro\n\
                         22 21 0:20 / /var/cache rw shared:1 - tmpfs tmpfs rw\n\
                         23 21 0:21 / /data\\040disk rw - nfs4 h:/x rw\n\
                         24 21 0:22 / /var/cache rw - xfs /dev/sdb rw,attr2,prjquota\n\
                         a line of another kind\n";

    #[test]
    fn the_innermost_mount_counts() {
        let kind = |path: &str| Mount::of(TABLE, Path::new(path)).map(|mount| mount.kind);
        assert_eq!(kind("/srv").as_deref(), Some("ext4"));
        assert_eq!(kind("/var/cache/scratches").as_deref(), Some("xfs"));
        assert_eq!(kind("/var/cachet").as_deref(), Some("ext4"));
        assert_eq!(kind("/data disk/a").as_deref(), Some("nfs4"));
        assert_eq!(Mount::of("", Path::new("/")), None);
    }

    #[test]
    fn a_mount_has_a_source_and_options() {
        let mount = Mount::of(TABLE, Path::new("/var/cache")).unwrap();
        assert_eq!((mount.source.as_str(), mount.point.to_str()), ("/dev/sdb", Some("/var/cache")));
        assert_eq!(mount.options, ["rw", "attr2", "prjquota"]);
    }
}
