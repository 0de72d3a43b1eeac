//! Reports of what is wrong.

use super::super::options;
use super::super::tests::{args, hermetic, no_file};
use super::*;

fn report(line: &[&str]) -> String {
    let args = args(line);
    match read(hermetic(&args), &args, &no_file) {
        Err(Refusal::Settings(errors)) => errors.to_string(),
        other => panic!("{line:?}: {other:?}"),
    }
}

/// The report of a line and a file.
fn report_of_file(line: &[&str], file: &str) -> String {
    let args = args(&[&["--config", "/etc/x.toml"], line].concat());
    match read(hermetic(&args), &args, &|_| Ok(file.to_owned())) {
        Err(Refusal::Settings(errors)) => errors.to_string(),
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_bad_values_of_a_file_are_in_the_same_report() {
    let file = "agent-port = 70000\nnamespace = \"a/b\"\nregoin = \"x\"\nidle-timeout = true\n\
                raven-uri = \"https://secretkey/1\"\n";
    let report = report_of_file(&["--shm-size", "120%", "--namespace", "good"], file);
    assert_eq!(
        report,
        "5 settings are wrong:\n  \
         agent-port (line 1 of /etc/x.toml): \"70000\": give a port from 1 to 65535\n  \
         --shm-size: \"120%\": give MiB such as 256, or a part of a kernel's memory such as 50%\n  \
         raven-uri (line 5 of /etc/x.toml): (not shown): "
            .to_owned()
            + report.split("(not shown): ").nth(1).unwrap()
    );
    assert!(
        report.contains("\n  regoin (line 3 of /etc/x.toml): is no setting; did you mean region?"),
        "{report}"
    );
    assert!(
        report
            .contains("\n  idle-timeout (line 4 of /etc/x.toml): is true or false; give a text or a number")
    );
    assert!(
        !report.contains("secretkey") && !report.contains("a/b"),
        "a flag is there in its place: {report}"
    );
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let args = args(&["--config", "/nowhere/agent.toml"]);
    let refusal = read(hermetic(&args), &args, &no_file).unwrap_err().to_string();
    assert!(refusal.contains("--config: \"/nowhere/agent.toml\": cannot be read: "), "{refusal}");
}

#[test]
fn everything_that_is_wrong_is_reported_at_once_and_no_secret() {
    let line = [
        ("--namespace", "a/b"),
        ("--etcd-addr", "etcd,10.0.0.1:2379"),
        ("--agent-port", "70000"),
        ("--rpc-listen", "manager"),
        ("--trusted-peers", "10.0.0.0/24,10.0.0.0/33"),
        ("--instance-id", "i 1"),
        ("--idle-timeout", "-1"),
        ("--docker-host", "http://x"),
        ("--kernel-network", "host"),
        ("--kernel-pids-limit", "many"),
        ("--reserved-cpus", "0-x"),
        ("--limit-cpus", "0x0"),
        ("--limit-gpus", "gpu-1"),
        ("--reserved-memory", "-1"),
        ("--shm-size", "120%"),
        ("--s3-prefix", "a//b"),
        ("--s3-url-expiry", "8d"),
        ("--aws-secret-access-key", "secretkey\n"),
        ("--log-file-size", "big"),
        ("--log-file-count", "1001"),
        ("--log-filter", "a=loud"),
        ("--scratch-root", ""),
        ("--heartbeat-interval", "6"),
        ("--metrics-addr", "localhost"),
        ("--raven-uri", "https://secretkey/1"),
        ("--s3-endpoint", "http://me:secretkey@h"),
        ("--debug-kernel", "/nowhere/ai/backend/kernel"),
    ];
    let line: Vec<&str> = line.iter().flat_map(|(flag, value)| [*flag, *value]).collect();
    let alone = report(&line);
    assert!(!alone.contains("secretkey"));
    insta::assert_snapshot!(alone);
    assert_eq!(report(&[&["run"], &line[..]].concat()), alone, "also with the command");
}

#[test]
fn a_wrong_flag_is_told_though_values_are_wrong() {
    let args = args(&["--agent-port", "x", "--nonsense"]);
    assert!(matches!(read(hermetic(&args), &args, &no_file), Err(Refusal::Usage(_))));
}

#[test]
fn the_arguments_of_other_commands_are_reported_likewise() {
    let text = report(&["exec", "nobody", "--run-id", " ", "--agent", "h"]);
    assert!(text.starts_with("3 settings are wrong:\n  <KERNEL>: \"nobody\": "), "{text}");
    assert!(text.contains("\n  --agent: \"h\": give HOST:PORT"), "{text}");
}

#[test]
fn a_long_value_is_cut_and_odd_bytes_are_shown_as_such() {
    let report = report(&["--region", &"é\n".repeat(100)]);
    assert!(report.contains(&format!("{:?}…", "é\n".repeat(40))), "{report}");
}

#[test]
fn the_help_names_every_flag_variable_and_default() {
    let args = args(&["--help"]);
    let help = options::command(&args).try_get_matches_from(&args).unwrap_err().to_string();
    assert!(help.starts_with("Runs the kernels"), "{help}");
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for arg in options::command(&args).get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        assert!(words.contains(&format!("--{long}")), "{long}");
        if let Some(variable) = arg.get_env() {
            assert!(words.contains(&format!("[env: {}", variable.display())), "{}", variable.display());
        }
        for default in arg.get_default_values().iter().filter(|_| long != "help" && long != "version") {
            let default = default.display().to_string();
            let is_switch = default == "false";
            assert!(is_switch || words.contains(&format!("[default: {default}]")), "{long} {default}");
        }
    }
}
