//! A log file that is set aside when it is full: `agent.log`, `agent.log.1` (the newest of the old), `agent.log.2` …
//!
//! Written here and not taken from a crate because a log file must survive what happens to it: files deleted
//! or moved by hand, a directory that vanishes and comes back, a disk that is full for an hour. Each of these
//! costs an error for the lines concerned, and the next line tries again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::config::{LogFile, Rotation};

/// The file that lines go to. One `write` is one line, and a line is never split between two files.
pub(super) struct RotatingFile {
    config: LogFile,
    /// The file at `config.path`; `None` when it has to be opened (again).
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Device and inode, to notice that the path leads somewhere else by now.
    identity: (u64, u64),
    /// Bytes in the file.
    size: u64,
}

impl RotatingFile {
    /// Opens the file for appending, or makes it; its directory must exist.
    pub(super) fn open(config: LogFile) -> io::Result<Self> {
        let open = Some(Open::at(&config.path)?);
        Ok(Self { config, open })
    }

    /// The file to write a line of this length to.
    fn ready(&mut self, line: u64) -> io::Result<&mut Open> {
        let mut open = match self.open.take() {
            Some(open) if open.is_at(&self.config.path) => open,
            _ => Open::at(&self.config.path)?,
        };
        if let Some(Rotation { max_bytes, keep }) = self.config.rotation
            && open.size > 0
            && open.size.saturating_add(line) > max_bytes.get()
        {
            set_aside(&self.config.path, keep)?;
            open = Open::at(&self.config.path)?;
        }
        Ok(self.open.insert(open))
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        let open = self.ready(length)?;
        if let Err(error) = open.file.write_all(line) {
            // A full disk took a part of the line; what reads the file expects whole ones.
            let _ = open.file.set_len(open.size);
            self.open = None;
            return Err(error);
        }
        open.size += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()), size: metadata.len() })
    }

    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }
}

/// Moves every file one number up; the one numbered `keep` is overwritten.
fn set_aside(path: &Path, keep: u32) -> io::Result<()> {
    for number in (1..keep).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU64;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn config(dir: &TempDir, max_bytes: u64, keep: u32) -> LogFile {
        let rotation = NonZeroU64::new(max_bytes).map(|max_bytes| Rotation { max_bytes, keep });
        LogFile { path: dir.path().join("agent.log"), rotation }
    }

    fn contents(dir: &TempDir) -> BTreeMap<String, String> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        };
        fs::read_dir(dir.path()).unwrap().map(read).collect()
    }

    fn check(dir: &TempDir, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        assert_eq!(contents(dir), expected.collect());
    }

    #[test]
    fn full_files_move_up_and_the_oldest_goes() {
        let dir = TempDir::new().unwrap();
        let mut file = RotatingFile::open(config(&dir, 4, 2)).unwrap();
        for line in ["1\n", "2\n", "3\n", "long line\n", "4\n", "5\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        check(&dir, &[("agent.log", "4\n5\n"), ("agent.log.1", "long line\n"), ("agent.log.2", "3\n")]);
    }

    #[test]
    fn an_existing_file_is_continued() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("agent.log"), "old\n").unwrap();
        let mut file = RotatingFile::open(config(&dir, 8, 1)).unwrap();
        file.write_all(b"new\n").unwrap();
        check(&dir, &[("agent.log", "old\nnew\n")]);
        file.write_all(b"next\n").unwrap();
        check(&dir, &[("agent.log", "next\n"), ("agent.log.1", "old\nnew\n")]);
    }

    #[test]
    fn files_deleted_or_moved_by_hand_do_not_stop_it() {
        let dir = TempDir::new().unwrap();
        let mut file = RotatingFile::open(config(&dir, 2, 3)).unwrap();
        for line in ["1\n", "2\n", "3\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        fs::remove_file(dir.path().join("agent.log.1")).unwrap();
        file.write_all(b"4\n").unwrap();
        check(&dir, &[("agent.log", "4\n"), ("agent.log.1", "3\n"), ("agent.log.3", "1\n")]);
        fs::rename(dir.path().join("agent.log"), dir.path().join("kept")).unwrap();
        file.write_all(b"5\n").unwrap();
        assert_eq!(contents(&dir)["agent.log"], "5\n");
    }

    #[test]
    fn a_directory_that_vanishes_and_comes_back_costs_the_lines_in_between() {
        let outer = TempDir::new().unwrap();
        let inner = outer.path().join("log");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("agent.log");
        let mut file = RotatingFile::open(LogFile { path: path.clone(), rotation: None }).unwrap();
        file.write_all(b"1\n").unwrap();
        fs::remove_dir_all(&inner).unwrap();
        assert_eq!(file.write_all(b"2\n").unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(&inner).unwrap();
        file.write_all(b"3\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "3\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let config = LogFile { path: "/dev/full".into(), rotation: None };
        let mut file = RotatingFile::open(config).unwrap();
        for _ in 0..2 {
            assert_eq!(file.write_all(b"line\n").unwrap_err().kind(), ErrorKind::StorageFull);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_newest_lines_are_whole_and_in_order(lengths in prop::collection::vec(1_usize..30, 1..40), keep in 1_u32..4) {
            let dir = TempDir::new().unwrap();
            let mut file = RotatingFile::open(config(&dir, 40, keep)).unwrap();
            let lines: Vec<String> =
                lengths.iter().enumerate().map(|(n, length)| format!("{n} {}\n", "x".repeat(*length))).collect();
            for line in &lines {
                file.write_all(line.as_bytes()).unwrap();
            }
            let files = contents(&dir);
            prop_assert!(files.len() <= keep as usize + 1);
            prop_assert!(files.values().all(|text| text.len() <= 40));
            // By name, agent.log comes first and then .1 .2 .3: the newest first.
            let kept: String = files.values().rev().map(String::as_str).collect();
            prop_assert!(lines.concat().ends_with(&kept));
            prop_assert!(kept.ends_with(lines.last().unwrap()));
        }
    }
}
