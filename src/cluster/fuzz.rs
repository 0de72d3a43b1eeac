//! What any values in etcd must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use std::path::Component;

use super::catalogue::{Catalogue, Tag};
use super::settings::{RawSettings, follow};

/// The manager's settings, a line each; an empty line is a key that is not there.
pub fn settings(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let raw: RawSettings =
        std::array::from_fn(|_| lines.next().filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    let (first, gaps) = follow(None, &raw);
    let _ = gaps.to_string();
    if let Some(settings) = &first {
        assert!(settings.volume_mount.is_absolute(), "virtual folders at a path that depends on the process");
        let mut parts = settings.folder_prefix.components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))), "a prefix that leads out");
        let (again, _) = follow(Some(settings), &raw);
        assert_eq!(again, first, "the same values mean another thing");
        let (kept, _) = follow(Some(settings), &RawSettings::default());
        assert_eq!(
            kept.map(|kept| kept.manager_id),
            Some(settings.manager_id.clone()),
            "a value was forgotten"
        );
    }
}

/// The catalogue of images: lines of a key, a blank, and its value.
pub fn catalogue(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let catalogue = Catalogue::parse(text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))));
    let names = catalogue.images.keys().chain(catalogue.aliases.keys());
    for reference in names {
        if let Some(found) = catalogue.resolve(reference) {
            assert!(found.hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "no hash: {found:?}");
        }
    }
    for (name, image) in &catalogue.images {
        for (tag, target) in &image.tags {
            // An alias by the same name may lead elsewhere.
            let is_plain =
                matches!(target, Tag::Hash(_)) && catalogue.aliases.is_empty() && !name.contains(':');
            let found = catalogue.resolve(&format!("{name}:{tag}"));
            assert!(!is_plain || found.is_some(), "{name}:{tag} is not found");
        }
    }
}
