//! The drain: an operator takes the node out of the manager's choice. No slots are offered and no kernel is made, until
//! `resume`; kernels that there are go on. A file below the scratch root keeps it over restarts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::board::Board;
use crate::conditions::Need;

/// The file's name, below the agent's own directory. It is there while the node is drained.
const FILE: &str = "drained";

/// What the manager and operators are told.
const REASON: &str = "an operator has drained this node; backendai-agent resume ends that";

/// A drain that could not be begun or ended.
#[derive(Debug, thiserror::Error)]
#[error("could not note the drain in {path}: {source}; check the disk below the scratch root")]
pub(super) struct DrainError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Begins and ends it; clones are the same.
#[derive(Clone)]
pub(super) struct Drain {
    path: PathBuf,
    board: Board,
}

impl Drain {
    /// As an earlier life of the agent left it. Blocks for a look at a file.
    pub(super) fn open(agent_dir: &Path, board: Board) -> Self {
        let drain = Self { path: agent_dir.join(FILE), board };
        drain.say(drain.path.exists());
        drain
    }

    /// Begins it or ends it, on the disk first.
    pub(super) async fn set(&self, is_drained: bool) -> Result<(), DrainError> {
        let path = self.path.clone();
        let failed = |source| DrainError { path: self.path.clone(), source };
        let noted = tokio::task::spawn_blocking(move || note(&path, is_drained)).await;
        noted.map_err(|_| failed(io::Error::other("its thread ended early")))?.map_err(failed)?;
        self.say(is_drained);
        Ok(())
    }

    fn say(&self, is_drained: bool) {
        self.board.set(Need::Undrained, is_drained.then(|| REASON.to_owned()));
    }
}

fn note(path: &Path, is_drained: bool) -> io::Result<()> {
    if is_drained {
        let mut file = File::create(path)?;
        file.write_all(b"drained by an operator\n")?;
        file.sync_all()?;
    } else {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // The name is a part of the directory.
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_is_kept_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let offers = |board: &Board| board.conditions().borrow().offers_slots();
        let board = Board::default();
        let drain = Drain::open(dir.path(), board.clone());
        assert!(offers(&board));
        drain.set(true).await.unwrap();
        assert!(!offers(&board));
        assert_eq!(board.conditions().borrow().refusal(), Some(REASON));
        let next = Board::default();
        let drain = Drain::open(dir.path(), next.clone());
        assert!(!offers(&next), "forgotten by the next life");
        drain.set(false).await.unwrap();
        drain.set(false).await.unwrap();
        assert!(offers(&next) && next.conditions().borrow().refusal().is_none());
        let board = Board::default();
        let _drain = Drain::open(dir.path(), board.clone());
        assert!(offers(&board));
    }

    #[tokio::test]
    async fn a_drain_that_is_not_noted_is_none() {
        let board = Board::default();
        let drain = Drain::open(Path::new("/proc/none"), board.clone());
        assert!(drain.set(true).await.is_err());
        assert!(board.conditions().borrow().offers_slots());
    }
}
