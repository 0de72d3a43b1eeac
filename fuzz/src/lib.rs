//! Which bytes of others the agent reads, each target with the functions that read them.
//!
//! The first byte of an input says which of a target's functions gets the others: `0` for the first one, and so on. The
//! functions lie in the rooms (`src/*/fuzz.rs`), so that the fuzzer and `tests/decoders.rs`, which includes this file, run the same.

use backendai_agent::cli::fuzz as cli;
use backendai_agent::rooms::{cluster, dev, docker, identity, images, kernel, runner, scratch, stats};
use backendai_agent::telemetry::fuzz as telemetry;
use backendai_agent::wire::fuzz as wire;
use backendai_agent::zmtp::fuzz as zmtp;

/// A function that panics when bytes do what they must not.
pub type Reader = fn(&[u8]);

/// All targets by name, as they stand in `Cargo.toml`.
pub const TARGETS: &[(&str, &[Reader])] = &[
    // Peers of any of the agent's ZeroMQ sockets.
    ("zmtp", &[zmtp::hello, zmtp::inbox]),
    ("connection", &[zmtp::connection]),
    // Callers of the RPC port, and who answers the agent's own client.
    ("call", &[wire::call]),
    ("answer", &[wire::answer]),
    // Code in a kernel.
    ("record", &[runner::fuzz::records, runner::fuzz::utf8]),
    ("path", &[scratch::fuzz::name, scratch::fuzz::path, scratch::fuzz::environment]),
    // Docker, and who makes images.
    (
        "docker",
        &[docker::fuzz::log, docker::fuzz::answer, kernel::fuzz::container_labels, images::fuzz::labels],
    ),
    // The cluster's servers.
    ("etcd", &[cluster::fuzz::settings, cluster::fuzz::catalogue]),
    ("redis", &[stats::fuzz::redis, dev::fuzz::commands]),
    // Files of the machine, and the clouds' answers.
    (
        "file",
        &[kernel::fuzz::notes, images::fuzz::credentials, stats::fuzz::system_file, identity::fuzz::metadata],
    ),
    ("settings", &[cli::settings_file, cli::word]),
    // Whoever looks at the agent.
    ("http", &[telemetry::request]),
];

/// Runs one input of a target.
///
/// # Panics
/// When the input does what it must not, or there is no such target.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let Some((_, readers)) = found else { panic!("no target {target}") };
    if let Some((choice, bytes)) = input.split_first() {
        readers[usize::from(choice.wrapping_sub(b'0')) % readers.len()](bytes);
    }
}
