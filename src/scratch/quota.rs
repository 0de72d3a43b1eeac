//! How much of the disk a kernel's directory may take, which file systems can hold it to that, and under which number. Pure.
//!
//! ext4 and XFS count the blocks and files of a *project*, a number that a directory hands on to whatever is made in it, and refuse
//! more than the project's limit (`EDQUOT`, on XFS `ENOSPC`). Each kernel's directory is a project of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use super::mounts::Mount;
use crate::patience::Outage;
use crate::units::Memory;

/// The option of a mount whose projects are counted and held to their limits; XFS with `pqnoenforce` only counts.
const ENFORCED: &str = "prjquota";

/// File systems that can.
const KINDS: [&str; 2] = ["ext4", "xfs"];

/// The first number that a root may hand out: far from the small numbers of `/etc/projid`, and of Docker, which counts from 1.
const FIRST: u32 = 1 << 30;

/// How many numbers a root has, and how many roots there are beside each other below 2^31: several agents may have theirs on
/// one file system.
const NUMBERS: u32 = 1 << 16;
const ROOTS: u32 = 1 << 14;

/// What a kernel's directory may take: `--scratch-quota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota(Memory);

impl Quota {
    /// Less than the directories of a new kernel take would let no kernel begin.
    pub const LEAST: Memory = Memory::from_mib(1);

    /// `None` for a size that is no quota: zero.
    #[must_use]
    pub fn new(size: Memory) -> Option<Self> {
        (size > Memory::default()).then(|| Self(size.max(Self::LEAST)))
    }

    /// Its size.
    #[must_use]
    pub fn size(self) -> Memory {
        self.0
    }

    /// The size in KiB, as the system's programs count.
    pub(super) fn kib(self) -> u64 {
        self.0.bytes().div_ceil(1024)
    }

    /// How many files: one for each block. A file that holds anything takes a block, so this keeps in check empty ones alone.
    pub(super) fn files(self) -> u64 {
        self.0.bytes() / 4096
    }
}

/// What all new kernels of a root are held to.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) quota: Quota,
    /// Directories that have none, one after the other. Held for the log line only.
    pub(super) outage: Mutex<Outage>,
}

impl Limit {
    /// Nothing has failed yet.
    pub(super) fn new(quota: Quota) -> Self {
        Self { quota, outage: Mutex::default() }
    }
}

/// Why a file system does not hold kernels to a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has no projects.
    #[error(
        "{point} is {kind}, which has no quotas for projects; put the scratch root on an ext4 or XFS of its own"
    )]
    Kind {
        /// Where it is mounted.
        point: PathBuf,
        /// Its type.
        kind: String,
    },
    /// An ext4 that was mounted without.
    #[error(
        "the ext4 at {point} is mounted without {ENFORCED}; unmount it, `tune2fs -O project,quota -Q prjquota {source_name}`, and mount it with {ENFORCED}"
    )]
    Ext4Off {
        /// Where it is mounted.
        point: PathBuf,
        /// From what.
        source_name: String,
    },
    /// An XFS that was mounted without.
    #[error(
        "the XFS at {point} is mounted without {ENFORCED}; unmount it and mount it with {ENFORCED}, which a remount does not take (the root file system takes rootflags={ENFORCED} from the kernel's command line)"
    )]
    XfsOff {
        /// Where it is mounted.
        point: PathBuf,
    },
}

/// Whether this mount can hold kernels to a limit.
pub(super) fn fits(mount: &Mount) -> Result<(), Unfit> {
    let Mount { point, kind, source, options } = mount;
    let point = point.clone();
    if !KINDS.contains(&kind.as_str()) {
        return Err(Unfit::Kind { point, kind: kind.clone() });
    }
    if options.iter().any(|option| option == ENFORCED) {
        return Ok(());
    }
    Err(match kind.as_str() {
        "ext4" => Unfit::Ext4Off { point, source_name: source.clone() },
        _ => Unfit::XfsOff { point },
    })
}

