//! Output of runs that nobody has collected: below `runs/{id}.output/` a file for each run, named by its number.
//!
//! A file holds frames in pairs, as a runner sends them, each behind its length (4 bytes, little-endian): first `run` and the
//! run's id, then the records. A pair that was cut off by a kill, and whatever is behind it, is not read. Not synced: no run
//! survives the machine.
//!
//! A new file, and one less, are most of what the disk has to do for a short run, so that a small file that is needed no more becomes
//! the next run's. Until that has it, it is called `spare` and means nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Buf, Bytes};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::ids::RunId;
use crate::runner::{Change, LeftOutput, Spilled};
use crate::wire::record::Record;

/// The file for the next run.
const SPARE: &str = "spare";

/// What a file of that name takes at most, in bytes.
const SMALL: u64 = 4096;

/// The kind of the first pair.
const RUN: &[u8] = b"run";

/// Does what is to be done. After an error the files concerned are of no use, and go.
pub(super) fn change(dir: &Path, all: Vec<Spilled>) -> io::Result<()> {
    let mut result = Ok(());
    for Spilled { number, run, change } in all {
        let path = dir.join(number.to_string());
        let done = match change {
            Change::Append(records) => append(dir, &path, &run, &records),
            Change::Replace(records) => spare(dir, &path).and_then(|()| append(dir, &path, &run, &records)),
            Change::Remove => spare(dir, &path),
        };
        if done.is_err() {
            // A file with a gap would be taken for whole.
            result = done.and(remove(&path));
        }
    }
    result
}

/// What an earlier life left, in the order of the runs.
pub(super) fn read(dir: &Path) -> io::Result<Vec<LeftOutput>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(number) = number else { continue };
        found.extend(parse(number, fs::read(&path)?.into()));
    }
    found.sort_by_key(|left: &LeftOutput| left.number);
    Ok(found)
}

/// The output of the run of this number, out of its file's bytes.
pub(super) fn parse(number: u64, mut bytes: Bytes) -> Option<LeftOutput> {
    let (kind, run) = pair(&mut bytes)?;
    let run = RunId::new(String::from_utf8(run.to_vec()).ok().filter(|_| kind == RUN)?);
    let records =
        std::iter::from_fn(|| pair(&mut bytes)).filter_map(|(kind, data)| Record::decode(&[kind, data]).ok());
    Some(LeftOutput { number, run, records: records.collect() })
}

fn pair(bytes: &mut Bytes) -> Option<(Bytes, Bytes)> {
    Some((frame(bytes)?, frame(bytes)?))
}

fn frame(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn append(dir: &Path, path: &Path, run: &RunId, records: &[Record]) -> io::Result<()> {
    let mut text = Vec::new();
    for frame in records.iter().flat_map(Record::encode) {
        put(&mut text, &frame)?;
    }
    let there = match File::options().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    // A kill may have left an empty one.
    if let Some(mut file) = there
        && file.metadata()?.len() > 0
    {
        return file.write_all(&text);
    }
    let mut head = Vec::new();
    put(&mut head, RUN)?;
    put(&mut head, run.as_str().as_bytes())?;
    begin(dir, path, &[head, text].concat())
}

/// A file that is not there, or holds nothing.
fn begin(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    if again(dir, path, text).is_ok() {
        return Ok(());
    }
    let new = || File::options().write(true).create(true).truncate(true).open(path);
    let mut file = match new() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Not what is above it: below a mount point that lost its file system nothing is to be made.
            fs::create_dir(dir)?;
            new()
        }
        opened => opened,
    }?;
    file.write_all(text)
}

/// The spare file, if there is one.
fn again(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let spare = dir.join(SPARE);
    let file = File::options().write(true).open(&spare)?;
    file.write_all_at(text, 0)?;
    let length = u64::try_from(text.len()).map_err(io::Error::other)?;
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    fs::rename(spare, path)
}

