//! From command lines and files to what comes of them. Variables are read by the real binary, in `tests/settings.rs`.

use std::io;

use super::super::tests::{args, hermetic};
use super::super::{Command, read};
use super::*;

/// What comes of a command line and a file, which is `/etc/x.toml`.
fn effective(line: &[&str], file: &str) -> Effective {
    let args = args(&[&["config", "--config", "/etc/x.toml"], line].concat());
    let load = |path: &Path| if path == Path::new("/etc/x.toml") { Ok(file.to_owned()) } else { Err(gone()) };
    match read(hermetic(&args), &args, &load) {
        Ok(Command::Config(settings, _)) => settings.effective,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn line<'a>(text: &'a str, key: &str) -> &'a str {
    let is_it = |line: &&str| line.trim_start_matches("# ").split(' ').next() == Some(key);
    text.lines().find(is_it).unwrap_or_else(|| panic!("no {key} in {text}"))
}

#[test]
fn each_value_is_told_with_its_origin() {
    let text =
        effective(&["--agent-port", "6002"], "namespace = \"prod\"\nagent-port = 7000\ndebug = true\n");
    let text = text.as_toml();
    for (key, expected) in [
        ("namespace", "namespace = \"prod\"#line 1 of /etc/x.toml"),
        ("agent-port", "agent-port = 6002#flag"),
        ("debug", "debug = true#line 3 of /etc/x.toml"),
        ("verbose", "verbose = false#default"),
        ("etcd-addr", "etcd-addr = [\"127.0.0.1:2379\"]#default"),
        ("instance-id", "# instance-id is not set#default"),
        ("log-file-size", "log-file-size = 10.0#default"),
    ] {
        let (value, origin) = line(&text, key).rsplit_once(" # ").unwrap();
        assert_eq!(format!("{}#{origin}", value.trim_end()), expected);
    }
}

#[test]
fn a_switch_of_the_file_can_be_off() {
    let effective = effective(&[], "debug = false\n");
    assert!(line(&effective.as_toml(), "debug").ends_with("# line 1 of /etc/x.toml"));
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let given = "namespace = \"a\\\"b\"\netcd-addr = [\"a:1\", \"b:2\"]\nreserved-cpus = \"0,2\"\nadopt = true\n\
                 reserved-memory = 2048.5\nregion = \"007\"\n";
    let first = effective(&[], given);
    let again = effective(&[], &first.as_toml());
    assert_eq!(first.differing(&again), Vec::<&str>::new());
    let none = effective(&[], "");
    let differing = first.differing(&none);
    assert_eq!(differing, ["namespace", "etcd-addr", "region", "adopt", "reserved-cpus", "reserved-memory"]);
}

#[test]
fn settings_that_wait_for_a_restart_go_on_to_differ() {
    let old = effective(&[], "namespace = \"a\"\nidle-timeout = 1\n");
    let new = effective(&[], "namespace = \"b\"\nidle-timeout = 2\n");
    let in_effect = old.with(&new, &["idle-timeout"]);
    assert_eq!(in_effect.differing(&new), ["namespace"]);
    assert_eq!(in_effect.differing(&old), ["idle-timeout"]);
}

#[test]
fn no_secret_is_shown() {
    let file = "aws-access-key-id = \"secretkey\"\nraven-uri = \"https://secretkey@sentry.io/1\"\n";
    let effective = effective(&["--datadog-api-key", "secretkey"], file);
    let (toml, json) = (effective.as_toml(), effective.as_json().to_string());
    assert!(!toml.contains("secretkey") && !json.contains("secretkey"), "{toml} {json}");
    assert!(line(&toml, "raven-uri").starts_with("# raven-uri is set and not shown "), "{toml}");
    assert_eq!(effective.secret_in_file(), Some((Path::new("/etc/x.toml"), "aws-access-key-id")));
}

#[test]
fn programs_get_the_same() {
    let json = effective(&["--agent-port", "6002"], "namespace = \"prod\"\n").as_json();
    let one = |key: &str| json.as_array().unwrap().iter().find(|one| one["key"] == key).unwrap().clone();
    let namespace = one("namespace");
    assert_eq!(namespace["value"], "prod");
    assert_eq!(namespace["origin"], json!({"from": "file", "path": "/etc/x.toml", "line": 1}));
    assert_eq!(namespace["variable"], "BACKEND_NAMESPACE");
    assert_eq!(one("agent-port")["origin"]["from"], "flag");
    assert_eq!(one("etcd-addr")["value"], json!(["127.0.0.1:2379"]));
    assert_eq!(one("verbose")["value"], false);
    assert_eq!((&one("region")["is_set"], &one("region")["value"]), (&json!(false), &json!(null)));
}
