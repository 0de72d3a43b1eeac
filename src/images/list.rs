//! The list of kernel images, from Docker's list of all images. Pure.

use crate::docker::ImageSummary;
use crate::wire::lang;

/// What every kernel image's reference starts with.
pub const PREFIX: &str = "lablup/kernel-";

/// The kernel images of this machine, sorted by name and tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageList {
    /// One entry for each reference; an image with two tags has two.
    pub entries: Vec<ImageEntry>,
}

/// What an engine may write in front of a name that means the same: Podman writes all of it out.
const FRONTS: [&str; 3] = ["", "docker.io/", "localhost/"];

/// One reference and the image that it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageEntry {
    /// Name and tag without the prefix: `python:latest`.
    pub name_tag: String,
    /// What the engine calls it.
    pub reference: String,
    /// The image's id: `sha256:…`.
    pub id: String,
}

impl ImageList {
    /// Picks the kernel images, without those that `is_broken` knows by their id.
    pub(super) fn of(images: &[ImageSummary], is_broken: impl Fn(&str) -> bool) -> Self {
        let mut found: Vec<(usize, ImageEntry)> = images
            .iter()
            .filter(|image| !is_broken(&image.id))
            .flat_map(|image| image.tags.iter().map(move |tag| (tag, image)))
            .filter_map(|(tag, image)| {
                let (front, name_tag) = name_tag(tag)?;
                let (name_tag, reference) = (name_tag.to_owned(), tag.clone());
                Some((front, ImageEntry { name_tag, reference, id: image.id.clone() }))
            })
            .collect();
        // The manager knows one image of a name: where there are several, the engine's own way of writing wins.
        found.sort_unstable_by(|(front, a), (other, b)| (&a.name_tag, front).cmp(&(&b.name_tag, other)));
        found.dedup_by(|(_, later), (_, first)| later.name_tag == first.name_tag);
        Self { entries: found.into_iter().map(|(_, entry)| entry).collect() }
    }

    /// The reference that a name and tag stand for.
    pub(super) fn entry(&self, name_tag: &str) -> Option<&ImageEntry> {
        let at = self.entries.binary_search_by(|entry| entry.name_tag.as_str().cmp(name_tag)).ok()?;
        self.entries.get(at)
    }

    /// The id of the image that a name and tag stand for.
    #[must_use]
    pub fn id_of(&self, name_tag: &str) -> Option<&str> {
        self.entry(name_tag).map(|entry| entry.id.as_str())
    }
}

/// The name and tag in a kernel image's reference, and which of [`FRONTS`] it has.
fn name_tag(reference: &str) -> Option<(usize, &str)> {
    let fronts = FRONTS.iter().enumerate();
    let mut found =
        fronts.filter_map(|(front, text)| Some((front, reference.strip_prefix(text)?.strip_prefix(PREFIX)?)));
    found.next().filter(|(_, rest)| !rest.ends_with(":<none>"))
}

/// Whether a reference is a kernel image's.
pub(super) fn is_kernel_image(reference: &str) -> bool {
    name_tag(reference).is_some()
}

/// The references that a name and tag may have, the engine's own way of writing first.
pub(super) fn references(name_tag: &str) -> Vec<String> {
    let reference = lang::reference(name_tag);
    // A name that begins with a registry is written in one way only; Docker refuses another front as no name.
    let registry = reference.split_once('/').map_or("", |(registry, _)| registry);
    let has_registry = registry == "localhost" || registry.contains(['.', ':']);
    let fronts = if has_registry { &FRONTS[..1] } else { &FRONTS[..] };
    fronts.iter().map(|front| format!("{front}{reference}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_registry_is_looked_up_as_it_is() {
        assert_eq!(references("r.example:5000/team/tiny:1"), ["r.example:5000/team/kernel-tiny:1"]);
        assert_eq!(
            references("tiny:1"),
            ["lablup/kernel-tiny:1", "docker.io/lablup/kernel-tiny:1", "localhost/lablup/kernel-tiny:1"]
        );
    }

    fn image(id: &str, tags: &[&str]) -> ImageSummary {
        ImageSummary {
            id: id.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            labels: [].into(),
        }
    }

    #[test]
    fn only_kernel_images_count_each_with_all_its_tags() {
        let images = [
            image("sha256:b", &["lablup/kernel-python:latest", "lablup/kernel-python:3.6"]),
            image("sha256:a", &["lablup/kernel-c:latest", "busybox:latest", "x/lablup/kernel-d:1"]),
            image("sha256:c", &["<none>:<none>", "lablup/kernel-e:<none>"]),
            image("sha256:d", &[]),
            image("sha256:f", &["lablup/kernel-f:1"]),
        ];
        let list = ImageList::of(&images, |id| id == "sha256:f");
        let names: Vec<&str> = list.entries.iter().map(|entry| entry.name_tag.as_str()).collect();
        assert_eq!(names, ["c:latest", "python:3.6", "python:latest"]);
        assert_eq!(list.id_of("python:3.6"), Some("sha256:b"));
        assert_eq!(list.id_of("python"), None);
        assert_eq!(list.id_of(&lang::with_tag("python")), Some("sha256:b"));
    }

    #[test]
    fn podman_s_way_of_writing_names_the_same_images() {
        let images = [
            image("sha256:a", &["localhost/lablup/kernel-python:1", "localhost/lablup/kernel-r:1"]),
            image("sha256:b", &["docker.io/lablup/kernel-python:1", "quay.io/lablup/kernel-c:1"]),
            image("sha256:c", &["docker.io/lablup/kernel-lua:1"]),
        ];
        let list = ImageList::of(&images, |_| false);
        let found: Vec<(&str, &str, &str)> =
            list.entries.iter().map(|e| (e.name_tag.as_str(), e.id.as_str(), e.reference.as_str())).collect();
        assert_eq!(
            found,
            [
                ("lua:1", "sha256:c", "docker.io/lablup/kernel-lua:1"),
                ("python:1", "sha256:b", "docker.io/lablup/kernel-python:1"),
                ("r:1", "sha256:a", "localhost/lablup/kernel-r:1"),
            ]
        );
    }
}