/// What is there is needed no more.
fn spare(dir: &Path, path: &Path) -> io::Result<()> {
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= SMALL);
    // Over another one it would be slow.
    if is_small && renameat_with(CWD, path, CWD, dir.join(SPARE), RenameFlags::NOREPLACE).is_ok() {
        return Ok(());
    }
    remove(path)
}

fn put(text: &mut Vec<u8>, frame: &[u8]) -> io::Result<()> {
    text.extend(u32::try_from(frame.len()).map_err(io::Error::other)?.to_le_bytes());
    text.extend_from_slice(frame);
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &'static str) -> Record {
        Record::Stdout(Bytes::from_static(text.as_bytes()))
    }

    fn spilled(number: u64, run: &str, change: Change) -> Spilled {
        Spilled { number, run: RunId::new(run), change }
    }

    fn left(number: u64, run: &str, records: &[Record]) -> LeftOutput {
        LeftOutput { number, run: RunId::new(run), records: records.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("kernel.output");
        assert_eq!(read(&dir).unwrap(), []);
        let end = Record::Finished(Some(3));
        super::change(
            &dir,
            vec![
                spilled(10, "late", Change::Append(vec![out("x")])),
                spilled(9, "early", Change::Append(vec![out("a")])),
                spilled(9, "early", Change::Append(vec![out("b"), end.clone()])),
                spilled(8, "gone", Change::Append(vec![out("y")])),
            ],
        )
        .unwrap();
        super::change(
            &dir,
            vec![
                spilled(8, "gone", Change::Remove),
                spilled(10, "late", Change::Replace(vec![out("z")])),
                spilled(7, "never there", Change::Remove),
            ],
        )
        .unwrap();
        let early = left(9, "early", &[out("a"), out("b"), end]);
        assert_eq!(read(&dir).unwrap(), [early, left(10, "late", &[out("z")])]);
    }

    #[test]
    fn a_write_that_was_cut_off_anywhere_costs_its_own_record_alone() {
        let root = tempfile::tempdir().unwrap();
        super::change(root.path(), vec![spilled(1, "r", Change::Append(vec![out("whole"), out("cut")]))])
            .unwrap();
        let path = root.path().join("1");
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let found = read(root.path()).unwrap();
            let records: Vec<_> = found.into_iter().flat_map(|left| left.records).collect();
            assert!([&[][..], &[out("whole")]].contains(&&records[..]), "{length}: {records:?}");
        }
    }

    #[test]
    fn a_small_file_becomes_the_next_run_s_and_nothing_of_it_stays() {
        let root = tempfile::tempdir().unwrap();
        let inode = |number: u64| {
            let file = fs::metadata(root.path().join(number.to_string())).unwrap();
            std::os::unix::fs::MetadataExt::ino(&file)
        };
        let change = |number, change| super::change(root.path(), vec![spilled(number, "r", change)]).unwrap();
        change(1, Change::Append(vec![out("longer than the next one")]));
        let first = inode(1);
        change(1, Change::Remove);
        assert_eq!(read(root.path()).unwrap(), []);
        change(2, Change::Append(vec![out("x")]));
        assert_eq!((inode(2), read(root.path()).unwrap()), (first, vec![left(2, "r", &[out("x")])]));
        // Two at once: there is one spare.
        change(3, Change::Append(vec![out("y")]));
        change(2, Change::Remove);
        change(3, Change::Replace(vec![out("z")]));
        assert_eq!(read(root.path()).unwrap(), [left(3, "r", &[out("z")])]);
        // A large one takes no room for nothing.
        let large = Record::Stdout(Bytes::from(vec![b'x'; 5000]));
        change(4, Change::Append(vec![large.clone()]));
        assert_eq!(read(root.path()).unwrap().pop(), Some(left(4, "r", &[large])));
        change(4, Change::Remove);
        change(3, Change::Remove);
        let names: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["spare"]);
    }
}
