//! The list of kernel images, from Docker's list of all images. Pure.

use crate::docker::ImageSummary;

/// What every kernel image's reference starts with.
pub const PREFIX: &str = "lablup/kernel-";

/// The kernel images of this machine, sorted by name and tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageList {
    /// One entry for each reference; an image with two tags has two.
    pub entries: Vec<ImageEntry>,
}

/// One reference and the image that it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageEntry {
    /// Name and tag without the prefix: `python:latest`.
    pub name_tag: String,
    /// The image's id: `sha256:…`.
    pub id: String,
}

impl ImageList {
    /// Picks the kernel images.
    pub(super) fn of(images: &[ImageSummary]) -> Self {
        let mut entries: Vec<ImageEntry> = images
            .iter()
            .flat_map(|image| image.tags.iter().map(move |tag| (tag, image)))
            .filter_map(|(tag, image)| {
                let name_tag = tag.strip_prefix(PREFIX).filter(|rest| !rest.ends_with(":<none>"))?;
                Some(ImageEntry { name_tag: name_tag.to_owned(), id: image.id.clone() })
            })
            .collect();
        entries.sort_unstable();
        entries.dedup();
        Self { entries }
    }

    /// The id of the image that a name and tag stand for.
    #[must_use]
    pub fn id_of(&self, name_tag: &str) -> Option<&str> {
        let at = self.entries.binary_search_by(|entry| entry.name_tag.as_str().cmp(name_tag)).ok()?;
        Some(&self.entries[at].id)
    }
}

/// The name with `:latest` unless it has a tag.
pub(super) fn with_tag(lang: &str) -> String {
    if lang.contains(':') { lang.to_owned() } else { format!("{lang}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str]) -> ImageSummary {
        ImageSummary {
            id: id.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            labels: [].into(),
        }
    }

    #[test]
    fn only_kernel_images_count_each_with_all_its_tags() {
        let list = ImageList::of(&[
            image("sha256:b", &["lablup/kernel-python:latest", "lablup/kernel-python:3.6"]),
            image("sha256:a", &["lablup/kernel-c:latest", "busybox:latest", "x/lablup/kernel-d:1"]),
            image("sha256:c", &["<none>:<none>", "lablup/kernel-e:<none>"]),
            image("sha256:d", &[]),
        ]);
        let names: Vec<&str> = list.entries.iter().map(|entry| entry.name_tag.as_str()).collect();
        assert_eq!(names, ["c:latest", "python:3.6", "python:latest"]);
        assert_eq!(list.id_of("python:3.6"), Some("sha256:b"));
        assert_eq!(list.id_of("python"), None);
        assert_eq!(list.id_of(&with_tag("python")), Some("sha256:b"));
    }
}
