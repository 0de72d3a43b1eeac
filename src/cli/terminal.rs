//! What the commands print, and what they read from standard input.

use std::io::{IsTerminal, Read, Write};

use crate::wire::{Value, value};

/// Prints an answer for a person or for a program.
pub(super) fn say(json: bool, answer: &Value, text: &str) {
    let line = if json { value::to_json(answer).to_string() } else { text.to_owned() };
    // Whoever reads may be gone; then there is nobody to print for.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// All of standard input, for `exec -`.
pub(super) fn standard_input() -> std::io::Result<String> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        eprintln!("reading code from the terminal; end with ^D");
    }
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
