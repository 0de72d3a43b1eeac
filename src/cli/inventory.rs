//! Every setting of the agent: read off the definition of the command line, so that a new flag is a key of the file and a
//! line of the reference without a word more. Pure.

use clap::{Arg, ArgAction, Args};

use super::options::{AgentOpts, FILE};

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The long flag without its dashes; the key of the file.
    pub(super) key: String,
    /// The environment variable; each has one (a test).
    pub(super) variable: Option<String>,
    /// What `--help` groups it under.
    pub(super) section: String,
    /// What `--help` says.
    pub(super) help: String,
    /// The form of its value, `PORT`; empty for switches.
    pub(super) shape: String,
    /// As it would be typed; `None` where nothing is set by default.
    pub(super) default: Option<String>,
    pub(super) form: Form,
    /// Its value is never shown.
    pub(super) is_secret: bool,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// On or off.
    Switch,
    /// One text.
    One,
    /// Several, in the command line with commas between them.
    List,
}

/// All of them, in the order of `--help`.
pub(super) fn settings() -> Vec<Setting> {
    let mut command = AgentOpts::augment_args(clap::Command::new("backendai-agent")).disable_help_flag(true);
    command.build();
    command.get_arguments().filter_map(Setting::of).collect()
}

impl Setting {
    fn of(arg: &Arg) -> Option<Self> {
        let key = arg.get_long().filter(|long| *long != FILE)?.to_owned();
        let form = match arg.get_action() {
            ArgAction::SetTrue => Form::Switch,
            _ if arg.get_value_delimiter().is_some() => Form::List,
            _ => Form::One,
        };
        let defaults = arg.get_default_values().iter().map(|text| text.to_string_lossy().into_owned());
        let shape = arg.get_value_names().and_then(<[_]>::first).filter(|_| form != Form::Switch);
        Some(Self {
            variable: arg.get_env().map(|name| name.to_string_lossy().into_owned()),
            section: arg.get_help_heading().unwrap_or_default().to_owned(),
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
            shape: shape.map(ToString::to_string).unwrap_or_default(),
            default: defaults.reduce(|all, one| format!("{all},{one}")).filter(|_| form != Form::Switch),
            form,
            is_secret: arg.is_hide_env_values_set(),
            key,
        })
    }
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_setting_has_a_key_a_variable_and_a_word_of_help_of_its_own() {
        let settings = settings();
        assert!(settings.len() > 40, "{}", settings.len());
        let (mut keys, mut variables) = (HashSet::new(), HashSet::new());
        for setting in &settings {
            let variable =
                setting.variable.as_deref().unwrap_or_else(|| panic!("{} has no variable", setting.key));
            assert!(keys.insert(setting.key.as_str()), "{} is there twice", setting.key);
            assert!(variables.insert(variable), "{variable} is there twice");
            assert!(!setting.help.is_empty() && !setting.section.is_empty(), "{}", setting.key);
            let is_bare = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(setting.key.chars().all(is_bare), "{} would need quotes in the file", setting.key);
        }
        // `settings` asks for a setting's value by its key.
        let command = AgentOpts::augment_args(clap::Command::new("x"));
        for arg in command.get_arguments() {
            assert_eq!(Some(arg.get_id().as_str().replace('_', "-").as_str()), arg.get_long());
        }
        // Fields without a flag would have no key.
        assert_eq!(command.get_arguments().count(), settings.len() + 1, "all but --{FILE}");
    }
}
