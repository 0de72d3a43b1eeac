//! Secrets from files, and what systemd hands over.

use std::fs;

use super::super::tests::{args, hermetic};
use super::super::{Command, read};
use super::*;
use crate::agent::config::Config;

fn config(line: &[String]) -> Result<Config, String> {
    let args = args(&line.iter().map(String::as_str).collect::<Vec<_>>());
    match read(hermetic(&args), &args, &|_| Err(std::io::ErrorKind::NotFound.into())) {
        Ok(Command::Run(settings)) => Ok(settings.config),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.to_string()),
    }
}

/// A directory with these files.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn secrets_come_from_files_unless_they_are_given() {
    let dir = files(&[("p", "hunter2\n"), ("id", "AKID"), ("key", "k\r\n"), ("dsn", "https://k@h/1\n")]);
    let option = |name: &str, file: &str| format!("--{name}={}", dir.path().join(file).display());
    let line = [
        "--etcd-user=me".to_owned(),
        option("etcd-password-file", "p"),
        "--redis-password=given".to_owned(),
        option("redis-password-file", "p"),
        option("aws-access-key-id-file", "id"),
        option("aws-secret-access-key-file", "key"),
        option("raven-uri-file", "dsn"),
    ];
    let config = config(&line).unwrap();
    let (user, password) = config.cluster.access.user.clone().unwrap();
    assert_eq!((user.as_str(), password.expose().as_str()), ("me", "hunter2"));
    assert_eq!(config.redis.password.as_ref().unwrap().expose(), "given");
    let keys = &config.s3.as_ref().unwrap().keys;
    assert_eq!((keys.access_key.expose().as_str(), keys.secret_key.expose().as_str()), ("AKID", "k"));
    assert!(config.telemetry.sentry.is_some());
    let shown = format!("{config:?}");
    assert!(!["hunter2", "given", "AKID"].iter().any(|secret| shown.contains(secret)), "{shown}");
}

#[test]
fn what_is_wrong_with_a_file_is_told_and_not_what_it_holds() {
    let dir = files(&[("two", "hunter2\nhunter3\n"), ("dsn", "hunter2"), ("pem", "hunter2")]);
    let option = |name: &str, file: &str| format!("--{name}={}", dir.path().join(file).display());
    let error = config(&[
        option("redis-password-file", "two"),
        option("aws-session-token-file", "none"),
        option("raven-uri-file", "dsn"),
        option("redis-ca", "pem"),
    ])
    .unwrap_err();
    for words in
        ["4 settings are wrong", "on one line", "can't be read", "not a Sentry DSN", "no file in PEM form"]
    {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("hunter"), "{error}");
    let half = config(&["--etcd-user=me".to_owned()]).unwrap();
    assert!(half.cluster.access.user.is_none() && half.warnings[0].contains("--etcd-user"));
}

#[test]
fn certificates_are_files_that_belong_together() {
    let dir = files(&[("ca", "-----BEGIN CERTIFICATE-----"), ("key", "-----BEGIN PRIVATE KEY-----")]);
    let option = |name: &str, file: &str| format!("--{name}={}", dir.path().join(file).display());
    let all = [option("etcd-ca", "ca"), option("etcd-cert", "ca"), option("etcd-key", "key")];
    let tls = config(&all).unwrap().cluster.access.tls.unwrap();
    assert_eq!((tls.ca, tls.client.unwrap().key), (dir.path().join("ca"), dir.path().join("key")));
    assert!(config(&all[..1]).unwrap().cluster.access.tls.unwrap().client.is_none());
    for missing in 0..3 {
        let mut line = all.to_vec();
        line.remove(missing);
        assert!(config(&line).is_err(), "{line:?}");
    }
}

#[test]
fn credentials_of_systemd_stand_behind_options_and_variables() {
    let dir = files(&[("etcd-password", "x"), ("redis-ca", "x"), ("docker-config", "x"), ("other", "x")]);
    let found = |line: &[&str], set: &[&str]| -> Vec<String> {
        let found = credentials(dir.path(), &args(line), |option| set.contains(&option));
        let cut = format!("={}/", dir.path().display());
        found.into_iter().map(|argument| argument.to_str().unwrap().replace(&cut, " ")).collect()
    };
    let all = ["--etcd-password-file etcd-password", "--redis-ca redis-ca", "--docker-config docker-config"];
    assert_eq!(found(&[], &[]), all);
    assert_eq!(found(&["--etcd-password", "y", "--redis-ca=z"], &[]), all[2..]);
    assert_eq!(found(&[], &["etcd-password-file", "docker-config"]), all[1..2]);
}
