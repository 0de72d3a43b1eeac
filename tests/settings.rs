//! Settings from the environment, as the process itself reads them; what they mean is tested in `src/cli`.

// Helpers of an integration test may unwrap like the tests themselves.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// What `check` says of the settings that it was given, and its exit code. Nothing that it looks for need be there.
fn check(args: &[&str], variables: &[(&str, impl AsRef<OsStr>)]) -> (String, Option<i32>) {
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
    // A file of settings that this machine has is none of the test's.
    command.env_clear().env("BACKEND_CONFIG", "/dev/null").arg("check").args(args);
    command.args(["--docker-host", "unix:///nowhere/docker.sock", "--scratch-root"]).arg(root.path());
    let output = command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

/// The row of the RPC port names `port`.
fn port_is(port: &str, args: &[&str], variables: &[(&str, &str)]) {
    let (said, _) = check(args, variables);
    let row = said.lines().find(|line| line.contains("RPC port")).unwrap_or_else(|| panic!("{said}"));
    assert!(row.contains(&format!(" {port}: ")), "{args:?} {variables:?}: {row}");
}

#[test]
fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
    port_is("17002", &["--agent-port", "17002"], &[("BACKEND_AGENT_PORT", "17003")]);
    port_is("17003", &[], &[("BACKEND_AGENT_PORT", "17003")]);
    port_is("6001", &[], &[("BACKEND_AGENT_PORT", "")]);
    // A bad variable does no harm where the flag is there.
    port_is("17002", &["--agent-port", "17002"], &[("BACKEND_AGENT_PORT", "x")]);
}

#[test]
fn the_file_is_below_the_environment_and_above_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "agent-port = 17004\ndebug = true\n").unwrap();
    let file = file.to_str().unwrap();
    let named = ("BACKEND_CONFIG", file);
    port_is("17004", &[], &[named]);
    port_is("17004", &["--config", file], &[]);
    port_is("17003", &[], &[named, ("BACKEND_AGENT_PORT", "17003")]);
    port_is("17002", &["--agent-port", "17002"], &[named, ("BACKEND_AGENT_PORT", "17003")]);
    port_is("17004", &[], &[named, ("BACKEND_AGENT_PORT", "")]);

    let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
    command.env_clear().envs([named, ("BACKEND_DEBUG", "no"), ("AWS_SESSION_TOKEN", "secretkey")]);
    let output = command.args(["config", "--namespace", "prod"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let origin = |setting: &str| {
        let line = said.lines().find(|line| line.starts_with(setting)).unwrap_or_else(|| panic!("{said}"));
        line.rsplit_once(" # ").unwrap().1
    };
    assert_eq!(origin("namespace = \"prod\""), "flag");
    assert_eq!(origin("agent-port = 17004"), format!("line 1 of {file}"));
    assert_eq!(origin("debug = false"), "BACKEND_DEBUG in the environment");
    assert_eq!(origin("# aws-session-token is set and not shown"), "AWS_SESSION_TOKEN in the environment");
    assert_eq!(origin("kernel-pids-limit = 16384"), "default");
    assert!(!said.contains("secretkey"), "{said}");
}

#[test]
fn a_bad_file_stops_everything_with_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "agent-prot = 1\n\nidle-timeout = \"soon\"\n").unwrap();
    let file = file.to_str().unwrap();
    let (said, code) = check(&["--config", file], &[("BACKEND_ADOPT", "maybe")]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("backendai-agent: 3 settings are wrong:\n"), "{said}");
    for line in [
        format!("agent-prot (line 1 of {file}): is no setting; did you mean agent-port?"),
        format!("idle-timeout (line 3 of {file}): \"soon\": give a time"),
        "--adopt (from BACKEND_ADOPT in the environment): \"maybe\": ".to_owned(),
    ] {
        assert!(said.contains(&format!("\n  {line}")), "{line} is not in {said}");
    }
}

#[test]
fn several_members_of_etcd_may_stand_in_the_variable() {
    let (said, _) = check(&[], &[("BACKEND_ETCD_ADDR", "127.0.0.1:9,[::1]:9")]);
    assert!(said.contains("127.0.0.1:9") && said.contains("[::1]:9"), "{said}");
}

#[test]
fn bad_variables_are_reported_at_once_with_their_names_and_no_secret() {
    let variables = [
        ("BACKEND_INSTANCE_ID", "i 1"),
        ("BACKEND_DEBUG", "maybe"),
        ("RUST_LOG", "a=loud"),
        ("AWS_SECRET_ACCESS_KEY", "secretkey\n"),
        ("RAVEN_URI", "https://secretkey/1"),
        ("BACKEND_METRICS_ADDR", "localhost"),
        // Empty and good ones among them.
        ("BACKEND_ADOPT", ""),
        ("BACKEND_VERBOSE", "YES"),
        ("BACKEND_STOP_KERNELS_ON_EXIT", "0"),
    ];
    let (said, code) = check(&["--agent-port", "x"], &variables);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("backendai-agent: 7 settings are wrong:\n"), "{said}");
    for (flag, variable) in [
        ("--instance-id", "BACKEND_INSTANCE_ID"),
        ("--debug", "BACKEND_DEBUG"),
        ("--log-filter", "RUST_LOG"),
        ("--aws-secret-access-key", "AWS_SECRET_ACCESS_KEY"),
        ("--raven-uri", "RAVEN_URI"),
        ("--metrics-addr", "BACKEND_METRICS_ADDR"),
    ] {
        assert!(said.contains(&format!("\n  {flag} (from {variable} in the environment): ")), "{said}");
    }
    assert!(said.contains("\n  --agent-port: \"x\": "), "{said}");
    assert!(!said.contains("secretkey"), "{said}");
}

#[test]
fn a_variable_that_is_no_text_is_refused_by_name() {
    for variable in ["BACKEND_NAMESPACE", "BACKEND_ETCD_ADDR", "BACKEND_DEBUG", "AWS_SESSION_TOKEN"] {
        let (said, code) = check(&[], &[(variable, OsStr::from_bytes(b"pr\xf6d"))]);
        assert_eq!(code, Some(2), "{variable}: {said}");
        assert!(said.contains(variable), "{variable}: {said}");
    }
}

#[test]
fn a_misspelt_variable_is_warned_of_with_the_nearest_name() {
    let (said, code) = check(&[], &[("BACKEND_NAMESPAEC", "secretkey")]);
    assert_eq!(code, Some(1), "Docker is not there: {said}");
    let row = said.lines().find(|line| line.contains("settings")).unwrap_or_else(|| panic!("{said}"));
    assert!(row.contains("\"BACKEND_NAMESPAEC\"") && row.ends_with("BACKEND_NAMESPACE"), "{said}");
    assert!(!said.contains("secretkey"), "{said}");
}

#[test]
fn the_agents_variables_are_nothing_to_the_other_commands() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
    let arguments = ["ping", "--timeout", "100ms"];
    command.env_clear().env("BACKEND_AGENT_PORT", "x").env("BACKENDAI_AGENT", "tcp://127.0.0.1:9");
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("127.0.0.1:9"), "{said}");
}

#[test]
fn config_says_beside_the_settings_which_variable_sets_none() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
    command.env_clear().envs([("BACKEND_CONFIG", "/dev/null"), ("BACKEND_AGENT_PROT", "17005")]);
    let output = command.args(["config", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("nothing else is among it");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("BACKEND_AGENT_PROT") && said.contains("BACKEND_AGENT_PORT"), "{said}");
}
