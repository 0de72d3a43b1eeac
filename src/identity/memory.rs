//! Remembering a cloud machine's instance id, for a start at which its metadata service does not answer in time.
//!
//! Under another id the agent would not know its own kernels, and the manager would take it for another machine.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::instance_id::check_instance_id;
use super::provider::Provider;
use crate::ids::InstanceId;

/// What the file says. A machine that was copied with its disk has another host name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    provider: String,
    hostname: String,
    instance_id: String,
}

/// Keeps the id; a file that can't be written costs the memory only.
pub(super) fn keep(file: &Path, provider: Provider, hostname: &str, id: &InstanceId) {
    let wanted = Remembered {
        provider: provider.to_string(),
        hostname: hostname.to_owned(),
        instance_id: id.to_string(),
    };
    if read(file).is_ok_and(|found| found == wanted) {
        return;
    }
    if let Err(error) = write(file, &wanted) {
        tracing::warn!(file = %file.display(), %error, "could not keep the instance id for a start without the metadata service");
    }
}

/// The id that was kept for this machine.
pub(super) fn recall(file: &Path, provider: Provider, hostname: &str) -> Option<InstanceId> {
    let found = read(file).ok()?;
    let is_this_machine = found.provider == provider.to_string() && found.hostname == hostname;
    check_instance_id(&found.instance_id).ok().filter(|_| is_this_machine)
}

fn read(file: &Path) -> io::Result<Remembered> {
    Ok(serde_json::from_slice(&std::fs::read(file)?)?)
}

fn write(file: &Path, wanted: &Remembered) -> io::Result<()> {
    let temporary = file.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(wanted)?)?;
    std::fs::rename(&temporary, file)
}
