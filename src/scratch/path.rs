//! Names that come from outside, checked before they touch the file system. Pure.

/// Linux's limit for a whole path, in bytes.
const MAX_PATH: usize = 4096;
/// Linux's limit for one name, in bytes.
const MAX_NAME: usize = 255;

/// A path below some directory: at least one part, and no part is empty, `.`, `..` or holds `/` or NUL.
///
/// The path says nothing about links: whoever opens it must not follow them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelativePath {
    /// Every directory on the way, outermost first.
    parents: Vec<String>,
    /// The last part.
    name: String,
}

/// Why a text is no [`RelativePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathFault {
    /// The path is absolute or holds `..`.
    Escape,
    /// The path can't be a file's name; the reason, for people.
    Bad(&'static str),
}

impl RelativePath {
    /// Checks `text`. Doubled slashes and `.` parts are dropped, as the kernel would.
    pub(super) fn parse(text: &str) -> Result<Self, PathFault> {
        if text.starts_with('/') {
            return Err(PathFault::Escape);
        }
        if text.contains('\0') {
            return Err(PathFault::Bad("it holds a NUL"));
        }
        if text.len() > MAX_PATH || text.split('/').any(|part| part.len() > MAX_NAME) {
            return Err(PathFault::Bad("it is too long"));
        }
        // `a/..` may stay inside by its letters and still leave when `a` is a link.
        if text.split('/').any(|part| part == "..") {
            return Err(PathFault::Escape);
        }
        if text.ends_with('/') || text.ends_with("/.") {
            return Err(PathFault::Bad("it names a directory"));
        }
        let mut parents: Vec<String> =
            text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        let name = parents.pop().ok_or(PathFault::Bad("it is empty"))?;
        Ok(Self { parents, name })
    }

    /// The directories on the way, outermost first.
    pub(super) fn parents(&self) -> &[String] {
        &self.parents
    }

    /// The outermost part.
    pub(super) fn first(&self) -> &str {
        self.parents.first().unwrap_or(&self.name)
    }

    /// The last part.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The directories joined by `/`; nothing when the file lies at the top.
    pub(super) fn parent(&self) -> Option<String> {
        (!self.parents.is_empty()).then(|| self.parents.join("/"))
    }

    /// All of it, joined by `/`.
    pub(super) fn joined(&self) -> String {
        match self.parent() {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Whether `text` can be the name of one entry of a directory.
pub(super) fn is_component(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text != "." && text != ".." && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_are_taken_and_tidied() {
        for (given, expected) in [
            ("a", "a"),
            ("a/b.txt", "a/b.txt"),
            ("./a//b/./c", "a/b/c"),
            ("..a/b..", "..a/b.."),
            ("é/ñ", "é/ñ"),
        ] {
            assert_eq!(RelativePath::parse(given).unwrap().joined(), expected);
        }
    }

    #[test]
    fn ways_out_are_escapes() {
        for text in ["/", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "a/../b"] {
            assert_eq!(RelativePath::parse(text), Err(PathFault::Escape), "{text:?}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        let long = "x".repeat(256);
        for text in ["", ".", "./", "a/", "a/.", "a\0b", long.as_str()] {
            assert!(matches!(RelativePath::parse(text), Err(PathFault::Bad(_))), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_has_only_plain_parts(text in "[a./\\x00 é]{0,24}") {
            if let Ok(path) = RelativePath::parse(&text) {
                let joined = path.joined();
                prop_assert!(Path::new(&joined).components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(Path::new(&joined).components().count(), path.parents().len() + 1);
                prop_assert_eq!(RelativePath::parse(&joined), Ok(path));
            }
        }

        #[test]
        fn a_component_joins_to_a_direct_child(text in "[a./\\x00]{0,8}") {
            let direct = Path::new("/base").join(&text).parent() == Some(Path::new("/base"))
                && matches!(Path::new(&text).components().next(), Some(Component::Normal(_)));
            if is_component(&text) {
                prop_assert!(direct);
            }
        }
    }
}
