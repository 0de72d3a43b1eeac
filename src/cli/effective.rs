//! Every setting as it would be used, and where it comes from. Pure.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::json;

use super::inventory::{self, Form, Setting};
use super::report::Origin;
use super::settings::{self, Reading};

/// The settings of one start of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// In the order of `--help`.
    settings: Vec<Used>,
    /// The file that was read.
    file: Option<PathBuf>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Used {
    setting: Setting,
    value: Value,
    origin: Origin,
}

/// What a setting is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Switch(bool),
    /// As typed; several for a list, none where nothing is set.
    Texts(Vec<String>),
}

impl Effective {
    /// What was read for the agent; `matches` are those of the command that has its settings.
    pub(super) fn of(reading: &Reading, matches: &ArgMatches) -> Self {
        let used = |setting: Setting| {
            let id = settings::id(&setting.key);
            let value = match setting.form {
                Form::Switch => Value::Switch(matches.get_flag(&id)),
                Form::One | Form::List => {
                    let raw = matches.get_raw(&id).into_iter().flatten();
                    Value::Texts(raw.map(|text| text.to_string_lossy().into_owned()).collect())
                }
            };
            let arg = reading.command.get_arguments().find(|arg| arg.get_long() == Some(&setting.key));
            let origin =
                arg.map_or(Origin::Default, |arg| settings::origin(matches, &reading.from_file, arg));
            Used { setting, value, origin }
        };
        Self { settings: inventory::settings().into_iter().map(used).collect(), file: reading.file.clone() }
    }

    /// The keys of what differs between two starts.
    pub(super) fn differing(&self, other: &Self) -> Vec<&str> {
        let pairs = self.settings.iter().zip(&other.settings);
        pairs.filter(|(a, b)| a.value != b.value).map(|(a, _)| a.setting.key.as_str()).collect()
    }

    /// The same, but `keys` as `newer` has them.
    pub(super) fn with(&self, newer: &Self, keys: &[&str]) -> Self {
        let pick = |(old, new): (&Used, &Used)| {
            let is_one = keys.contains(&new.setting.key.as_str());
            if is_one { new.clone() } else { old.clone() }
        };
        let settings = self.settings.iter().zip(&newer.settings).map(pick).collect();
        Self { settings, file: newer.file.clone() }
    }

    /// The key of a secret that stands in the file, if one does.
    pub(super) fn secret_in_file(&self) -> Option<(&Path, &str)> {
        let is_one = |used: &&Used| used.setting.is_secret && matches!(used.origin, Origin::File(_));
        let secret = self.settings.iter().find(is_one)?;
        Some((self.file.as_deref()?, &secret.setting.key))
    }

    /// As a file of settings that would say the same, secrets left out.
    pub(super) fn as_toml(&self) -> String {
        let mut text = match &self.file {
            Some(path) => format!("# Read from flags, the environment and {}.\n", path.display()),
            None => "# Read from flags and the environment; there is no file of settings.\n".to_owned(),
        };
        let lines: Vec<_> = self.settings.iter().map(|used| (used, used.as_toml())).collect();
        let width =
            lines.iter().map(|(_, line)| line.chars().count()).filter(|w| *w <= 60).max().unwrap_or(0);
        let mut section = "";
        for (used, line) in &lines {
            if used.setting.section != section {
                section = &used.setting.section;
                let _ = write!(text, "\n# {section}\n");
            }
            let _ = writeln!(text, "{line:width$}  # {}", used.origin);
        }
        text
    }

    /// The same for programs, an object a setting.
    pub(super) fn as_json(&self) -> serde_json::Value {
        let one = |used: &Used| {
            let Used { setting, value, origin } = used;
            let origin = match origin {
                Origin::Flag => json!({"from": "flag"}),
                Origin::Env(variable) => json!({"from": "environment", "variable": variable}),
                Origin::File(place) => json!({"from": "file", "path": place.path, "line": place.line}),
                Origin::Default => json!({"from": "default"}),
            };
            let shown = match value {
                _ if used.is_hidden() => json!(null),
                Value::Switch(on) => json!(on),
                Value::Texts(texts) if setting.form == Form::List => json!(texts),
                Value::Texts(texts) => json!(texts.first()),
            };
            json!({
                "key": setting.key,
                "value": shown,
                "is_set": *value != Value::Texts(Vec::new()),
                "is_hidden": used.is_hidden(),
                "origin": origin,
                "variable": setting.variable,
            })
        };
        self.settings.iter().map(one).collect()
    }
}

impl Used {
    /// Whether there is a value that must not be seen: a secret, or a URL that holds one before its `@`.
    fn is_hidden(&self) -> bool {
        match &self.value {
            Value::Switch(_) => false,
            Value::Texts(texts) => {
                let is_secret = |text: &String| self.setting.is_secret || text.contains('@');
                texts.iter().any(is_secret)
            }
        }
    }

    fn as_toml(&self) -> String {
        let key = &self.setting.key;
        match &self.value {
            _ if self.is_hidden() => format!("# {key} is set and not shown"),
            Value::Switch(on) => format!("{key} = {on}"),
            Value::Texts(texts) if texts.is_empty() => format!("# {key} is not set"),
            Value::Texts(texts) if self.setting.form == Form::List => {
                let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                format!("{key} = [{}]", texts.join(", "))
            }
            Value::Texts(texts) => {
                let text = texts.first().map_or("", String::as_str);
                format!("{key} = {}", if is_number(text) { text.to_owned() } else { quoted(text) })
            }
        }
    }
}

/// A text as TOML has it, whose escapes JSON has, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether TOML reads the text as a number that is written the same again.
fn is_number(text: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    is_digits(whole) && is_digits(fraction) && text.len() <= 18 && (whole == "0" || !whole.starts_with('0'))
}

#[cfg(test)]
mod tests;
