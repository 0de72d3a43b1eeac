//! The project's own source files, as texts.

use std::fs;
use std::path::{Path, PathBuf};

/// One file.
pub(crate) struct Source {
    /// Relative to `src`, or to `tests` or `benches`.
    pub(crate) path: String,
    /// The file's or the directory's name directly below `src`.
    pub(crate) room: String,
    pub(crate) text: String,
}

impl Source {
    /// Where its tests begin, or its end.
    pub(crate) fn code_ends(&self) -> usize {
        self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len())
    }

    /// Without comments and without what only tests see.
    pub(crate) fn code(&self) -> String {
        let end = if self.path.contains("test") { 0 } else { self.code_ends() };
        let lines = self.text[..end].lines();
        lines.filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn sources() -> Vec<Source> {
    sources_below("src")
}

/// Those of the tests and benches, too.
pub(crate) fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches"].into_iter().flat_map(sources_below).collect()
}

fn sources_below(dir: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(source(&root, &path));
            }
        }
    }
    assert!(dir != "src" || found.len() > 50, "the sources were not found");
    found
}

fn source(src: &Path, path: &PathBuf) -> Source {
    let relative = path.strip_prefix(src).unwrap().to_str().unwrap().to_owned();
    let room = relative.split(['/', '.']).next().unwrap().to_owned();
    Source { path: relative, room, text: fs::read_to_string(path).unwrap() }
}
