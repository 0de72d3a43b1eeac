//! The exit codes.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it did not work.
    Failed,
    /// 2: wrong usage or settings; nothing was begun.
    Usage,
    /// 3: no answer from the agent.
    NoAnswer,
    /// `exec`: the code's own exit code.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoAnswer => 3,
            Exit::Code(code) => code,
        })
    }
}
