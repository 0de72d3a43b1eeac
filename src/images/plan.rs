//! Which image to pull next, and when to try one again. Pure: the time is a parameter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::list::ImageList;
use crate::patience::Backoff;

/// The longest that an image waits after it failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long a scan may take to show that an image was updated.
const SETTLE: Duration = Duration::from_secs(60);

/// An image as the catalogue wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WantedImage {
    /// Name and tag without the prefix: `python:3.6-debian`.
    pub name_tag: String,
    /// The name and tag that the registry has it under: where an alias leads to.
    pub source: String,
    /// The first hex digits of the id that it shall have: `ca7b9f52b6c2`.
    pub hash_prefix: String,
}

impl WantedImage {
    /// One that is no alias.
    #[cfg(any(test, feature = "rooms"))]
    #[must_use]
    pub fn plain(name_tag: &str, hash_prefix: &str) -> Self {
        let (name_tag, hash_prefix) = (name_tag.to_owned(), hash_prefix.to_owned());
        Self { source: name_tag.clone(), name_tag, hash_prefix }
    }

    /// Whether an image's id, `sha256:…`, is the wanted one.
    pub(super) fn is_met_by(&self, id: &str) -> bool {
        id.strip_prefix("sha256:").unwrap_or(id).starts_with(&self.hash_prefix.to_ascii_lowercase())
    }

    /// Whether the hash can be one; the catalogue is written by hand, and aliases are no hashes.
    fn is_sound(&self) -> bool {
        !self.hash_prefix.is_empty() && self.hash_prefix.chars().all(|c| c.is_ascii_hexdigit())
    }
}

/// The failures so far of images that are still wanted.
#[derive(Debug)]
pub(super) struct Failures {
    /// How long images wait.
    backoff: Backoff,
    /// How often each failed, and when it may be tried again.
    by_image: HashMap<WantedImage, (u32, Instant)>,
}

/// What comes of a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// The failure is the first of this image, and to be told.
    pub(super) is_first: bool,
    /// How long the image has to wait.
    pub(super) wait: Duration,
}

impl Failures {
    pub(super) fn new(first_pause: Duration) -> Self {
        Self { backoff: Backoff::new(first_pause, LONGEST_PAUSE), by_image: HashMap::new() }
    }

    /// Notes a failure.
    pub(super) fn note(&mut self, image: WantedImage, now: Instant) -> Noted {
        let (count, not_before) = self.by_image.entry(image).or_insert((0, now));
        *count = count.saturating_add(1);
        let wait = self.backoff.pause(*count);
        *not_before = now + wait;
        Noted { is_first: *count == 1, wait }
    }

    /// An image is up to date, which the list will show soon: it is not pulled again meanwhile. Answers how often it
    /// failed before.
    pub(super) fn settle(&mut self, image: WantedImage, now: Instant) -> u32 {
        self.by_image.insert(image, (0, now + SETTLE)).map_or(0, |(count, _)| count)
    }

    /// Forgets images that are no longer wanted or that are there.
    pub(super) fn keep(&mut self, outdated: &[WantedImage]) {
        self.by_image.retain(|image, _| outdated.contains(image));
    }

    fn not_before(&self, image: &WantedImage) -> Option<Instant> {
        self.by_image.get(image).map(|(_, not_before)| *not_before)
    }
}

/// What the updater does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Pull this one.
    Pull(WantedImage),
    /// Every outdated image failed before; the first may be tried again then.
    WaitUntil(Instant),
    /// Nothing is outdated.
    Nothing,
}

/// The images that are here in another version than the catalogue wants.
///
/// An image that is not here at all stays away: the catalogue names all images of the cluster, and which of them a
/// machine has is its operator's choice.
pub(super) fn outdated(list: &ImageList, wanted: &[WantedImage]) -> Vec<WantedImage> {
    wanted
        .iter()
        .filter(|wanted| wanted.is_sound())
        .filter(|wanted| list.id_of(&wanted.name_tag).is_some_and(|id| !wanted.is_met_by(id)))
        .cloned()
        .collect()
}

/// Picks the next step.
pub(super) fn next(outdated: &[WantedImage], failures: &Failures, now: Instant) -> Next {
    let is_due = |image: &&WantedImage| failures.not_before(image).is_none_or(|at| at <= now);
    if let Some(image) = outdated.iter().find(is_due) {
        return Next::Pull(image.clone());
    }
    match outdated.iter().filter_map(|image| failures.not_before(image)).min() {
        Some(at) => Next::WaitUntil(at),
        None => Next::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageEntry;

    fn wanted(name_tag: &str, hash_prefix: &str) -> WantedImage {
        WantedImage::plain(name_tag, hash_prefix)
    }

    fn list() -> ImageList {
        let entry = |name_tag: &str, id: &str| ImageEntry {
            name_tag: name_tag.into(),
            reference: format!("lablup/kernel-{name_tag}"),
            id: id.into(),
        };
        ImageList { entries: vec![entry("c:1", "sha256:cc00"), entry("python:1", "sha256:aa00")] }
    }

    #[test]
    fn only_images_that_are_here_and_differ_are_outdated() {
        let catalogue = [
            wanted("c:1", "CC0"),
            wanted("python:1", "bb"),
            wanted("r:1", "dd"),
            wanted("c:1", ""),
            wanted("c:1", ":1"),
        ];
        assert_eq!(outdated(&list(), &catalogue), [wanted("python:1", "bb")]);
    }

    #[test]
    fn a_failure_waits_longer_each_time_and_lets_others_pass() {
        let (a, b, now) = (wanted("c:1", "00"), wanted("python:1", "bb"), Instant::now());
        let both = [a.clone(), b.clone()];
        let mut failures = Failures::new(Duration::from_secs(60));
        assert_eq!(next(&both, &failures, now), Next::Pull(a.clone()));
        let waits: Vec<u64> = (0..8).map(|_| failures.note(a.clone(), now).wait.as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(next(&both, &failures, now), Next::Pull(b.clone()));
        assert!(failures.note(b.clone(), now).is_first);
        assert!(!failures.note(a.clone(), now).is_first);
        assert_eq!(next(&both, &failures, now), Next::WaitUntil(now + Duration::from_secs(60)));
        assert_eq!(next(&both, &failures, now + Duration::from_secs(60)), Next::Pull(b));
        assert_eq!(failures.settle(a.clone(), now), 9);
        assert_eq!(next(std::slice::from_ref(&a), &failures, now), Next::WaitUntil(now + SETTLE));
        failures.keep(&[]);
        assert_eq!(next(std::slice::from_ref(&a), &failures, now), Next::Pull(a));
        assert_eq!(next(&[], &failures, now), Next::Nothing);
    }
}
