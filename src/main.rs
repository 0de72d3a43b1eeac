//! The binary: parses, runs, exits.

use std::process::ExitCode;

use backendai_agent::cli;

fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let exit = match cli::parse(std::env::args_os(), &env) {
        Ok(command) => cli::run(command),
        Err(refusal) => refusal.show(),
    };
    exit.into()
}
