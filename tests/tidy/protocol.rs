//! What comments cite of `docs/protocol.md` is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::sources::all_sources;

/// What `docs/protocol.md` has: its sections, and the items of section 12.
fn protocol() -> BTreeMap<u32, BTreeSet<u32>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")).unwrap();
    let mut sections: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut current = 0;
    for line in text.lines() {
        let (heading, rest) = line.strip_prefix("## ").map_or((false, line), |rest| (true, rest));
        let Some((number, _)) = rest.split_once(". ") else { continue };
        let Ok(number) = number.parse() else { continue };
        if heading {
            current = number;
            sections.entry(current).or_default();
        } else {
            sections.entry(current).or_default().insert(number);
        }
    }
    sections
}

/// The sections and items that a text's comments cite: "section 8", "sections 9 and 12.35", "section 12, items 1 to 6
/// and 13".
fn citations(text: &str) -> BTreeSet<(u32, Option<u32>)> {
    let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
    let words: Vec<String> = comments
        .flat_map(str::split_whitespace)
        .filter(|word| !["/", "!"].contains(word))
        .map(|word| word.trim_start_matches(['(', '"']).to_lowercase())
        .collect();
    let mut cited = BTreeSet::new();
    let mut at = 0;
    while at < words.len() {
        if !["section", "sections"].contains(&words[at].as_str()) {
            at += 1;
            continue;
        }
        at += 1;
        let (mut section, mut in_items, mut through) = (None, false, false);
        while let Some(word) = words.get(at) {
            let plain = word.trim_end_matches([',', '.', ';', ':', ')', '"']);
            let (number, item) = match plain.split_once('.') {
                Some((number, item)) => (number.parse().ok(), item.parse().ok()),
                None => (plain.parse().ok(), None),
            };
            match (plain, number) {
                ("item" | "items", _) => in_items = true,
                ("section" | "sections", _) => in_items = false,
                ("and", _) => {}
                ("to", _) => through = true,
                (_, Some(number)) if in_items => {
                    let from = match cited.last() {
                        Some((_, Some(last))) if std::mem::take(&mut through) => *last + 1,
                        _ => number,
                    };
                    cited.extend((from..=number).map(|n| (section.unwrap_or(12), Some(n))));
                }
                (_, Some(number)) => {
                    section = Some(number);
                    cited.insert((number, item));
                }
                _ => break,
            }
            at += 1;
            if word.ends_with(['.', ';', ':', ')']) {
                break;
            }
        }
    }
    cited
}

#[test]
fn what_comments_cite_of_the_protocol_is_there() {
    let has = protocol();
    assert_eq!(has.keys().copied().collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>(), "docs/protocol.md");
    assert!(
        has[&12].len() >= 40 && has[&12].iter().copied().eq((1..).take(has[&12].len())),
        "section 12 of docs/protocol.md: items {:?}",
        has[&12]
    );
    let mut count = 0;
    for source in all_sources() {
        for (section, item) in citations(&source.text) {
            let Some(items) = has.get(&section) else { panic!("{}: cites section {section}", source.path) };
            if let Some(item) = item {
                assert!(items.contains(&item), "{}: cites section {section}, item {item}", source.path);
            }
            count += 1;
        }
    }
    assert!(count > 80, "only {count} citations were found");
}

#[test]
fn citations_are_read_in_all_their_forms() {
    let of = |text: &str| citations(text).into_iter().collect::<Vec<_>>();
    assert_eq!(
        of("//! (PROTOCOL sections 4 and 10, section 12 item 37).\n"),
        [(4, None), (10, None), (12, None), (12, Some(37))]
    );
    assert_eq!(
        of("/// (section 12, items 1 to 3\n/// and 5). 7\n"),
        [(12, None), (12, Some(1)), (12, Some(2)), (12, Some(3)), (12, Some(5))]
    );
    assert_eq!(of("// sections 9, 12.11; 12\n"), [(9, None), (12, Some(11))]);
    assert_eq!(of("a critical section does no more\n"), []);
}