/// The least number that is not taken, of those of the root whose directory has this inode; `None` when there is none left.
pub(super) fn free_number(root_inode: u64, taken: &BTreeSet<u32>) -> Option<u32> {
    let root = u32::try_from(root_inode % u64::from(ROOTS)).unwrap_or_default();
    let first = FIRST + root * NUMBERS;
    // Small numbers come again and again: XFS keeps a block for each number that it has ever seen.
    (first..first + NUMBERS).find(|number| !taken.contains(number))
}

/// What there is of whose kernels below a root.
#[derive(Debug, Default)]
pub(super) struct Names(pub(super) Vec<String>);

impl Names {
    /// Whether a project of this owner has no files any more: no directory is called after it, and none was moved away from where
    /// its name was.
    pub(super) fn lack(&self, owner: &str) -> bool {
        !self.0.iter().any(|name| name.starts_with(owner) || name.starts_with(super::remove::DEEP))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mount(kind: &str, options: &str) -> Mount {
        Mount {
            point: "/scratches".into(),
            kind: kind.to_owned(),
            source: "/dev/sdb1".to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn ext4_and_xfs_fit_when_they_count_projects_and_hold_them_to_it() {
        for kind in ["ext4", "xfs"] {
            assert_eq!(fits(&mount(kind, "rw,relatime,prjquota")), Ok(()));
        }
        for (kind, options, words) in [
            ("tmpfs", "rw,prjquota", "is tmpfs, which has no quotas for projects"),
            ("overlay", "rw", "put the scratch root on an ext4 or XFS"),
            ("ext4", "rw,usrquota", "tune2fs -O project,quota -Q prjquota /dev/sdb1"),
            ("xfs", "rw,noquota", "mount it with prjquota"),
            ("xfs", "rw,pqnoenforce", "mounted without prjquota"),
        ] {
            let text = fits(&mount(kind, options)).unwrap_err().to_string();
            assert!(text.contains(words) && text.contains("/scratches"), "{text}");
        }
    }

    #[test]
    fn a_quota_counts_whole_kib_and_a_file_for_each_block() {
        assert_eq!(Quota::new(Memory::default()), None);
        let quota = |bytes| Quota::new(Memory::from_bytes(bytes)).unwrap();
        assert_eq!(quota(1).size(), Quota::LEAST);
        assert_eq!((quota(2 << 20).kib(), quota(2 << 20).files()), (2048, 512));
        assert_eq!(quota((2 << 20) + 1).kib(), 2049);
    }

    #[test]
    fn numbers_come_again_and_two_roots_of_one_disk_share_none() {
        let mut taken = BTreeSet::new();
        for n in 0..3 {
            let number = free_number(7, &taken).unwrap();
            assert_eq!(number, FIRST + 7 * NUMBERS + n);
            taken.insert(number);
        }
        taken.remove(&(FIRST + 7 * NUMBERS + 1));
        assert_eq!(free_number(7, &taken), Some(FIRST + 7 * NUMBERS + 1));
        assert_eq!(free_number(8, &taken), Some(FIRST + 8 * NUMBERS));
        assert_eq!(free_number(8, &(FIRST + 8 * NUMBERS..FIRST + 9 * NUMBERS).collect()), None);
    }

    #[test]
    fn a_number_is_free_when_nothing_is_left_of_whose_it_was() {
        let names = |names: &[&str]| Names(names.iter().map(|name| (*name).to_owned()).collect());
        assert!(names(&[".agent", "b", "b.1"]).lack("a"));
        for left in ["a", "a.1f", "deep.2e"] {
            assert!(!names(&["b", left]).lack("a"), "{left}");
        }
    }

    proptest! {
        #[test]
        fn every_root_s_numbers_are_valid(inode in any::<u64>()) {
            let number = free_number(inode, &BTreeSet::new()).unwrap();
            prop_assert!(number >= FIRST && number.checked_add(NUMBERS).is_some_and(|end| end <= 1 << 31));
        }
    }
}
