//! Checks of names before they become part of a request's path. Pure.
//!
//! The engine's API puts names into URL paths, where `..` climbs, `?` starts a query and `%` hides both. Names
//! that came over the network must not reach another call than the one that was meant.

use super::DockerError;

/// The longest name that is passed on; Docker's own limits are lower.
const LONGEST: usize = 512;

/// Whether the text can be a container's or volume's id or name.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= LONGEST
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Whether the text can be an image reference: `[host[:port]/]path[:tag][@digest]`, or an image id.
pub(super) fn is_image_reference(text: &str) -> bool {
    text.len() <= LONGEST
        && text.split(['/', ':', '@']).all(|part| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
                && !part.starts_with(['.', '-'])
        })
}

/// Hands the step back if the text can be a container's or volume's id or name.
pub(super) fn checked_name(step: String, text: &str) -> Result<String, DockerError> {
    if is_name(text) { Ok(step) } else { Err(refusal(&step, text)) }
}

/// Hands the step back if the text can be an image reference.
pub(super) fn checked_image(step: String, text: &str) -> Result<String, DockerError> {
    if is_image_reference(text) { Ok(step) } else { Err(refusal(&step, text)) }
}

fn refusal(step: &str, text: &str) -> DockerError {
    let cut = |text: &str| text.chars().take(200).collect();
    DockerError::BadReference { step: cut(step), text: cut(text) }
}

/// The reference with `:latest` where it has neither tag nor digest: without one, a pull fetches every tag.
pub(super) fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_references() {
        for good in ["kernel.python.0b9e1d3a-1f0c", "abc_1.d", "329d316dc128"] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", ".", "..", "/a", "a/b", "a?b", "a#b", "a%2e", "-a", "a b", "ä"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for good in
            ["lablup/kernel-python:3.6-debian", "localhost:5000/a/b@sha256:00ff", "sha256:00ff", "busybox"]
        {
            assert!(is_image_reference(good), "{good:?}");
        }
        for bad in ["", "../x", "a/../b", "a//b", "a:", ":a", "a?x=1", "a%2fb", "a/.b", "a b", "-x"] {
            assert!(!is_image_reference(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_pull_always_has_a_tag() {
        assert_eq!(with_tag("a/b"), "a/b:latest");
        assert_eq!(with_tag("host:5000/b"), "host:5000/b:latest");
        assert_eq!(with_tag("a/b:1"), "a/b:1");
        assert_eq!(with_tag("a/b@sha256:00"), "a/b@sha256:00");
    }

    proptest! {
        #[test]
        fn what_passes_can_not_change_the_path(text in "[a-z./:@%?#-]{0,12}") {
            if is_image_reference(&text) {
                let url = url::Url::parse("http://h/").unwrap().join(&format!("/images/{text}/json")).unwrap();
                prop_assert_eq!(url.path(), format!("/images/{text}/json"));
                prop_assert_eq!(url.query(), None);
            }
        }
    }
}
