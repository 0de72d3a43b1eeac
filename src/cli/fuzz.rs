//! What any file of settings and any value must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where
//! they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use std::ffi::OsString;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use super::inventory::{self, Setting};
use super::values;
use super::{Command, Load, file, options, settings};
use crate::address::{HostPort, Network};
use crate::ids::KernelId;
use crate::nearest::nearest;
use crate::resources::{CoreList, GpuList, ShmSize};
use crate::scratch::{KeyPrefix, MinFree};
use crate::telemetry::{LogFilter, SentryDsn};
use crate::units::{Cores, Gpus};

/// What may be set.
static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(inventory::settings);

/// A file of settings.
pub fn settings_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("/etc/agent.toml");
    let found = file::read(path, &text, &SETTINGS);
    // The rest costs a thousand times as much.
    if found.entries.is_empty() || !found.problems.is_empty() {
        return;
    }
    let line = ["backendai-agent", "--config", "/etc/agent.toml"].map(OsString::from);
    let load: Load<'_> = &|_| Ok(text.clone().into_owned());
    match super::read(settings::without_own_variables(options::command(&line)), &line, load) {
        Ok(command) => assert!(matches!(command, Command::Run(_)), "a file made another command of it"),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}

/// A value as it is typed, or a name that was meant for one of the settings.
pub fn word(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(duration) = values::duration(&text) {
        assert!(duration <= Duration::from_secs(365 * 24 * 3600), "{duration:?}");
    }
    if let Some(name) = values::name(&text) {
        assert!(!name.is_empty() && !name.contains('/'), "{name:?} would be another key in etcd");
    }
    if let Ok(address) = text.parse::<HostPort>() {
        assert_eq!(address.to_string().parse(), Ok(address), "it is another address when read again");
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse::<Network>().ok(), Some(network), "it is another network");
    }
    if let Ok(kernel) = text.parse::<KernelId>() {
        assert_eq!(kernel.to_string().parse::<KernelId>().ok(), Some(kernel), "it is another kernel");
    }
    let _ = (values::network(&text), values::endpoint(&text), values::ipv4_host(&text), values::text(&text));
    let _ = (values::registry(&text), values::url(&text), values::memory(&text), values::mebibytes(&text));
    let _ = (text.parse::<Cores>().is_ok(), text.parse::<Gpus>().is_ok(), text.parse::<ShmSize>().is_ok());
    let _ =
        (text.parse::<CoreList>().is_ok(), text.parse::<GpuList>().is_ok(), text.parse::<MinFree>().is_ok());
    let _ = (text.parse::<KeyPrefix>().is_ok(), text.parse::<LogFilter>().is_ok());
    let _ = text.parse::<SentryDsn>().is_ok();
    let keys = SETTINGS.iter().map(|setting| setting.key.as_str());
    let meant = nearest(&text, keys.clone());
    assert!(meant.is_none_or(|meant| keys.clone().any(|key| key == meant)));
}
