//! Which directories below a kernel's own its container works on, told from what the container has mounted. Pure.
//!
//! | made by | the user's files | the runner's settings |
//! | --- | --- | --- |
//! | this version | `work` | `config` |
//! | earlier versions, and the Python agent 1.3 | the kernel's directory itself | among the files, in `.config` |
//! | the Python agent 1.4 | `.work` | `.config` |
//! | the Python agent 18.12 | `work` | `config` |
//!
//! Only the part of a path below the kernel's directory counts: the scratch root may have been moved since.

use std::path::{Path, PathBuf};

use crate::ids::KernelId;

/// Names of the directory of the user's files.
const HOMES: [&str; 2] = ["work", ".work"];
/// Names of the directory of the runner's settings.
const CONFIGS: [&str; 2] = ["config", ".config"];

/// Where a kernel's files lie below its own directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The user's files; `None` for the kernel's directory itself.
    home: Option<&'static str>,
    /// The runner's settings; `None` where they are among the files.
    config: Option<&'static str>,
}

impl Layout {
    /// As this version makes them.
    pub(super) const NEW: Self = Self { home: Some("work"), config: Some("config") };

    /// From the sources of two mounts: that at `/home/work`, and the one where a runner looks for its settings. `None`: the
    /// files are in no directory of this kernel.
    pub(super) fn of(kernel: KernelId, home: &Path, config: Option<&Path>) -> Option<Self> {
        let home = below(kernel, home)?;
        if home == Path::new("") {
            return Some(Self { home: None, config: None });
        }
        let one_of =
            |names: [&'static str; 2], found: &Path| names.into_iter().find(|name| found == Path::new(name));
        let config = config.and_then(|config| one_of(CONFIGS, below(kernel, config)?));
        Some(Self { home: Some(one_of(HOMES, home)?), config })
    }

    /// The user's files of the kernel whose directory is `path`.
    pub(super) fn home(self, path: &Path) -> PathBuf {
        self.home.map_or_else(|| path.to_owned(), |home| path.join(home))
    }

    /// The runner's settings there, where they lie apart.
    pub(super) fn config(self, path: &Path) -> Option<PathBuf> {
        self.config.map(|config| path.join(config))
    }

    /// Every name that a directory of users' files may have in a kernel's own.
    pub(super) fn homes() -> [&'static str; 2] {
        HOMES
    }
}

/// What follows the kernel's own directory in a path.
fn below(kernel: KernelId, source: &Path) -> Option<&Path> {
    let id = kernel.to_string();
    let own = source.ancestors().find(|above| above.file_name().is_some_and(|name| name == id.as_str()))?;
    source.strip_prefix(own).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_has_mounted_says_where_its_files_are() {
        let kernel = KernelId::random();
        let root = Path::new("/scratches");
        let path = root.join(kernel.to_string());
        let check = |home: &str, config: Option<&str>, expected: Option<(&str, Option<&str>)>| {
            let at = |name: &str| if name.is_empty() { path.clone() } else { path.join(name) };
            let found = Layout::of(kernel, &at(home), config.map(at).as_deref());
            let found = found.map(|layout| (layout.home(&path), layout.config(&path)));
            assert_eq!(found, expected.map(|(home, config)| (at(home), config.map(at))), "{home} {config:?}");
        };
        check("work", Some("config"), Some(("work", Some("config"))));
        check(".work", Some(".config"), Some((".work", Some(".config"))));
        check("", None, Some(("", None)));
        // The settings of such a kernel are its user's to change; nothing that they mount or plant moves them.
        check("", Some("config"), Some(("", None)));
        check("work", None, Some(("work", None)));
        check("work", Some("work/elsewhere"), Some(("work", None)));
        for nobodys in ["elsewhere", "work/work", "work/.work", "config"] {
            check(nobodys, Some("config"), None);
        }
    }

    #[test]
    fn the_root_counts_for_nothing_and_the_kernel_for_all() {
        let (kernel, other) = (KernelId::random(), KernelId::random());
        let moved = PathBuf::from(format!("/elsewhere/{kernel}/work"));
        let config = PathBuf::from(format!("/elsewhere/{other}/config"));
        assert_eq!(Layout::of(kernel, &moved, None), Some(Layout { home: Some("work"), config: None }));
        assert_eq!(
            Layout::of(kernel, &moved, Some(&config)),
            Some(Layout { home: Some("work"), config: None })
        );
        assert_eq!(Layout::of(other, &moved, Some(&config)), None);
        assert_eq!(Layout::of(kernel, Path::new("/"), None), None);
        let nested = PathBuf::from(format!("/scratches/{kernel}/work/{kernel}"));
        assert_eq!(Layout::of(kernel, &nested, None), Some(Layout { home: None, config: None }));
    }
}
