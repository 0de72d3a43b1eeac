//! Tables of what operators type. Variables are the library's; `tests/settings.rs` looks at some.

use std::path::{Path, PathBuf};

use super::super::tests::{args, hermetic, no_file};
use super::super::{Command, read};
use super::*;
use crate::rpc;
use crate::scratch::Acl;
use crate::units::Memory;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn config(line: &[&str]) -> Config {
    let args = args(line);
    match read(hermetic(&args), &args, &no_file) {
        Ok(Command::Run(settings)) => settings.config,
        other => panic!("{line:?}: {other:?}"),
    }
}

/// One setting: its value under these arguments.
fn check<T: PartialEq + std::fmt::Debug>(field: fn(&Config) -> T, cases: &[(&[&str], T)]) {
    for (line, expected) in cases {
        assert_eq!(field(&config(line)), *expected, "{line:?}");
    }
}

#[test]
fn with_nothing_given_the_defaults_are_the_references() {
    let config = config(&[]);
    assert_eq!(config.cluster.namespace, "local");
    assert_eq!(config.cluster.endpoints, ["127.0.0.1:2379".parse().unwrap()]);
    assert_eq!(config.agent_port, 6001);
    assert!(config.rpc_listen.is_unspecified() && config.changeable.trusted_peers.is_empty());
    assert_eq!(config.scratch_root, Path::new("/var/cache/scratches"));
    assert_eq!(config.docker.address.to_string(), "unix:///var/run/docker.sock");
    assert_eq!(config.changeable.idle_timeout, None, "the cluster may say");
    assert_eq!(config.kernels.create_deadline, CreateDeadline::AsAsked);
    assert_eq!(config.kernels.pids_limit, Some(16384));
    assert!(config.s3.is_none() && config.metrics_addr.is_none() && config.warnings.is_empty());
    assert!(!(config.kernels.adopt || config.kernels.enforce_exec_timeout));
    let rpc::CallLimits { calls, calls_of_one, bytes, .. } = rpc::CallLimits::default();
    let memory = Memory::from_bytes(bytes);
    assert_eq!(config.rpc, RpcConfig { calls, calls_of_one, memory }, "the server's own bounds");
    assert!(!(config.stop_kernels_on_exit || config.changeable.updates.are_on));
    assert_eq!(config.telemetry.verbosity, Verbosity::Normal);
    assert!(config.telemetry.log_file.is_none() && config.telemetry.sentry.is_none());
    assert_eq!(
        [config.heartbeat_interval, config.stats_interval, config.kernels.reconcile_every],
        [3, 5, 10].map(Duration::from_secs)
    );
}

#[test]
fn kernels_are_hardened_and_not_root_unless_that_is_said() {
    let kernels = |config: &Config| (config.kernels.hardening, config.kernels.uid);
    check(
        kernels,
        &[
            (&[], (true, 9001)),
            (&["--container-hardening", "off", "--kernel-uid", "0"], (false, 0)),
            (&["--container-hardening=on", "--kernel-uid=1000"], (true, 1000)),
        ],
    );
}

#[test]
fn kernels_have_a_network_of_their_own_or_a_named_one() {
    check(
        |config| config.kernel_network.clone(),
        &[
            (&[], None),
            (&["--kernel-network", "own"], None),
            (&["--kernel-network", "bridge"], Some("bridge".into())),
        ],
    );
}

