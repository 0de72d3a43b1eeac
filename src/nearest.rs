//! The name that was meant, where one was misspelt. Pure.

/// Below this likeness (of `strsim::jaro_winkler`, 1 for the same text) a name was hardly meant.
const LIKE: f64 = 0.7;

/// The one of `names` that is most like `misspelt`; `None` where none is like it.
#[must_use]
pub fn nearest<'a>(misspelt: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = names.map(|name| (strsim::jaro_winkler(misspelt, name), name));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness >= LIKE).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_leads_to_the_one_that_was_meant() {
        let names = ["agent-port", "agent-host-override", "idle-timeout"];
        let cases = [
            ("agent-prot", Some("agent-port")),
            ("idle_timeout", Some("idle-timeout")),
            ("timeout", Some("idle-timeout")),
            ("zzz", None),
        ];
        for (misspelt, expected) in cases {
            assert_eq!(nearest(misspelt, names.into_iter()), expected, "{misspelt}");
        }
    }
}
