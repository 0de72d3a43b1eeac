//! What is wrong with the settings, all of it at once. Pure.

use std::fmt;

use super::settings::Setting;

/// Longer values are cut in the report.
const SHOWN_CHARS: usize = 80;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The flag on the command line.
    Flag,
    /// This environment variable.
    Env(&'static str),
    /// Nobody gave one.
    Default,
}

/// One setting that can't be used, in words for the operator; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    flag: &'static str,
    origin: Origin,
    /// As the operator wrote it, cut and quoted; `None` where it must not be seen.
    value: Option<String>,
    /// What is wrong with it, or what would be right.
    advice: String,
}

impl Problem {
    /// This value of this setting is not usable; the advice says why, or what would be.
    pub(super) fn new(setting: &Setting, origin: Origin, value: &str, advice: impl Into<String>) -> Self {
        // A URL of any setting may hold a password before its `@`.
        let shown = !setting.secret && !value.contains('@');
        let value = shown.then(|| {
            let cut: String = value.chars().take(SHOWN_CHARS).collect();
            let dots = if cut.len() < value.len() { "…" } else { "" };
            format!("{cut:?}{dots}")
        });
        Self { flag: setting.name(), origin, value, advice: advice.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, origin, value, advice } = self;
        let value = value.as_deref().unwrap_or("(not shown)");
        match origin {
            Origin::Flag => write!(f, "{flag}: {value}: {advice}"),
            Origin::Env(variable) if variable == flag => {
                write!(f, "{flag} (from the environment): {value}: {advice}")
            }
            Origin::Env(variable) => {
                write!(f, "{flag} (from {variable} in the environment): {value}: {advice}")
            }
            Origin::Default => write!(f, "{flag} (the default): {value}: {advice}"),
        }
    }
}

/// Every setting that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// In the order of `--help`.
    pub problems: Vec<Problem>,
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
