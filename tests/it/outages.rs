//! What the agent needs goes away and comes back (PROTOCOL section 12, items 5, 6, 24 and 32): no crash, no busy
//! loop, no flood of log lines, heartbeats on time, every kernel event once and in order.

use std::time::Duration;

use crate::support::{Bed, secs};

mod docker;
mod dockerd;
mod manager;
mod odd;
mod services;
mod steps;

/// On a busy machine a create may well be late, and that is not what these tests are about.
const PATIENT: [&str; 2] = ["--create-deadline", "9"];

/// Lengths of an outage; the long one only when asked for.
fn lengths() -> Vec<Duration> {
    let mut lengths = vec![secs(1), secs(10)];
    if std::env::var_os("BACKENDAI_TEST_LONG").is_some() {
        lengths.push(secs(60));
    }
    lengths
}

/// The events about kernels after the first `skip`, as name and kernel id, in the order of their arrival.
fn kernel_events(bed: &Bed, skip: usize) -> Vec<(String, String)> {
    let events = bed.manager.events().into_iter().skip(skip);
    let about_kernels = events.filter(|event| event.name.starts_with("kernel_"));
    about_kernels.map(|event| (event.name, event.args[0].as_str().unwrap().to_owned())).collect()
}
