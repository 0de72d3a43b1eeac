//! Black-box tests: the real binary against a real etcd, Redis and Docker, with a fake manager that speaks the
//! manager's own protocols.
//!
//! Nothing here imports the crate but its `zmtp`, which `peers` proves against other implementations: every codec that a
//! test needs is written a second time in `support`, so that a mistake in the agent's codecs can't hide behind the same
//! mistake in the tests.
//!
//! Each test owns a [`support::Bed`]; any number of tests may run at once, as threads of one process or as
//! processes of their own. Docker is shared and is never stopped from here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on should panic where it stands"
)]
#![allow(clippy::panic, reason = "waits that run out end the test with a text of their own")]

mod adoption;
mod callers;
mod chaos;
mod clouds;
mod commands;
mod continuity;
mod dev;
mod documents;
mod execute;
mod figures;
mod gpus;
mod harness;
mod hostile;
mod kernels;
mod log;
mod looking;
mod manager_client;
mod outages;
mod output;
mod pairing;
mod peers;
mod private;
mod readiness;
mod recovery;
mod reloading;
mod rights;
mod rpc;
mod stopping;
mod support;
mod systemd;
mod terminal;
mod updates;
