//! Tables of what operators type. The environment is always made up.

use clap::Parser;

use super::super::options::Opts;
use super::super::settings::ALL;
use super::*;

const CWD: &str = "/here";

fn reading(args: &[&str], vars: &[(&str, &str)]) -> Reading {
    let opts = Opts::try_parse_from([&["backendai-agent"], args].concat()).unwrap();
    let env = |name: &str| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| (*value).to_owned());
    read(&opts.agent, &env, Path::new(CWD))
}

fn config(args: &[&str], vars: &[(&str, &str)]) -> Config {
    reading(args, vars).config.unwrap()
}

/// Arguments, variables, and what they come to.
type Case<'a, T> = (&'a [&'a str], &'a [(&'a str, &'a str)], T);

/// One setting: its value under these arguments and variables.
fn check<T: PartialEq + std::fmt::Debug>(field: fn(&Config) -> T, cases: &[Case<T>]) {
    for (args, vars, expected) in cases {
        assert_eq!(field(&config(args, vars)), *expected, "{args:?} {vars:?}");
    }
}

#[test]
fn with_nothing_given_the_defaults_are_the_references() {
    let config = config(&[], &[]);
    assert_eq!(config.namespace, "local");
    assert_eq!(config.etcd, ["127.0.0.1:2379".parse().unwrap()]);
    assert_eq!(config.agent_port, 6001);
    assert_eq!(config.scratch_root, Path::new("/var/cache/scratches"));
    assert_eq!(config.docker_host, "unix:///var/run/docker.sock");
    assert_eq!(config.idle_timeout, Some(Duration::from_secs(600)));
    assert_eq!(config.create_deadline, Some(Duration::from_secs(3)));
    let S3 { region, bucket, prefix, endpoint, acl, url_expiry, .. } = config.s3;
    assert_eq!(
        (region.as_str(), bucket.as_str(), prefix.as_str()),
        ("ap-northeast-1", "codeonweb", "bucket")
    );
    assert_eq!((endpoint, acl, url_expiry), (None, Acl::Private, 7 * DAY));
    assert!(!(config.adopt || config.enforce_exec_timeout));
    assert!(!(config.stop_kernels_on_exit || config.auto_update_images));
    assert_eq!(config.telemetry.verbosity, Verbosity::Normal);
    assert!(config.telemetry.log_file.is_none() && config.telemetry.sentry.is_none());
    assert_eq!(
        [config.heartbeat_interval, config.stats_interval, config.reconcile_interval],
        [3, 5, 10].map(Duration::from_secs)
    );
}

#[test]
fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
    check(
        |config| config.agent_port,
        &[
            (&["--agent-port", "7000"], &[("BACKEND_AGENT_PORT", "8000")], 7000),
            (&[], &[("BACKEND_AGENT_PORT", "8000")], 8000),
            (&[], &[("BACKEND_AGENT_PORT", "")], 6001),
            // A bad variable does no harm where the flag is there.
            (&["--agent-port", "7000"], &[("BACKEND_AGENT_PORT", "x")], 7000),
        ],
    );
}

#[test]
fn switches_follow_the_reference() {
    check(
        |config| config.telemetry.verbosity,
        &[
            (&["--debug"], &[], Verbosity::Debug),
            (&["--debug"], &[("BACKEND_DEBUG", "no")], Verbosity::Debug),
            (&[], &[("BACKEND_DEBUG", "YES")], Verbosity::Debug),
            (&[], &[("BACKEND_DEBUG", "false")], Verbosity::Normal),
            (&["-v"], &[], Verbosity::Verbose),
            (&[], &[("BACKEND_VERBOSE", "1"), ("BACKEND_DEBUG", "1")], Verbosity::Verbose),
        ],
    );
    check(|config| config.adopt, &[(&[], &[("BACKEND_ADOPT", "1")], true), (&["--adopt"], &[], true)]);
}

#[test]
fn zero_switches_time_limits_off() {
    check(
        |config| (config.idle_timeout, config.create_deadline),
        &[
            (&["--idle-timeout", "0", "--create-deadline", "0"], &[], (None, None)),
            (
                &["--idle-timeout", "10m", "--create-deadline", "500ms"],
                &[],
                (Some(Duration::from_secs(600)), Some(Duration::from_millis(500))),
            ),
        ],
    );
}

#[test]
fn log_files_and_when_they_are_full() {
    let mib = |count: u64, keep| NonZeroU64::new(count << 20).map(|max_bytes| Rotation { max_bytes, keep });
    let file = |path: &str, rotation| Some(LogFile { path: path.into(), rotation });
    check(
        |config| config.telemetry.log_file.clone(),
        &[
            (&["--log-file-size", "1"], &[], None),
            (&["--log-file", "/a/b.log"], &[], file("/a/b.log", mib(10, 10))),
            (&["--log-file", "b.log"], &[], file("/here/b.log", mib(10, 10))),
            (&[], &[("BACKEND_LOG_FILE", "/l"), ("BACKEND_LOG_FILE_SIZE", "2.0")], file("/l", mib(2, 10))),
            (&["--log-file", "/l", "--log-file-count", "3"], &[], file("/l", mib(10, 3))),
            (&["--log-file", "/l", "--log-file-count", "0"], &[], file("/l", None)),
            (&["--log-file", "/l", "--log-file-size", "0"], &[], file("/l", None)),
        ],
    );
}

