//! What any labels of images and credentials must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where
//! they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use std::path::Path;

use super::labels::ImageLabels;
use super::registry::Registry;
use crate::wire::limits::Limits;

/// An image's labels: lines `name=value`.
pub fn labels(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match ImageLabels::read(&labels) {
        Ok(labels) => {
            let limits = labels.capped(Limits::default());
            assert_eq!(labels.capped(limits), limits, "what fits the image is cut again");
            assert!(labels.corecount_vars.iter().all(|name| !name.contains('=')), "a variable with a value");
        }
        Err(bad) => assert!(bad.to_string().len() < 1024, "a label's text goes into the log as it is"),
    }
}

/// A `config.json` as `docker login` writes it.
pub fn credentials(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for address in [None, Some("registry.example.com:5000/path".to_owned())] {
        let registry = Registry { address, docker_config: None };
        if let Err(error) = registry.credentials_in(&text, Path::new("config.json")) {
            let _ = error.to_string();
        }
    }
}
