//! When a file system has too little left for new kernels. Pure.
//!
//! As with kubelet's marks for evictions there is one for bytes and one for inodes, and getting over a mark takes a quarter more than
//! the mark: a node whose slots come and go gets no sessions. By default a mark is 5 % of the file system, and at most 1 GiB and
//! 10,000 inodes: of 250 GB that is 1 GiB, of 10 GB 512 MiB, of a test's 100 MiB 5 MiB.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::units::Memory;

/// The most inodes that a mark asks for: more than a hundred new kernels need.
const INODES: u64 = 10_000;

/// How much must be free below the scratch root and on Docker's disk: `--min-free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinFree {
    /// The part of the file system, in percent.
    percent: u8,
    /// At most so much.
    at_most: Option<Memory>,
}

impl Default for MinFree {
    fn default() -> Self {
        Self { percent: 5, at_most: Some(Memory::from_mib(1024)) }
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at_most {
            Some(at_most) => write!(f, "{}%,{}", self.percent, at_most.mib()),
            None => write!(f, "{}%", self.percent),
        }
    }
}

/// A text that is no mark.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a part such as 5%, MiB such as 2048, or both with a comma between them, of which the less counts; 0 is off"
)]
pub struct BadMinFree;

impl FromStr for MinFree {
    type Err = BadMinFree;

    fn from_str(text: &str) -> Result<Self, BadMinFree> {
        let percent = |text: &str| text.parse::<u8>().ok().filter(|percent| *percent <= 50);
        let mib = |text: &str| text.parse::<u64>().ok().map(Memory::from_mib);
        let (part, rest) = match text.split_once('%') {
            Some((part, rest)) => (Some(percent(part.trim()).ok_or(BadMinFree)?), rest.trim()),
            None => (None, text.trim()),
        };
        match (part, rest) {
            (Some(percent), "") => Ok(Self { percent, at_most: None }),
            (Some(percent), rest) => {
                let size = rest.strip_prefix(',').and_then(|size| mib(size.trim())).ok_or(BadMinFree)?;
                Ok(Self { percent, at_most: Some(size) })
            }
            // Of a disk that is not twice as large, the half.
            (None, size) => {
                let size = mib(size).ok_or(BadMinFree)?;
                let percent = if size == Memory::default() { 0 } else { 50 };
                Ok(Self { percent, at_most: Some(size) })
            }
        }
    }
}

/// A file system at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Its size in bytes.
    pub bytes: u64,
    /// What ordinary users may still take of that.
    pub free_bytes: u64,
    /// How many files it can have; 0 where it has no such limit.
    pub inodes: u64,
    /// How many of those are left.
    pub free_inodes: u64,
}

impl MinFree {
    /// The marks of a file system: bytes and inodes.
    fn marks(self, space: Space) -> (u64, u64) {
        let part =
            |all: u64| u64::try_from(u128::from(all) * u128::from(self.percent) / 100).unwrap_or(u64::MAX);
        let bytes = part(space.bytes).min(self.at_most.map_or(u64::MAX, Memory::bytes));
        // A size says nothing of inodes.
        let inodes = u64::try_from(u128::from(space.inodes) * u128::from(self.percent.min(5)) / 100);
        (bytes, inodes.unwrap_or(u64::MAX).min(INODES))
    }

    /// Why there is too little left below `path`; `None` when there is enough. `was_low`: how it was before.
    #[must_use]
    pub fn lacks(self, space: Space, was_low: bool, path: &Path) -> Option<String> {
        let (bytes, inodes) = self.marks(space);
        let needed = |mark: u64| if was_low { mark.saturating_add(mark / 4) } else { mark };
        let path = path.display();
        if space.free_bytes < needed(bytes) {
            let (free, all, mark) = (mib(space.free_bytes), mib(space.bytes), mib(needed(bytes)));
            return Some(format!(
                "only {free} of {all} MiB are free below {path} and new kernels need {mark} (--min-free): make room"
            ));
        }
        if space.inodes > 0 && space.free_inodes < needed(inodes) {
            let Space { inodes: all, free_inodes: free, .. } = space;
            return Some(format!(
                "only {free} of {all} inodes are free below {path} and new kernels need {} (--min-free): remove files",
                needed(inodes)
            ));
        }
        None
    }
}

fn mib(bytes: u64) -> u64 {
    Memory::from_bytes(bytes).mib()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn space(mib: u64, free_mib: u64) -> Space {
        Space { bytes: mib * MIB, free_bytes: free_mib * MIB, inodes: 1_000_000, free_inodes: 900_000 }
    }

    #[test]
    fn the_default_fits_disks_of_all_sizes() {
        for (size, mark) in [(250_000, 1024), (10_000, 500), (100, 5), (1, 0)] {
            let (bytes, inodes) = MinFree::default().marks(space(size, 0));
            assert_eq!((bytes / MIB, inodes), (mark, 10_000), "{size} MiB");
        }
    }

    #[test]
    fn a_mark_is_a_part_a_size_or_the_less_of_both() {
        let marks = |text: &str| text.parse::<MinFree>().map(|mark| mark.marks(space(10_000, 0)).0 / MIB);
        assert_eq!(marks("10%").ok(), Some(1000));
        assert_eq!(marks("10%,300").ok(), Some(300));
        assert_eq!(marks("1%, 300").ok(), Some(100));
        assert_eq!(marks("2048").ok(), Some(2048));
        assert_eq!(marks("9000").ok(), Some(5000), "the half is the most");
        assert_eq!(marks("0").ok(), Some(0));
        for bad in ["", "%", "51%", "5%,", "5%300", "-1", "1 GiB", "5%,5%"] {
            assert!(marks(bad).is_err(), "{bad}");
        }
        let default = MinFree::default();
        assert_eq!(default.to_string().parse::<MinFree>().ok(), Some(default));
    }

    #[test]
    fn zero_is_off_also_for_inodes() {
        let off: MinFree = "0".parse().unwrap();
        assert_eq!(off.lacks(Space { free_inodes: 0, ..space(100, 0) }, true, Path::new("/s")), None);
    }

    #[test]
    fn it_takes_more_to_get_over_a_mark_than_to_fall_below_it() {
        let lacks = |free, was_low| MinFree::default().lacks(space(10_000, free), was_low, Path::new("/s"));
        assert_eq!(lacks(500, false), None);
        let text = lacks(499, false).unwrap();
        assert!(
            text.starts_with("only 499 of 10000 MiB are free below /s and new kernels need 500 "),
            "{text}"
        );
        assert!(lacks(500, true).is_some() && lacks(624, true).is_some());
        assert_eq!(lacks(625, true), None);
    }

    #[test]
    fn inodes_have_a_mark_where_there_is_a_limit() {
        let lacks = |inodes, free_inodes| {
            let space = Space { inodes, free_inodes, ..space(10_000, 9_000) };
            MinFree::default().lacks(space, false, Path::new("/s"))
        };
        assert_eq!(lacks(0, 0), None, "btrfs makes them as needed");
        assert_eq!(lacks(1000, 50), None);
        let text = lacks(1000, 49).unwrap();
        assert!(text.contains("49 of 1000 inodes"), "{text}");
        assert!(lacks(u64::MAX, 9_999).is_some());
    }

    proptest! {
        #[test]
        fn an_empty_disk_is_never_low(bytes in any::<u64>(), inodes in any::<u64>(), percent in 0..51_u8) {
            let min = MinFree { percent, at_most: None };
            let all = Space { bytes, free_bytes: bytes, inodes, free_inodes: inodes };
            prop_assert_eq!(min.lacks(all, true, Path::new("/")), None);
        }
    }
}
