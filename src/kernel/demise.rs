//! How a container came to its end, as far as it can be told. Pure.

use std::time::Duration;

use crate::docker::Container;

/// What a process that SIGKILL ended leaves as its exit code.
const KILLED: i64 = 137;
/// Docker tells of a want of memory within moments of the end that it brings.
const MOMENTS: Duration = Duration::from_secs(10);
/// The most of a container's last words that is passed on, in characters.
const WORDS: usize = 1000;

/// Whether the container's own end was that it used more memory than its limit. Docker's mark alone does not say so: it
/// stays from any process in the container that was killed for that. `since_want`: how long ago Docker told of a want of
/// memory, if that was heard.
pub(super) fn is_of_memory(container: &Container, since_want: Option<Duration>) -> bool {
    let is_recent = since_want.is_none_or(|since| since < MOMENTS);
    container.oom_killed && container.exit_code == Some(KILLED) && is_recent
}

/// The end of what a container wrote, as one line.
pub(super) fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines = text.lines().map(|line| line.replace(char::is_control, " ").trim().to_owned());
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ");
    let skipped = line.chars().count().saturating_sub(WORDS);
    line.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::docker::container_from;

    fn ended(exit_code: i64, oom_killed: bool) -> Container {
        container_from(json!({
            "Id": "abc",
            "State": {"Status": "exited", "ExitCode": exit_code, "OOMKilled": oom_killed,
                      "StartedAt": "2026-11-24T15:42:02.5Z"},
        }))
    }

    #[test]
    fn only_a_kill_in_want_of_memory_is_blamed_on_memory() {
        let just_now = Some(Duration::from_secs(1));
        assert!(is_of_memory(&ended(137, true), just_now));
        assert!(
            is_of_memory(&ended(137, true), None),
            "the want was not heard of, as by an agent that was away"
        );
        assert!(!is_of_memory(&ended(137, false), None), "killed for something else");
        assert!(!is_of_memory(&ended(0, true), just_now), "a child of it was killed");
        assert!(!is_of_memory(&ended(143, true), None));
        assert!(!is_of_memory(&ended(137, true), Some(Duration::from_secs(60))), "a child of it, long ago");
    }

    #[test]
    fn last_words_are_one_short_line() {
        assert_eq!(last_words(b"\r\n"), "");
        assert_eq!(last_words(b"one\r\n\n  two\x1b[0m\n\xff"), "one | two [0m | \u{fffd}");
        let long = last_words("\u{e4}".repeat(5000).as_bytes());
        assert_eq!((long.chars().count(), long.len()), (WORDS, 2 * WORDS));
    }
}
