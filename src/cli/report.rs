//! Why there is nothing to be done, in words for the operator.

use std::fmt;

use super::exit::Exit;

/// Longer values are cut in the report.
const SHOWN_CHARS: usize = 80;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Env(String),
}

/// One setting that can't be used, in words for the operator; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The flag, or the argument's name.
    name: String,
    origin: Origin,
    /// As the operator wrote it, cut and quoted; `None` where it must not be seen.
    value: Option<String>,
    /// What is wrong with it, or what would be right.
    advice: String,
}

impl Problem {
    /// This value of this setting is not usable; the advice says why, or what would be.
    pub(super) fn new(name: String, origin: Origin, value: &str, is_secret: bool, advice: &str) -> Self {
        // A URL of any setting may hold a password before its `@`.
        let shown = !is_secret && !value.contains('@');
        let value = shown.then(|| {
            let cut: String = value.chars().take(SHOWN_CHARS).collect();
            let dots = if cut.len() < value.len() { "…" } else { "" };
            format!("{cut:?}{dots}")
        });
        Self { name, origin, value, advice: advice.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, origin, value, advice } = self;
        let value = value.as_deref().unwrap_or("(not shown)");
        match origin {
            Origin::Flag => write!(f, "{name}: {value}: {advice}"),
            Origin::Env(variable) => {
                write!(f, "{name} (from {variable} in the environment): {value}: {advice}")
            }
        }
    }
}

/// Every setting that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// In the order of `--help`.
    pub(super) problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("1 setting is wrong:")?,
            count => write!(f, "{count} settings are wrong:")?,
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Why there is nothing to be done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A flag or command that doesn't exist, a missing argument; or the operator asked for help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Settings that can't be used.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
}

impl Refusal {
    /// Tells the operator: help and version on stdout, all else on stderr.
    #[must_use]
    pub fn show(&self) -> Exit {
        match self {
            Self::Usage(error) => {
                // Nobody to tell when the terminal is gone.
                let _ = error.print();
                if error.use_stderr() { Exit::Usage } else { Exit::Done }
            }
            Self::Settings(_) => {
                eprintln!("backendai-agent: {self}");
                Exit::Usage
            }
        }
    }
}
