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
    /// 3: no agent there, or no answer from it.
    NoAnswer,
    /// 130: ^C left a run that goes on.
    Left,
    /// 141: whoever read the output has gone, as shells show it for other programs.
    Unread,
    /// `exec` and `attach`: the code's own exit code.
    Code(u8),
}

impl Exit {
    /// As the shell sees it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoAnswer => 3,
            Self::Left => 130,
            Self::Unread => 141,
            Self::Code(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}
