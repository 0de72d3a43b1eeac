//! Lists of cores as text: what Docker takes (`0,1`) and what the kernel's files say (`0-3,5`).

use std::str::FromStr;

/// No machine has a core of a higher number; keeps a damaged `0-4294967295` from filling the memory.
const HIGHEST_CORE: u32 = 65_535;

/// The text was not a list of cores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is not a core or a range of cores below {}, as in 0-3,5", HIGHEST_CORE + 1)]
pub struct BadCpuset {
    part: String,
}

/// A list of cores as an operator gives it: `0,2-3`, or a mask, `0xd`. Sorted, each once, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreList(Vec<u32>);

impl CoreList {
    /// Whether the core is on the list.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }
}

impl FromStr for CoreList {
    type Err = BadCpuset;

    fn from_str(text: &str) -> Result<Self, BadCpuset> {
        let cores = match text.strip_prefix("0x") {
            Some(digits) => mask(digits).ok_or_else(|| bad(text))?,
            None => parse_cpuset(text)?,
        };
        if cores.is_empty() { Err(bad(text)) } else { Ok(Self(cores)) }
    }
}

/// The cores of a mask in hex digits, in which core 0 is the lowest bit.
fn mask(digits: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for (first, digit) in (0..=HIGHEST_CORE).step_by(4).zip(digits.chars().rev()) {
        let bits = digit.to_digit(16)?;
        cores.extend((0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| first + bit));
    }
    (digits.len() <= (HIGHEST_CORE as usize).div_ceil(4)).then_some(cores)
}

/// The cores in ranges, `0-3,5`, as a person likes to read them.
pub(super) fn ranges_text(cpus: &[u32]) -> String {
    let ranges = cpus.chunk_by(|a, b| a + 1 == *b);
    let texts = ranges.filter_map(|range| match range {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The cores separated by commas, in the order given: `0,1`.
#[must_use]
pub fn cpuset_text(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The cores that a list such as `0-3,5` names, ascending and each once. Empty text names none.
pub fn parse_cpuset(text: &str) -> Result<Vec<u32>, BadCpuset> {
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (core(first), core(last)) {
            (Some(first), Some(last)) if first <= last => cores.extend(first..=last),
            _ => return Err(bad(part)),
        }
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

fn bad(part: &str) -> BadCpuset {
    BadCpuset { part: part.chars().take(64).collect() }
}

fn core(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|core| *core <= HIGHEST_CORE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        let check = |text: &str, expected: &[u32]| assert_eq!(parse_cpuset(text).unwrap(), expected);
        check("", &[]);
        check("\n", &[]);
        check("0\n", &[0]);
        check("0-3,5\n", &[0, 1, 2, 3, 5]);
        check(" 5 , 1-2 ,2", &[1, 2, 5]);
        for bad in ["a", "3-1", "-1", "1-", "1-2-3", "0x1", "0-4294967295", "65536"] {
            assert!(parse_cpuset(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_operator_gives_a_list_or_a_mask() {
        let list = |text: &str| text.parse::<CoreList>().map(|list| list.0);
        assert_eq!(list("0,2-3"), Ok(vec![0, 2, 3]));
        assert_eq!(list("0xd"), Ok(vec![0, 2, 3]));
        assert_eq!(list("0x1_0").ok(), None);
        assert_eq!(list("0x100000000000000000").unwrap(), [68]);
        for bad in ["", "0x", "0x0", "x", "0-", "3-1"] {
            assert!(list(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(ranges_text(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
    }

    #[test]
    fn the_error_shows_the_part() {
        assert_eq!(
            parse_cpuset("0,x7").unwrap_err().to_string(),
            "\"x7\" is not a core or a range of cores below 65536, as in 0-3,5"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cores in proptest::collection::btree_set(0u32..=HIGHEST_CORE, 0..50)) {
            let cores: Vec<u32> = cores.into_iter().collect();
            prop_assert_eq!(parse_cpuset(&cpuset_text(&cores)).unwrap(), cores);
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = parse_cpuset(&text);
        }
    }
}
