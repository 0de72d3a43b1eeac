//! Why there is nothing to be done, in words for the operator.

use std::fmt;
use std::path::PathBuf;

use super::exit::Exit;
use super::terminal;

/// Longer values are cut in the report.
const SHOWN_CHARS: usize = 80;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Env(String),
    /// This line of the file.
    File(Place),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(variable) => write!(f, "{variable} in the environment"),
            Self::File(Place { path, line }) => write!(f, "line {line} of {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// From 1.
    pub(super) line: usize,
}

/// A value in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// As the operator wrote it, cut and quoted.
    Text(String),
    /// It must not be seen.
    Hidden,
    /// The advice says it all.
    Nothing,
}

impl Shown {
    /// As much of a value as may be seen.
    pub(super) fn of(value: &str, is_secret: bool) -> Self {
        // A URL of any setting may hold a password before its `@`.
        if is_secret || value.contains('@') {
            return Self::Hidden;
        }
        let cut: String = value.chars().take(SHOWN_CHARS).collect();
        let dots = if cut.len() < value.len() { "…" } else { "" };
        Self::Text(format!("{cut:?}{dots}"))
    }
}

/// One setting that can't be used, in words for the operator; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The flag, the key of the file or the argument's name; `None` where a place is all that is known.
    name: Option<String>,
    origin: Origin,
    value: Shown,
    /// What is wrong with it, or what would be right.
    advice: String,
}

impl Problem {
    /// This value of this setting is not usable; the advice says why, or what would be.
    pub(super) fn new(name: String, origin: Origin, value: Shown, advice: &str) -> Self {
        Self { name: Some(name), origin, value, advice: advice.to_owned() }
    }

    /// The file can't be used as it is.
    pub(super) fn of_file(name: Option<&str>, place: Place, value: Shown, advice: &str) -> Self {
        // Texts of the library may have several lines.
        let advice = advice.replace('\n', "; ");
        Self { name: name.map(str::to_owned), origin: Origin::File(place), value, advice }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, origin, value, advice } = self;
        match (name, origin) {
            (Some(name), Origin::Flag | Origin::Default) => write!(f, "{name}: ")?,
            (Some(name), Origin::Env(_)) => write!(f, "{name} (from {origin}): ")?,
            (Some(name), Origin::File(_)) => write!(f, "{name} ({origin}): ")?,
            (None, origin) => write!(f, "{origin}: ")?,
        }
        match value {
            Shown::Text(text) => write!(f, "{text}: {advice}"),
            Shown::Hidden => write!(f, "(not shown): {advice}"),
            Shown::Nothing => f.write_str(advice),
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
                terminal::complain(&self.to_string());
                Exit::Usage
            }
        }
    }
}
