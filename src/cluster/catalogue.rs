//! The image catalogue below `images/`, parsed and searched. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The images that the administrator registered (PROTOCOL section 1).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// By name, as in `python`.
    pub images: BTreeMap<String, CatalogueImage>,
    /// Alias → `name:tag` or another alias, from `images/_aliases/…`.
    pub aliases: BTreeMap<String, String>,
    /// Keys that were left out because they could not be read, each with its fault; for the log.
    pub odd: Vec<String>,
}

/// One image of the catalogue. A figure is `None` when its key is absent or unreadable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CatalogueImage {
    /// Cores that a kernel of it needs.
    pub cpu: Option<f64>,
    /// Memory that a kernel of it needs, in MiB.
    pub mem_mib: Option<u64>,
    /// Fraction of a GPU that a kernel of it needs.
    pub gpu: Option<f64>,
    /// By tag, as in `3.6-debian`.
    pub tags: BTreeMap<String, Tag>,
}

/// Where a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'c> {
    /// The end of all aliases, `python:3.6-debian`: what the registry has.
    pub name_tag: String,
    /// The image's hash: the first hex digits of its id.
    pub hash: &'c str,
}

/// What a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// The wanted image's hash: the first hex digits of its id, in lower case.
    Hash(String),
    /// Another tag of the same image; written `:tag` in etcd.
    Alias(String),
}

impl Catalogue {
    /// Reads keys relative to the namespace (`images/python/tags/3.6-debian`) with their values. Nothing
    /// stops it: what can't be read is listed in [`Catalogue::odd`].
    pub fn parse<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut catalogue = Self::default();
        for (key, value) in entries {
            if let Err(fault) = catalogue.add(key, value.trim()) {
                let value: String = value.chars().take(64).collect();
                catalogue.odd.push(format!("{key} = {value:?}: {fault}"));
            }
        }
        catalogue
    }

    fn add(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let path = key.strip_prefix("images/").ok_or("not below images/")?;
        if let Some(alias) = path.strip_prefix("_aliases/") {
            self.aliases.insert(alias.to_owned(), value.to_owned());
            return Ok(());
        }
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err("the image's name is empty");
        }
        let image = self.images.entry(name.to_owned()).or_default();
        match rest {
            // The entry that says that the image exists; its value is always 1.
            "" => {}
            "cpu" => image.cpu = Some(amount(value)?),
            "mem" => image.mem_mib = Some(value.parse().map_err(|_| "not a whole number of MiB")?),
            "gpu" => image.gpu = Some(amount(value)?),
            _ => {
                let tag = rest.strip_prefix("tags/").ok_or("an unknown kind of entry")?;
                image.tags.insert(tag.to_owned(), read_tag(value)?);
            }
        }
        Ok(())
    }

    /// The image that `reference` means: `name:tag`, an alias, or a name alone for its `latest`, by the manager's own
    /// rule. `None` if nothing is registered, or if aliases go round in a circle.
    #[must_use]
    pub fn resolve(&self, reference: &str) -> Option<Resolved<'_>> {
        let mut target = self.follow_aliases(reference)?;
        let latest = format!("{reference}:latest");
        if target == reference && !reference.contains(':') {
            target = self.follow_aliases(&latest)?;
        }
        let (name, tag) = target.split_once(':')?;
        let tags = &self.images.get(name)?.tags;
        let mut seen = BTreeSet::new();
        let mut tag = tag;
        while seen.insert(tag) {
            match tags.get(tag)? {
                Tag::Hash(hash) => return Some(Resolved { name_tag: format!("{name}:{tag}"), hash }),
                Tag::Alias(next) => tag = next,
            }
        }
        None
    }

    /// The end of a chain of aliases; `None` if there is no end.
    fn follow_aliases<'a>(&'a self, reference: &'a str) -> Option<&'a str> {
        let mut seen = BTreeSet::new();
        let mut current = reference;
        while seen.insert(current) {
            match self.aliases.get(current) {
                Some(next) => current = next,
                None => return Some(current),
            }
        }
        None
    }
}

