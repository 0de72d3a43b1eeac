//! Every bad value in one report. The command line's library stops at the first, so it is asked again, with the
//! setting in question taking anything, until all is read.

use std::ffi::OsString;

use clap::builder::{FalseyValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::report::{ConfigErrors, Origin, Problem, Refusal};

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

/// What was typed, or all that is wrong with it.
pub(super) fn read(mut command: Command, args: &[OsString]) -> Result<ArgMatches, Refusal> {
    // Only then do arguments know how the library shows them.
    command.build();
    let mut bad: Vec<Bad> = Vec::new();
    loop {
        let error = match command.clone().try_get_matches_from(args) {
            Ok(matches) if bad.is_empty() => return Ok(matches),
            Ok(matches) => return Err(report(&command, &matches, &bad).into()),
            Err(error) => error,
        };
        let found = if error.kind() == ErrorKind::InvalidUtf8 { no_text(&command) } else { Bad::of(&error) };
        match found {
            Some(found) if bad.iter().all(|known| known.arg != found.arg) => {
                command = if found.variable.is_some() {
                    without_variables(command, &|arg| arg.to_string() == found.arg)
                } else {
                    taking_anything(command, &found.arg)
                };
                bad.push(found);
            }
            _ => return Err(error.into()),
        }
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

fn report(command: &Command, matches: &ArgMatches, bad: &[Bad]) -> ConfigErrors {
    let sub = matches.subcommand().and_then(|(name, sub)| Some((command.find_subcommand(name)?, sub)));
    let (command, matches) = sub.unwrap_or((command, matches));
    // In the order of `--help`.
    let problems = command.get_arguments().filter_map(|arg| {
        let Bad { value, advice, variable: found, .. } = bad.iter().find(|bad| bad.arg == arg.to_string())?;
        let name = arg.get_long().map_or_else(|| arg.to_string(), |long| format!("--{long}"));
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        let origin = match (matches.value_source(arg.get_id().as_str()), variable, found) {
            (_, _, Some(variable)) => Origin::Env(variable.clone()),
            (Some(ValueSource::EnvVariable), Some(variable), None) => Origin::Env(variable),
            _ => Origin::Flag,
        };
        Some(Problem::new(name, origin, value, arg.is_hide_env_values_set(), advice))
    });
    ConfigErrors { problems: problems.collect() }
}

#[cfg(test)]
mod tests;
