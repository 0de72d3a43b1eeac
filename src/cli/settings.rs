//! Flags, then the environment, then the file, then the defaults; and every bad value in one report. The command line's
//! library knows no files: what the file says, and nobody before it, is put behind the line as if it had been typed.
//! The library also stops at the first bad value, so it is asked again, with the setting in question taking anything,
//! until all is read.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::{FalseyValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::file::{self, Entry, SettingsFile, Value};
use super::report::{ConfigErrors, Origin, Problem, Refusal, Shown};
use super::{inventory, options};

/// What was typed, set and written, before its types.
#[derive(Debug)]
pub(super) struct Reading {
    /// As the library has it; what comes from the file looks typed.
    pub(super) matches: ArgMatches,
    /// The command that it belongs to.
    pub(super) command: Command,
    /// What the file decided.
    pub(super) from_file: Vec<Entry>,
    /// The file that was read; `None` where the default isn't there, and for commands without settings.
    pub(super) file: Option<PathBuf>,
}

/// Reads a file, for [`read`].
pub(super) type Load<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// A value that its setting does not take.
struct Bad {
    /// The setting as the library shows it: `--agent-port <PORT>`.
    arg: String,
    /// As it was given.
    value: String,
    /// What the setting says of it.
    advice: String,
    /// The variable that holds it, where the library does not know.
    variable: Option<String>,
}

/// What was typed, set and written, or all that is wrong with it.
pub(super) fn read(mut command: Command, args: &[OsString], load: Load<'_>) -> Result<Reading, Refusal> {
    // Only then do arguments know how the library shows them.
    command.build();
    let mut bad: Vec<Bad> = Vec::new();
    let mut matches = patiently(&mut command, args, &mut bad)?;
    let (found, file) = match file_of(&command, &matches) {
        Some((path, is_named)) => open(&path, is_named, load),
        None => (SettingsFile::default(), None),
    };
    let mut from_file = found.entries;
    from_file.retain(|entry| is_free(own(&command, &matches).1, &entry.key));
    let typed: Vec<_> = from_file.iter().filter_map(as_typed).collect();
    if !typed.is_empty() {
        matches = patiently(&mut command, &[args, &typed].concat(), &mut bad)?;
    }
    let (own_command, own_matches) = own(&command, &matches);
    let mut problems = report(own_command, own_matches, &from_file, &bad);
    problems.extend(found.problems);
    if problems.is_empty() {
        let command = own_command.clone();
        Ok(Reading { matches, command, from_file, file })
    } else {
        Err(ConfigErrors { problems }.into())
    }
}

/// Asks until all is read; what is bad is added to `bad`, and its setting takes anything from then on.
fn patiently(
    command: &mut Command,
    args: &[OsString],
    bad: &mut Vec<Bad>,
) -> Result<ArgMatches, clap::Error> {
    loop {
        let error = match command.clone().try_get_matches_from(args) {
            Ok(matches) => return Ok(matches),
            Err(error) => error,
        };
        let found = if error.kind() == ErrorKind::InvalidUtf8 { no_text(command) } else { Bad::of(&error) };
        match found {
            Some(found) if bad.iter().all(|known| known.arg != found.arg) => {
                *command = if found.variable.is_some() {
                    without_variables(command.clone(), &|arg| arg.to_string() == found.arg)
                } else {
                    taking_anything(command.clone(), &found.arg)
                };
                bad.push(found);
            }
            _ => return Err(error),
        }
    }
}

/// The subcommand, where there is one.
fn own<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let sub = matches.subcommand().and_then(|(name, sub)| Some((command.find_subcommand(name)?, sub)));
    sub.unwrap_or((command, matches))
}

/// The file of settings, and whether somebody named it; `None` for a command without.
fn file_of(command: &Command, matches: &ArgMatches) -> Option<(PathBuf, bool)> {
    let (command, matches) = own(command, matches);
    command.get_arguments().find(|arg| arg.get_id() == options::FILE)?;
    let path = matches.get_raw(options::FILE)?.next_back()?;
    Some((path.into(), matches.value_source(options::FILE) != Some(ValueSource::DefaultValue)))
}