#[test]
fn who_may_call_and_where() {
    let trusted = |config: &Config| {
        (
            config.rpc_listen.to_string(),
            config.changeable.trusted_peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    };
    let networks = ["10.0.0.0/24", "10.0.1.7/32"].map(str::to_owned).to_vec();
    check(
        trusted,
        &[
            (&["--trusted-peers", "10.0.0.0/24,10.0.1.7"], ("0.0.0.0".to_owned(), networks)),
            (&["--rpc-listen", "10.0.0.5"], ("10.0.0.5".to_owned(), Vec::new())),
        ],
    );
}

#[test]
fn several_members_of_etcd() {
    let members =
        |config: &Config| config.cluster.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>();
    check(members, &[(&["--etcd-addr", "a:1, [::1]:2"], vec!["a:1".to_owned(), "[::1]:2".to_owned()])]);
}

#[test]
fn zero_switches_limits_off() {
    check(
        |config| (config.changeable.idle_timeout, config.kernels.create_deadline, config.kernels.pids_limit),
        &[
            (
                &["--idle-timeout", "0", "--create-deadline", "0", "--kernel-pids-limit", "0"],
                (Some(Duration::ZERO), CreateDeadline::Never, None),
            ),
            (
                &["--idle-timeout", "10m", "--create-deadline", "500ms", "--kernel-pids-limit", "99"],
                (Some(Duration::from_secs(600)), CreateDeadline::After(Duration::from_millis(500)), Some(99)),
            ),
        ],
    );
}

#[test]
fn the_last_word_on_verbosity_is_the_more_talkative() {
    check(
        |config| config.telemetry.verbosity,
        &[
            (&["--debug"], Verbosity::Debug),
            (&["-v"], Verbosity::Verbose),
            (&["--debug", "-v"], Verbosity::Verbose),
        ],
    );
}

#[test]
fn log_files_and_when_they_are_full() {
    let mib = |count: u64, keep| NonZeroU64::new(count << 20).map(|max_bytes| Rotation { max_bytes, keep });
    let file = |path: PathBuf, rotation| Some(LogFile { path, rotation });
    let here = std::env::current_dir().unwrap();
    check(
        |config| config.telemetry.log_file.clone(),
        &[
            (&["--log-file-size", "1"], None),
            (&["--log-file", "/tmp/b.log"], file("/tmp/b.log".into(), mib(10, 10))),
            (&["--log-file", "b.log"], file(here.join("b.log"), mib(10, 10))),
            (&["--log-file", "/tmp/l", "--log-file-size", "2.0"], file("/tmp/l".into(), mib(2, 10))),
            (&["--log-file", "/tmp/l", "--log-file-count", "3"], file("/tmp/l".into(), mib(10, 3))),
            (&["--log-file", "/tmp/l", "--log-file-count", "0"], file("/tmp/l".into(), None)),
            (&["--log-file", "/tmp/l", "--log-file-size", "0"], file("/tmp/l".into(), None)),
        ],
    );
}

#[test]
fn datadog_needs_both_keys_and_s3_both_of_its_own() {
    check(
        |config| (config.telemetry.statsd.is_some(), config.s3.is_some(), config.warnings.len()),
        &[
            (&[], (false, false, 0)),
            (&["--datadog-api-key", "a", "--datadog-app-key", "b"], (true, false, 0)),
            (&["--datadog-api-key", "a"], (false, false, 1)),
            (&["--kernel-aliases", "aliases.yml"], (false, false, 1)),
            (&["--aws-access-key-id", "a"], (false, false, 1)),
            (&["--aws-access-key-id", "a", "--aws-secret-access-key", "b"], (false, true, 0)),
        ],
    );
}

#[test]
fn output_files_go_where_the_references_go() {
    let s3 = config(&["--aws-access-key-id", "a", "--aws-secret-access-key", "b"]).s3.unwrap();
    let place = (s3.region.as_str(), s3.bucket.as_str(), s3.prefix.to_string());
    assert_eq!(place, ("ap-northeast-1", "codeonweb", "bucket".to_owned()));
    assert_eq!((s3.endpoint, s3.acl, s3.url_expiry), (None, Acl::Private, 7 * DAY));
}

#[test]
fn the_configuration_shows_no_secret() {
    let config = config(&[
        "--datadog-api-key",
        "secretkey",
        "--aws-access-key-id",
        "secretkey",
        "--aws-secret-access-key",
        "secretkey",
        "--aws-session-token",
        "secretkey",
        "--raven-uri",
        "https://secretkey@sentry.io/1",
    ]);
    assert!(config.s3.is_some() && config.telemetry.sentry.is_some());
    assert!(!format!("{config:?}").contains("secretkey"));
}
