//! `docs/configuration.md` has a table of all settings, made from their definition; here is where it is made and compared.

use std::fmt::Write;
use std::fs;

use super::super::reload::CHANGEABLE;
use super::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const BEGIN: &str = "<!-- made from the code: do not edit below -->\n";
const END: &str = "<!-- made from the code: edit again from here on -->\n";
/// Set, it writes the table instead of complaining.
const UPDATE: &str = "UPDATE_DOCS";

fn table() -> String {
    let mut text = String::new();
    let settings = settings();
    for (at, setting) in settings.iter().enumerate() {
        if at == 0 || settings[at - 1].section != setting.section {
            let _ = write!(text, "\n### {}\n\n", setting.section);
            text += "| key of the file; flag with `--` | environment | default | what it is |\n| --- | --- | --- | --- |\n";
        }
        let Setting { key, variable, help, shape, default, form, is_secret, .. } = setting;
        let shape = if *form == Form::Switch { "`true` or `false`".to_owned() } else { format!("`{shape}`") };
        let default = match default {
            _ if *form == Form::Switch => "`false`".to_owned(),
            Some(text) => format!("`{text}`"),
            None => "not set".to_owned(),
        };
        let secret = if *is_secret { ". Secret: never shown" } else { "" };
        let reloaded = if CHANGEABLE.contains(&key.as_str()) { ". SIGHUP reloads it" } else { "" };
        let help = help.replace('|', "\\|").replace('\n', " ");
        let variable = variable.as_deref().unwrap_or_default();
        let _ = writeln!(text, "| `{key}` {shape} | `{variable}` | {default} | {help}{secret}{reloaded} |");
    }
    text + "\n"
}

#[test]
fn the_reference_of_settings_is_what_the_code_says() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("docs/configuration.md lacks its mark");
    let (found, after) = rest.split_once(END).expect("docs/configuration.md lacks its second mark");
    let table = table();
    if found != table {
        if std::env::var_os(UPDATE).is_some() {
            fs::write(DOCUMENT, [before, BEGIN, &table, END, after].concat()).unwrap();
            return;
        }
        panic!("docs/configuration.md is old: run `{UPDATE}=1 cargo test --lib the_reference_of_settings`");
    }
}