#[test]
fn datadog_needs_both_keys_and_s3_both_of_its_own() {
    let both = &[("DATADOG_API_KEY", "a"), ("DATADOG_APP_KEY", "b")];
    check(
        |config| (config.telemetry.statsd.is_some(), config.warnings().len()),
        &[
            (&[], &[], (false, 0)),
            (&[], both, (true, 0)),
            (&["--datadog-api-key", "a"], &[], (false, 1)),
            (&["--kernel-aliases", "aliases.yml"], &[], (false, 1)),
            (&[], &[("AWS_ACCESS_KEY_ID", "a")], (false, 1)),
        ],
    );
}

#[test]
fn paths_are_noted_with_where_they_came_from() {
    let paths = reading(&["--debug-kernel", "k"], &[("BACKEND_SCRATCH_ROOT", "/s")]).paths;
    let noted: Vec<_> = paths.iter().map(|p| (p.setting.flag, p.origin, p.path.to_str().unwrap())).collect();
    assert_eq!(
        noted,
        [
            ("--scratch-root", Origin::Env("BACKEND_SCRATCH_ROOT"), "/s"),
            ("--debug-kernel", Origin::Flag, "/here/k"),
        ]
    );
    assert_eq!(reading(&[], &[]).paths[0].origin, Origin::Default);
}

#[test]
fn everything_that_is_wrong_is_reported_at_once_and_no_secret() {
    let args = [
        "--namespace",
        "a/b",
        "--etcd-addr",
        "etcd",
        "--agent-port",
        "70000",
        "--idle-timeout",
        "-1",
        "--docker-host",
        "http://x",
        "--s3-url-expiry",
        "8d",
        "--log-file-size",
        "big",
        "--scratch-root",
        "",
        "--heartbeat-interval",
        "6",
        "--raven-uri",
        "https://secretkey/1",
        "--s3-endpoint",
        "http://me:secretkey@h",
    ];
    let vars = [
        ("BACKEND_INSTANCE_ID", "i 1"),
        ("BACKEND_DEBUG", "maybe"),
        ("RUST_LOG", "a=loud"),
        ("AWS_SECRET_ACCESS_KEY", "secretkey\n"),
        ("BACKEND_METRICS_ADDR", "localhost"),
    ];
    let report = reading(&args, &vars).config.unwrap_err().to_string();
    assert!(!report.contains("secretkey"));
    insta::assert_snapshot!(report);
}

#[test]
fn a_long_value_is_cut_and_odd_bytes_are_shown_as_such() {
    let long = "é\n".repeat(100);
    let report = reading(&["--region", &long], &[]).config.unwrap_err().to_string();
    assert!(report.contains(&format!("{:?}…", "é\n".repeat(40))), "{report}");
}

#[test]
fn the_configuration_shows_no_secret() {
    let vars = [
        ("DATADOG_API_KEY", "secretkey"),
        ("AWS_SECRET_ACCESS_KEY", "secretkey"),
        ("AWS_SESSION_TOKEN", "secretkey"),
        ("RAVEN_URI", "https://secretkey@sentry.io/1"),
    ];
    assert!(!format!("{:?}", config(&[], &vars)).contains("secretkey"));
}

#[test]
fn the_help_names_every_flag_and_variable() {
    let help = Opts::try_parse_from(["backendai-agent", "--help"]).unwrap_err().to_string();
    for setting in ALL {
        assert!(help.contains(setting.flag), "{}", setting.flag);
        if let Some(variable) = setting.env {
            assert!(help.contains(variable), "{variable}");
        }
    }
}

#[test]
fn the_agent_to_talk_to() {
    let check = |flag: Option<&str>, var: Option<&str>, expected: Option<&str>| {
        let env = |_: &str| var.map(str::to_owned);
        let found = target(flag.map(str::to_owned).as_ref(), &env).ok().map(|addr| addr.to_string());
        assert_eq!(found.as_deref(), expected, "{flag:?} {var:?}");
    };
    check(None, None, Some("127.0.0.1:6001"));
    check(None, Some(""), Some("127.0.0.1:6001"));
    check(None, Some("tcp://[::1]:1"), Some("[::1]:1"));
    check(Some("tcp://h:2"), Some("tcp://h:1"), Some("h:2"));
    check(Some("h:2"), None, None);
    check(None, Some("http://h:1"), None);
}