fn amount(value: &str) -> Result<f64, &'static str> {
    let amount: f64 = value.parse().map_err(|_| "not a number")?;
    if amount.is_finite() && amount >= 0.0 { Ok(amount) } else { Err("not a number from 0 up") }
}

fn read_tag(value: &str) -> Result<Tag, &'static str> {
    if let Some(alias) = value.strip_prefix(':') {
        return if alias.is_empty() {
            Err("the alias names no tag")
        } else {
            Ok(Tag::Alias(alias.to_owned()))
        };
    }
    // Docker's ids may be written with the name of their hash function before them.
    let hash = value.strip_prefix("sha256:").unwrap_or(value).to_ascii_lowercase();
    if !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(Tag::Hash(hash))
    } else {
        Err("neither an image hash in hex nor an alias that starts with `:`")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENTRIES: &[(&str, &str)] = &[
        ("images/python", "1"),
        ("images/python/cpu", "1"),
        ("images/python/mem", "512"),
        ("images/python/gpu", "0.50"),
        ("images/python/tags/3.6-debian", "ca7b9f52b6c2"),
        ("images/python/tags/3.6", ":3.6-debian"),
        ("images/python/tags/latest", ":3.6"),
        ("images/python/tags/round", ":about"),
        ("images/python/tags/about", ":round"),
        ("images/python/tags/nowhere", ":gone"),
        ("images/_aliases/py", "python3"),
        ("images/_aliases/python3", "python:3.6"),
        ("images/_aliases/circle", "circle2"),
        ("images/_aliases/circle2", "circle"),
    ];

    #[test]
    fn figures_are_read() {
        let catalogue = Catalogue::parse(ENTRIES.iter().copied());
        let python = &catalogue.images["python"];
        assert_eq!((python.cpu, python.mem_mib, python.gpu), (Some(1.0), Some(512), Some(0.5)));
        assert_eq!(catalogue.odd, Vec::<String>::new());
        assert_eq!(catalogue.images.len(), 1);
    }

    #[test]
    fn references_are_resolved_as_the_manager_does() {
        let catalogue = Catalogue::parse(ENTRIES.iter().copied());
        let hash = Some("ca7b9f52b6c2");
        for (reference, expected) in [
            ("python:3.6-debian", hash),
            ("python:3.6", hash),
            ("python", hash),
            ("py", hash),
            ("python:nowhere", None),
            ("python:round", None),
            ("circle", None),
            ("unknown", None),
            ("unknown:tag", None),
            ("", None),
        ] {
            let found = catalogue.resolve(reference);
            assert_eq!(found.as_ref().map(|found| found.hash), expected, "{reference:?}");
            assert!(found.is_none_or(|found| found.name_tag == "python:3.6-debian"));
        }
    }

    #[test]
    fn odd_entries_are_listed_and_spoil_nothing() {
        let odd = [
            ("images/python/mem", "lots"),
            ("images/python/cpu", "NaN"),
            ("images/python/colour", "red"),
            ("images/python/tags/x", "not hex"),
            ("images/python/tags/y", ":"),
            ("images/", "1"),
        ];
        let catalogue = Catalogue::parse(ENTRIES.iter().copied().chain(odd));
        assert_eq!(catalogue.odd.len(), odd.len(), "{:?}", catalogue.odd);
        assert!(catalogue.odd[0].contains("images/python/mem") && catalogue.odd[0].contains("lots"));
        assert_eq!(catalogue.images["python"].mem_mib, Some(512));
        assert_eq!(catalogue.resolve("python:3.6").unwrap().hash, "ca7b9f52b6c2");
    }

    proptest! {
        #[test]
        fn any_entries_are_parsed_and_any_reference_comes_to_an_end(
            entries in proptest::collection::vec(
                (
                    prop_oneof!["images/_aliases/[ab:]{1,3}", "images/[ab]/tags/[ab]", "images/.{0,10}", ".{0,10}"],
                    prop_oneof!["[ab:]{0,3}", "[0-9a-f]{1,6}", ".{0,6}"],
                ),
                0..30,
            ),
            reference in "[ab:]{0,4}",
        ) {
            let catalogue = Catalogue::parse(entries.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            if let Some(found) = catalogue.resolve(&reference) {
                prop_assert!(found.hash.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }
}
