//! The binary: parses, runs, exits.

use std::process::ExitCode;

use backendai_agent::cli;

fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os()) {
        Ok(command) => cli::run(command),
        Err(refusal) => refusal.show(),
    };
    exit.into()
}
