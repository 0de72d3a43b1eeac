//! What the answers of the metadata services mean. Pure.
//!
//! An answer may be anything that somebody else's server made up, so each fact is checked before it is
//! believed: it becomes part of keys, events and log lines.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::instance_id::check_instance_id;
use crate::ids::InstanceId;

/// What a metadata service told; `None` where it did not, or told nonsense.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The cloud's own id of the machine.
    pub(super) instance_id: Option<InstanceId>,
    /// The private address.
    pub(super) ip: Option<Ipv4Addr>,
    /// The machine's type.
    pub(super) instance_type: Option<String>,
    /// The region, without the provider before it.
    pub(super) region: Option<String>,
}

impl Facts {
    /// The names of the facts that are not known.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        [
            ("instance id", self.instance_id.is_none()),
            ("ip", self.ip.is_none()),
            ("instance type", self.instance_type.is_none()),
            ("region", self.region.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect()
    }
}

/// An answer that is a bare instance id.
pub(super) fn instance_id(text: &str) -> Option<InstanceId> {
    check_instance_id(text).ok()
}

/// An answer that is a bare address.
pub(super) fn ip(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}

/// An answer that is one word, possibly behind a path of Google's (`projects/1/machineTypes/n1-standard-1`).
pub(super) fn word(text: &str) -> Option<String> {
    let word = text.rsplit('/').next()?;
    let is_word = !word.is_empty()
        && word.len() <= 64
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    is_word.then(|| word.to_owned())
}

/// The region in Amazon's identity document.
pub(super) fn amazon_document_region(document: &str) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    word(document.get("region")?.as_str()?)
}

/// The region of one of Amazon's zones: `us-east-1a` is in `us-east-1`.
pub(super) fn amazon_zone_region(zone: &str) -> Option<String> {
    let zone = word(zone)?;
    let region = zone.strip_suffix(|c: char| c.is_ascii_lowercase())?;
    region.ends_with(|c: char| c.is_ascii_digit()).then(|| region.to_owned())
}

/// The region of one of Google's zones: `projects/1/zones/us-central1-a` is in `us-central1`.
pub(super) fn google_zone_region(zone: &str) -> Option<String> {
    let zone = word(zone)?;
    let (region, _) = zone.rsplit_once('-')?;
    (!region.is_empty()).then(|| region.to_owned())
}

/// Everything, from Azure's one document. The address has had two shapes over the versions of its interface.
pub(super) fn azure(document: &str) -> Facts {
    let Ok(document) = serde_json::from_str::<Value>(document) else { return Facts::default() };
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::trim);
    Facts {
        instance_id: text("/compute/vmId").and_then(instance_id),
        ip: text("/network/interface/0/ipv4/ipaddress/0/ipaddress")
            .or_else(|| text("/network/interface/0/ipv4/ipAddress/0/privateIpAddress"))
            .and_then(ip),
        instance_type: text("/compute/vmSize").and_then(word),
        region: text("/compute/location").and_then(word),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn regions_of_zones() {
        for (zone, region) in [
            ("us-east-1a", Some("us-east-1")),
            ("us-east-1", None),
            ("a", None),
            ("", None),
            ("<html>a", None),
        ] {
            assert_eq!(amazon_zone_region(zone).as_deref(), region, "{zone:?}");
        }
        for (zone, region) in [
            ("projects/123/zones/us-central1-a", Some("us-central1")),
            ("europe-west1-b", Some("europe-west1")),
            ("nodash", None),
            ("-a", None),
        ] {
            assert_eq!(google_zone_region(zone).as_deref(), region, "{zone:?}");
        }
    }

    #[test]
    fn both_shapes_of_azures_document_are_read() {
        for network in [
            r#"{"interface":[{"ipv4":{"ipaddress":[{"ipaddress":"10.0.0.4","publicip":""}]}}]}"#,
            r#"{"interface":[{"ipv4":{"ipAddress":[{"privateIpAddress":"10.0.0.4"}]}}]}"#,
        ] {
            let compute = r#"{"vmId":"5d33a910-a7a0-4443-9f01-6a807801b29b","vmSize":"Standard_A1","location":"westus"}"#;
            let facts = azure(&format!(r#"{{"compute":{compute},"network":{network}}}"#));
            assert_eq!(facts.missing(), Vec::<&str>::new());
            assert_eq!(facts.ip, Some(Ipv4Addr::new(10, 0, 0, 4)));
            assert_eq!(facts.instance_id.unwrap().as_str(), "5d33a910-a7a0-4443-9f01-6a807801b29b");
            assert_eq!(facts.instance_type.as_deref(), Some("Standard_A1"));
            assert_eq!(facts.region.as_deref(), Some("westus"));
        }
    }

    #[test]
    fn a_part_of_azures_document_is_a_part_of_the_facts() {
        let facts = azure(r#"{"compute":{"vmSize":7,"location":"westus"},"network":null}"#);
        assert_eq!(facts.missing(), ["instance id", "ip", "instance type"]);
    }

    proptest! {
        #[test]
        fn nonsense_never_becomes_a_fact_that_breaks_a_key(text in ".{0,80}") {
            let ids = [instance_id(&text).map(|id| id.to_string()), word(&text)];
            let regions = [amazon_zone_region(&text), google_zone_region(&text), amazon_document_region(&text)];
            for fact in ids.into_iter().chain(regions).flatten() {
                prop_assert!(!fact.is_empty() && !fact.contains(['/', ' ', '\n']), "{:?}", fact);
            }
            azure(&text);
        }
    }
}
