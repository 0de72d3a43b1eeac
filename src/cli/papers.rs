//! `completions` and `man`: what a package installs beside the binary, made by the binary itself, so that it is always of
//! the version that runs.

use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::client_options::{CompletionsArgs, ManArgs};
use super::{Exit, options, terminal};

const PROGRAM: &str = "backendai-agent";

/// The section of manuals for what runs a machine.
const SECTION: &str = "8";

/// Prints a script of completions.
pub(super) fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut whole(), PROGRAM, &mut script);
    terminal::print(&repaired(&String::from_utf8_lossy(&script)));
    Exit::Done
}

/// The library's script for bash has two names for a program with a dash in its own, so that no option of a command is ever
/// completed (<https://github.com/clap-rs/clap/issues/6421>). In other scripts neither name occurs.
fn repaired(script: &str) -> String {
    script.replace(&PROGRAM.replace('-', "__subcmd__"), &PROGRAM.replace('-', "__"))
}

/// Writes a page for the agent and one for each of its commands.
pub(super) fn man(args: &ManArgs) -> Exit {
    let directory = &args.directory;
    match pages(directory) {
        Ok(()) => Exit::Done,
        Err(error) => {
            terminal::complain(&format!("could not write the pages to {}: {error}", directory.display()));
            Exit::Failed
        }
    }
}

fn pages(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let agent = whole();
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    for command in agent.get_subcommands().filter(shown) {
        page(command, directory)?;
    }
    page(&agent, directory)
}

fn page(command: &Command, directory: &Path) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    // No date: the same version makes the same page.
    let mut text = Vec::new();
    Man::new(command.clone()).section(SECTION).render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.{SECTION}")), text)
}

/// The command line with everything in it, built, so that it knows its own names.
fn whole() -> Command {
    let mut command = options::command(&[]);
    command.build();
    command
}
