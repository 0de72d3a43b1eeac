//! The system's own programs, for what only they do: run with an end to the waiting, their words in one line.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How much of a program's complaint is shown, in characters.
const SHOWN: usize = 300;

/// A program that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It can't be run, as a rule because it is not installed.
    #[error("could not run {program}: {source}")]
    NotRun {
        /// Its name.
        program: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("{program} did not end within {} s", .limit.as_secs())]
    Late {
        /// Its name.
        program: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// Runs a program of `PATH` to its end, with `input` on its standard input; one that takes longer than `limit`, or that nobody waits for any
/// more, is killed. How it ended is the caller's to judge.
pub async fn run(
    program: &'static str,
    args: &[&str],
    input: &str,
    limit: Duration,
) -> Result<Output, ProgramError> {
    let failed = |source| ProgramError::NotRun { program, source };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
    let ended = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    timeout(limit, ended).await.map_err(|_| ProgramError::Late { program, limit })?.map_err(failed)
}

/// What a program wrote to its standard error, in one line.
#[must_use]
pub fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ").chars().take(SHOWN).collect()
}
