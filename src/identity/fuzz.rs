//! What any answer of a metadata service must not do, for the fuzzer and for `tests/decoders.rs`: the function panics where it
//! does.
#![allow(clippy::missing_panics_doc, reason = "a panic is what this is for")]

use super::facts::{self, Facts};

/// An answer, taken for each kind of them. What comes out becomes part of keys in etcd and of log lines.
pub fn metadata(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Facts { instance_id, instance_type, region, .. } = facts::azure(&text);
    let words = [
        instance_type,
        region,
        facts::word(&text),
        facts::amazon_document_region(&text),
        facts::amazon_zone_region(&text),
        facts::google_zone_region(&text),
    ];
    let ids = [instance_id, facts::instance_id(&text)].into_iter().flatten().map(|id| id.to_string());
    for word in words.into_iter().flatten().chain(ids) {
        let is_odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        assert!(!word.is_empty() && !word.contains(is_odd), "{word:?} became part of a key");
    }
    let _ = facts::ip(&text);
}
