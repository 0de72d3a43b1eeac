//! What a manager calls a kernel's image, in the one form that this agent goes by (PROTOCOL section 3). Pure.
//!
//! 1.3 and 1.4 send `python:3.6`; 18.12 puts a registry in front, `lablup/python:3.6` or
//! `registry.example:5000/team/python:3.6`. Both forms leave the prefix `kernel-` of the image's name out. Images of the registry
//! that all three series have in common go without it from here on, so that one image has one name.

/// The registry that a name without one means.
pub const COMMON: &str = "lablup";
/// Docker Hub's own names, which the engine takes for the same as nothing in front of a registry.
pub const HUBS: [&str; 2] = ["docker.io", "index.docker.io"];
/// What an image's own name starts with.
const PREFIX: &str = "kernel-";

/// The one form; `None` for a text that names no image. Also of an image's whole reference, `lablup/kernel-python:3.6`.
#[must_use]
pub fn normal(text: &str) -> Option<String> {
    let Some((registry, name)) = text.rsplit_once('/') else {
        return (!text.is_empty()).then(|| text.to_owned());
    };
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let registry =
        HUBS.iter().find_map(|hub| registry.strip_prefix(hub)?.strip_prefix('/')).unwrap_or(registry);
    match (registry, name) {
        ("", _) | (_, "") => None,
        (COMMON, name) => Some(name.to_owned()),
        (registry, name) => Some(format!("{registry}/{name}")),
    }
}

/// The repository's name and tag with all in front that the engine wants: `lablup/kernel-python:3.6`.
#[must_use]
pub fn reference(lang: &str) -> String {
    let (registry, name) = lang.rsplit_once('/').unwrap_or((COMMON, lang));
    format!("{registry}/{PREFIX}{name}")
}

/// The image's name alone, without registry and tag: `python`.
#[must_use]
pub fn base(lang: &str) -> &str {
    let name = lang.rsplit('/').next().unwrap_or(lang);
    name.split(':').next().unwrap_or(name)
}

/// With `:latest` unless it has a tag. The colon of a registry's port is none.
#[must_use]
pub fn with_tag(lang: &str) -> String {
    let has_tag = lang.rsplit('/').next().is_some_and(|name| name.contains(':'));
    if has_tag { lang.to_owned() } else { format!("{lang}:latest") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_series_names_the_same_image() {
        for (sent, lang, image, base_name) in [
            ("python:3.6", "python:3.6", "lablup/kernel-python:3.6", "python"),
            ("lablup/python:3.6", "python:3.6", "lablup/kernel-python:3.6", "python"),
            ("lablup/kernel-python:3.6", "python:3.6", "lablup/kernel-python:3.6", "python"),
            ("docker.io/lablup/r", "r", "lablup/kernel-r", "r"),
            ("reg.lan:5000/r:3", "reg.lan:5000/r:3", "reg.lan:5000/kernel-r:3", "r"),
            ("reg.lan:5000/a/b/r:3", "reg.lan:5000/a/b/r:3", "reg.lan:5000/a/b/kernel-r:3", "r"),
        ] {
            assert_eq!(normal(sent).as_deref(), Some(lang), "{sent}");
            assert_eq!((reference(lang).as_str(), base(lang)), (image, base_name), "{sent}");
        }
        for nothing in ["", "/", "/python", "lablup/", "lablup/kernel-"] {
            assert_eq!(normal(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_registry_s_port_is_no_tag() {
        for (lang, expected) in
            [("r", "r:latest"), ("r:3", "r:3"), ("x:5000/r", "x:5000/r:latest"), ("x:5000/r:3", "x:5000/r:3")]
        {
            assert_eq!(with_tag(lang), expected);
        }
    }

    proptest! {
        #[test]
        fn a_name_in_the_one_form_stays_and_its_reference_leads_back(text in "[a-z:./-]{0,20}") {
            if let Some(lang) = normal(&text) {
                let is_prefixed = |name: &str| name.rsplit('/').next().is_some_and(|n| n.starts_with(PREFIX));
                let hub = HUBS.iter().any(|hub| lang.starts_with(&format!("{hub}/"))) || lang.starts_with("lablup/");
                if !is_prefixed(&lang) && !hub {
                    prop_assert_eq!(normal(&lang), Some(lang.clone()));
                    prop_assert_eq!(normal(&reference(&lang)), Some(lang));
                }
            }
        }
    }
}
