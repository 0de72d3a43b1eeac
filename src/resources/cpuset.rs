//! Lists of cores as text: what Docker takes (`0,1`) and what the kernel's files say (`0-3,5`).

/// No machine has a core of a higher number; keeps a damaged `0-4294967295` from filling the memory.
const HIGHEST_CORE: u32 = 65_535;

/// The text was not a list of cores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is not a core or a range of cores below {}, as in 0-3,5", HIGHEST_CORE + 1)]
pub struct BadCpuset {
    part: String,
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
            _ => return Err(BadCpuset { part: part.chars().take(64).collect() }),
        }
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
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
