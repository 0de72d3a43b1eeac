//! From whole command lines to what is to be done.

use clap::builder::Resettable;

use super::*;

/// A whole command line.
pub(super) fn args(line: &[&str]) -> Vec<OsString> {
    ["backendai-agent"].iter().chain(line).map(OsString::from).collect()
}

/// The command line without this process's environment.
pub(super) fn hermetic(args: &[OsString]) -> clap::Command {
    fn without_variables(command: clap::Command) -> clap::Command {
        command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(without_variables)
    }
    without_variables(options::command(args))
}

/// No file of settings is there.
pub(super) fn no_file(_: &std::path::Path) -> std::io::Result<String> {
    Err(std::io::ErrorKind::NotFound.into())
}

fn parsed(line: &[&str]) -> Result<Command, Refusal> {
    let args = args(line);
    read(hermetic(&args), &args, &no_file)
}

fn shown(line: &[&str]) -> String {
    let command = parsed(line).unwrap();
    format!("{command:?}")
}

#[test]
fn the_command_line_is_sound() {
    options::command(&args(&[])).debug_assert();
    options::command(&args(&["run"])).debug_assert();
}

#[test]
fn without_a_command_the_agent_runs() {
    let root = tempfile::TempDir::new().unwrap();
    let root = root.path().to_str().unwrap();
    assert!(matches!(parsed(&["--scratch-root", root]), Ok(Command::Run(_))));
    assert!(matches!(parsed(&["run", "--scratch-root", root, "-v"]), Ok(Command::Run(_))));
    assert!(matches!(parsed(&["check", "--scratch-root", root]), Ok(Command::Check(..))));
}

#[test]
fn one_report_tells_of_values_and_paths() {
    let refusal = parsed(&["--scratch-root", "/nowhere/at/all", "--agent-port", "x"]).unwrap_err();
    let text = refusal.to_string();
    assert!(text.starts_with("2 settings are wrong:\n  --agent-port: \"x\""), "{text}");
    assert!(text.contains("\n  --scratch-root: \"/nowhere/at/all\": does not exist"), "{text}");
    assert_eq!(refusal.show(), Exit::Usage);
}

#[test]
fn help_and_version_are_no_failure() {
    for line in [["--help"], ["--version"]] {
        let Err(Refusal::Usage(error)) = parsed(&line) else { panic!("{line:?}") };
        assert!(!error.use_stderr());
    }
    for line in [vec!["--nonsense"], vec!["exec"], vec!["reset"]] {
        let Err(Refusal::Usage(error)) = parsed(&line) else { panic!("{line:?}") };
        assert!(error.use_stderr(), "{line:?}");
    }
}

#[test]
fn client_commands() {
    let kernel = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10";
    let create = shown(&[
        "create",
        "--lang",
        "python:3.6-debian",
        "--env",
        "A=b=c",
        "--mount",
        "data:local:0123:4",
        "--cpu",
        "0.5",
        "--agent",
        "tcp://h:1",
        "--timeout",
        "2m",
    ]);
    for part in [
        "host: \"h\", port: 1",
        "timeout: Some(120s)",
        "mem: 256, cpu: Cores(0.5), gpu: Gpus(0.0)",
        "name: \"A\", value: \"b=c\"",
        "name: \"data\", host: \"local\", id: \"0123:4\"",
    ] {
        assert!(create.contains(part), "{part} is not in {create}");
    }
    let exec = shown(&["exec", kernel, "-", "--input", "1", "--input", "-2", "--api-version", "2"]);
    assert!(exec.contains("code: Some(\"-\")") && exec.contains("inputs: [\"1\", \"-2\"]"), "{exec}");
    assert!(shown(&["exec", kernel, "print(1)"]).contains("api_version: 3"));
    assert!(shown(&["events", "--bind", "tcp://h:5002", "--count", "2"]).contains("port: 5002"));
    assert!(shown(&["ping", "--agent", "h:1"]).contains("host: \"h\", port: 1"), "tcp:// is optional");
    assert!(shown(&["attach", kernel, "r-1"]).contains("r-1"));
    assert!(shown(&["upload", kernel, "a.txt", "--as", "d/b.txt"]).contains("Some(\"d/b.txt\")"));
    for line in [
        vec!["create"],
        vec!["create", "--lang", "x", "--env", "=1"],
        vec!["create", "--lang", "x", "--mount", "a:b"],
        vec!["create", "--lang", "x", "--cpu", "0"],
        vec!["create", "--lang", "x", "--gpu", "nan"],
        vec!["exec", kernel, "1", "--api-version", "4"],
        vec!["ping", "--count", "0"],
        vec!["ping", "--agent", "http://h:1"],
        vec!["attach", kernel],
    ] {
        assert!(parsed(&line).is_err(), "{line:?}");
    }
}
