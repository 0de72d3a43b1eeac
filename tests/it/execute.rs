//! Running code in kernels (PROTOCOL section 8 and the runs of section 12), with the real runner.

use std::path::PathBuf;

use crate::support::{Bed, Kernel, secs, until};

mod batch;
mod control;
mod inspect;
mod query;
mod queue;
mod restart;

/// Code that makes a file which the host can see, so that a test knows that the run has begun.
const BEGIN: &str = "open('/home/work/begun', 'w').close()\n";

/// Waits until [`BEGIN`] has run.
async fn begun(bed: &Bed, kernel: &Kernel) {
    let marker: PathBuf = bed.home(&kernel.id).join("begun");
    until("the run's begin", secs(10), async || marker.exists().then_some(())).await;
    std::fs::remove_file(marker).unwrap();
}