fn open(path: &Path, is_named: bool, load: Load<'_>) -> (SettingsFile, Option<PathBuf>) {
    match load(path) {
        Ok(text) => (file::read(path, &text, &inventory::settings()), Some(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => (SettingsFile::default(), None),
        Err(error) => {
            let name = format!("--{}", options::FILE);
            let shown = Shown::of(&path.to_string_lossy(), false);
            let advice = format!("cannot be read: {error}");
            let problems = vec![Problem::new(name, Origin::Flag, shown, &advice)];
            (SettingsFile { problems, ..SettingsFile::default() }, None)
        }
    }
}

/// Whether neither a flag nor a variable sets it.
fn is_free(matches: &ArgMatches, key: &str) -> bool {
    // The ids are the fields' names.
    matches!(matches.value_source(&id(key)), None | Some(ValueSource::DefaultValue))
}

/// The id of the setting of this key.
pub(super) fn id(key: &str) -> String {
    key.replace('-', "_")
}

/// `None` where there is no way to type it, which is a switch that is off.
fn as_typed(entry: &Entry) -> Option<OsString> {
    match &entry.value {
        Value::Switch(on) => on.then(|| format!("--{}", entry.key).into()),
        Value::Text(text) => Some(format!("--{}={text}", entry.key).into()),
    }
}

/// Where the value of an argument comes from.
pub(super) fn origin(matches: &ArgMatches, from_file: &[Entry], arg: &Arg) -> Origin {
    if let Some(entry) = from_file.iter().find(|entry| Some(entry.key.as_str()) == arg.get_long()) {
        return Origin::File(entry.place.clone());
    }
    match (matches.value_source(arg.get_id().as_str()), arg.get_env()) {
        (Some(ValueSource::EnvVariable), Some(variable)) => {
            Origin::Env(variable.to_string_lossy().into_owned())
        }
        (Some(ValueSource::CommandLine), _) => Origin::Flag,
        _ => Origin::Default,
    }
}

/// An empty variable counts as not set, as a file of settings with nothing behind a `=` means it.
pub(super) fn without_empty_variables(command: Command) -> Command {
    without_variables(command, &|arg| variable(arg).is_some_and(|value| value.is_empty()))
}

/// Only what other programs read as well counts: where Docker is, and what is to be logged.
pub(super) fn without_own_variables(command: Command) -> Command {
    without_variables(command, &|arg| {
        arg.get_env().is_some_and(|name| !["DOCKER_HOST", "RUST_LOG"].iter().any(|shared| name == *shared))
    })
}

fn without_variables(command: Command, which: &impl Fn(&Arg) -> bool) -> Command {
    command
        .mut_args(|arg| if which(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(|sub| without_variables(sub, which))
}

fn variable(arg: &Arg) -> Option<OsString> {
    arg.get_env().and_then(std::env::var_os)
}

/// A setting whose variable is no text, which the library refuses without a name.
fn no_text(command: &Command) -> Option<Bad> {
    let own = command.get_arguments().find_map(|arg| {
        let value = variable(arg).filter(|value| value.to_str().is_none())?;
        let (value, advice) =
            (value.to_string_lossy().into_owned(), "the variable is no text in UTF-8".to_owned());
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        Some(Bad { arg: arg.to_string(), value, advice, variable })
    });
    own.or_else(|| command.get_subcommands().find_map(no_text))
}

fn taking_anything(command: Command, shown: &str) -> Command {
    let change = |arg: Arg| match arg.get_action() {
        _ if arg.to_string() != shown => arg,
        ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
        _ => arg.value_parser(value_parser!(OsString)),
    };
    command.mut_args(change).mut_subcommands(|sub| taking_anything(sub, shown))
}

impl Bad {
    /// `None` for an error that isn't about a value.
    fn of(error: &clap::Error) -> Option<Self> {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let advice = std::error::Error::source(error)?.to_string();
        let (arg, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
        (error.kind() == ErrorKind::ValueValidation).then_some(Self { arg, value, advice, variable: None })
    }
}

/// In the order of `--help`.
fn report(command: &Command, matches: &ArgMatches, from_file: &[Entry], bad: &[Bad]) -> Vec<Problem> {
    let problem = |arg: &Arg| {
        let Bad { value, advice, variable: found, .. } = bad.iter().find(|bad| bad.arg == arg.to_string())?;
        let name = arg.get_long().map_or_else(|| arg.to_string(), |long| format!("--{long}"));
        let origin = match (found, origin(matches, from_file, arg)) {
            (Some(variable), _) => Origin::Env(variable.clone()),
            (None, Origin::Default) => Origin::Flag,
            (None, origin) => origin,
        };
        let name =
            if matches!(origin, Origin::File(_)) { name.trim_start_matches('-').to_owned() } else { name };
        Some(Problem::new(name, origin, Shown::of(value, arg.is_hide_env_values_set()), advice))
    };
    command.get_arguments().filter_map(problem).collect()
}

#[cfg(test)]
mod tests;
