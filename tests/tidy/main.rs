//! The walls of the house, checked: see ARCHITECTURE.md.

// Helpers of an integration test may unwrap like the tests themselves.
#![allow(clippy::unwrap_used)]

mod circles;
mod protocol;
mod sources;

use std::collections::BTreeMap;

use self::sources::sources;

/// From the ground up; a room may use what stands before it.
const ROOMS: &[&str] = &[
    "ids",
    "address",
    "secret",
    "tls",
    "units",
    "patience",
    "programs",
    "conditions",
    "nearest",
    "wire",
    "figures",
    "zmtp",
    "docker",
    "firewall",
    "cluster",
    "resources",
    "stats",
    "scratch",
    "identity",
    "events",
    "runner",
    "images",
    "kernel",
    "heartbeat",
    "rpc",
    "status",
    "telemetry",
    "agent",
    "dev",
    "client",
    "cli",
];

/// Each outside crate's one home.
const HOMES: &[(&str, &[&str])] = &[
    ("ipnet", &["address"]),
    ("rmpv", &["wire"]),
    ("snap", &["wire"]),
    ("bollard", &["docker"]),
    // One is its client, the other its server.
    ("etcd_client", &["cluster", "dev"]),
    ("tonic", &["dev"]),
    ("nvml_wrapper", &["resources"]),
    ("sysinfo", &["resources"]),
    ("redis", &["stats"]),
    ("cap_std", &["scratch"]),
    ("object_store", &["scratch"]),
    ("tar", &["scratch"]),
    ("reqwest", &["identity"]),
    // Each installs the TLS provider that its own library asks for.
    ("rustls", &["scratch", "identity", "stats", "cli"]),
    ("tokio_rustls", &["stats"]),
    ("tracing_subscriber", &["telemetry"]),
    ("sentry", &["telemetry"]),
    ("cadence", &["telemetry"]),
    ("prometheus", &["figures"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("strsim", &["nearest"]),
    ("toml", &["cli"]),
    ("comfy_table", &["cli"]),
    ("anyhow", &["cli"]),
    ("sd_notify", &["agent"]),
];

/// Files whose decisions are pure.
const PURE: &[&str] = &[
    "address.rs",
    "address/network.rs",
    "units.rs",
    "patience.rs",
    "conditions.rs",
    "nearest.rs",
    "telemetry/filter.rs",
    "wire/value.rs",
    "wire/header.rs",
    "wire/call.rs",
    "wire/answer.rs",
    "wire/params.rs",
    "wire/config.rs",
    "wire/lang.rs",
    "wire/limits.rs",
    "wire/request.rs",
    "wire/reply.rs",
    "wire/event.rs",
    "wire/command.rs",
    "wire/record.rs",
    "wire/sample.rs",
    "wire/service.rs",
    "figures/table.rs",
    "zmtp/frame.rs",
    "zmtp/hello.rs",
    "zmtp/inbox.rs",
    "zmtp/admission.rs",
    "runner/utf8.rs",
    "runner/output.rs",
    "runner/doubt.rs",
    "runner/spill.rs",
    "runner/code.rs",
    "kernel/labels.rs",
    "kernel/fate.rs",
    "kernel/life.rs",
    "kernel/plan.rs",
    "kernel/pulse.rs",
    "resources/cpu_map.rs",
    "resources/gpu_map.rs",
    "resources/cpuset.rs",
    "resources/topology.rs",
    "resources/limits.rs",
    "scratch/mounts.rs",
    "scratch/quota.rs",
    "scratch/space.rs",
    "cluster/catalogue.rs",
    "cluster/settings.rs",
    "cluster/presence.rs",
    "docker/spec.rs",
    "firewall/rules.rs",
    "images/labels.rs",
    "dev/keyspace.rs",
    "dev/hashes.rs",
    "dev/resp.rs",
    "cli/file.rs",
    "cli/inventory.rs",
    "cli/effective.rs",
];

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|r| *r == room)
}

#[test]
fn every_file_belongs_to_a_room_and_says_what_it_is_for() {
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{}: begins without a module doc", source.path);
        let is_root = ["lib", "main"].contains(&source.room.as_str());
        assert!(is_root || rank(&source.room).is_some(), "{}: no room of that name", source.path);
        assert!(!source.path.ends_with("mod.rs"), "{}: rooms are name.rs beside name/", source.path);
    }
}

#[test]
fn imports_go_up_the_list_only() {
    for source in sources() {
        let Some(own) = rank(&source.room) else { continue };
        let code = source.code();
        for part in code.split("crate::").skip(1) {
            let other: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(theirs) = rank(&other) else { continue };
            // The settings are data that the command line makes, and name the kinds of telemetry's own.
            assert!(theirs <= own, "{}: uses crate::{other}, which stands below it", source.path);
            if other == "telemetry" {
                assert!(
                    ["telemetry", "agent", "cli"].contains(&source.room.as_str()),
                    "{}: logs through tracing",
                    source.path
                );
            }
        }
    }
}

