//! Single rooms of the agent against what they are for: a real etcd, Redis, Docker, S3 server, and file systems that
//! only root can make. Tests that need none of these lie beside the code.
//!
//! The rooms are private to the crate; its feature `rooms` opens them for these tests (`src/lib.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on should panic where it stands"
)]
#![allow(clippy::panic, reason = "waits that run out end the test with a text of their own")]

mod cluster;
mod docker;
mod images;
mod quota;
mod s3;
mod scratch;
mod stats;
mod support;
