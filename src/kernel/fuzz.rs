//! What any label of a container and any note must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where
//! they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use std::collections::BTreeMap;

use super::labels::{self, Owner};
pub use super::notes::fuzz::notes;
use crate::ids::InstanceId;

/// A container's labels, lines `name=value`; the first line is its name.
pub fn container_labels(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    if let Some((lang, kernel)) = lines.next().and_then(labels::from_name) {
        let _ = labels::name(&lang, kernel);
    }
    let pairs = lines.filter_map(|line| line.split_once('='));
    let found: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let _ = (labels::kernel(&found), labels::is_labelled(&found));
    if let Some((kernel, config)) = labels::read(&found) {
        let owner = Owner { namespace: "n".to_owned(), instance: InstanceId::new("i-1") };
        let set = |set: &Option<Vec<u32>>| set.clone().unwrap_or_default();
        let again = labels::write(&owner, kernel, &config, &set(&config.cpu_set), &set(&config.gpu_set));
        assert_eq!(labels::read(&again), Some((kernel, config)), "a kernel is taken back as another");
    }
}