#[test]
fn each_outside_crate_has_one_home() {
    for source in sources() {
        let code = source.code();
        for (name, homes) in HOMES {
            if homes.contains(&source.room.as_str()) {
                continue;
            }
            let uses = code.lines().any(|line| {
                line.match_indices(&format!("{name}::")).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    // `crate::redis::` would be a room, `redis::` the crate.
                    !before.is_some_and(|c| c == ':' || c == '_' || c.is_alphanumeric())
                        && !line.contains(&format!("self::{name}::"))
                })
            });
            assert!(!uses, "{}: uses {name}, whose home is {homes:?}", source.path);
        }
    }
}

#[test]
fn pure_files_touch_nothing() {
    let sources: BTreeMap<_, _> = sources().into_iter().map(|s| (s.path.clone(), s)).collect();
    for path in PURE {
        let code = sources.get(*path).unwrap_or_else(|| panic!("{path} is gone; change the list")).code();
        for effect in
            ["tokio::", "std::fs", "std::env", "Instant::now", "SystemTime", "rand::", "std::net::Tcp"]
        {
            assert!(!code.contains(effect), "{path}: is pure, but uses {effect}");
        }
    }
}

/// An operator reads the log, and `Running { ip: … }` is nobody's language but Rust's.
#[test]
fn log_lines_have_no_debug_forms() {
    for source in sources() {
        let code = source.code();
        // `?Sized` is no field.
        for (at, _) in code.match_indices('?').filter(|(at, _)| !code[*at..].starts_with("?Sized")) {
            let before = code[..at].chars().next_back().unwrap_or_default();
            let after = code[at + 1..].chars().next().unwrap_or_default();
            let is_field = " =(,".contains(before) && (after.is_alphabetic() || after == '(');
            let line = code[..at].lines().count();
            assert!(
                !is_field,
                "{}: a field of a log line (about line {line}) is shown by Debug",
                source.path
            );
        }
    }
}

#[test]
fn nothing_is_unsafe_or_panics_on_purpose() {
    for source in sources() {
        let code = source.code();
        assert!(!code.contains("unsafe {"), "{}: unsafe", source.path);
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!code.contains(word), "{}: {word}", source.path);
        }
    }
}

/// What needs a program, a server or root lies in `tests`, so that `cargo test --lib` needs nothing.
#[test]
fn unit_tests_start_no_programs() {
    for source in sources() {
        // What the agent starts itself stands before its tests.
        let tests = &source.text[if source.path.contains("test") { 0 } else { source.code_ends() }..];
        // The command line's library has a type of that name, too.
        for part in tests.replace("clap::Command::new(", "").split("Command::new(").skip(1) {
            let command = part.split(')').next().unwrap();
            // What the agent itself asks; its unit tests don't.
            let is_agents_own = source.path == "agent/machine.rs" && command == "\"systemctl\"";
            assert!(
                is_agents_own || command == "\"/bin/cat\"",
                "{}: starts the program {command}; move the test to tests/rooms",
                source.path
            );
        }
    }
}

/// `src/a/b.rs`, `tests/a`, `docs/a.md` as the documents write them, in backquotes.
#[test]
fn files_that_documents_name_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/protocol.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_ours = ["src/", "tests/", "docs/", "scripts/"].iter().any(|dir| name.starts_with(dir));
            if is_ours && !name.contains([' ', '{', '*', ':']) {
                assert!(root.join(name).exists(), "{document}: names {name}, which is not there");
                count += 1;
            }
        }
    }
    assert!(count > 20, "only {count} names were found");
}

/// `part::of::a_test` as SECURITY.md names what shows that something is stopped.
#[test]
fn tests_that_security_names_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let names = text.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
    let mut count = 0;
    for name in names {
        let (module, function) = name.rsplit_once("::").unwrap();
        let file = module.replace("::", "/");
        let places = [
            ("tests", ".rs"),
            ("tests/it", ".rs"),
            ("tests/rooms", ".rs"),
            ("src", ".rs"),
            ("src", "/tests.rs"),
        ];
        let found = places.iter().any(|(dir, end)| {
            let source = std::fs::read_to_string(root.join(format!("{dir}/{file}{end}")));
            source.is_ok_and(|source| source.contains(&format!("fn {function}(")))
        });
        assert!(found, "SECURITY.md: names {name}, which is not there");
        count += 1;
    }
    assert!(count >= 15, "only {count} names were found");
}

#[test]
fn the_kernel_room_knows_no_python_and_docker_no_kernel() {
    for source in sources() {
        let code = source.code();
        if source.room == "kernel" {
            assert!(!code.contains("builtins.") && !code.contains("aiozmq"), "{}: names Python", source.path);
        }
        if source.room == "docker" {
            assert!(!code.contains("KernelId"), "{}: knows kernels", source.path);
        }
        if source.room == "heartbeat" {
            assert!(
                !code.contains("Docker::") && !code.contains("Cluster"),
                "{}: calls somebody",
                source.path
            );
        }
    }
}

/// A release build with other flags than `build.rs` knows has its functions in no order, and says nothing.
#[test]
fn the_build_script_knows_the_flags_of_the_build() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let (config, script) = (read(".cargo/config.toml"), read("build.rs"));
    let flags =
        config.lines().find_map(|line| line.strip_prefix("rustflags = [\"")?.strip_suffix("\"]")).unwrap();
    assert!(script.contains(&format!("const FLAGS: &str = \"{flags}\";")), "{flags}");
}
