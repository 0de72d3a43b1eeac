//! `environ.txt`: the kernel's environment, one `NAME=value` a line, as the runner in the container reads it
//! (PROTOCOL section 7). Pure.

use std::collections::BTreeMap;

/// The largest file written or read, in bytes.
pub(super) const MAX_ENVIRON_BYTES: usize = 1024 * 1024;

/// The longest `NAME=value`, in bytes: Linux's `MAX_ARG_STRLEN` (32 pages) less the NUL at its end. With a longer one
/// no program starts in the kernel, often not even its runner.
const MAX_VARIABLE_BYTES: usize = 128 * 1024 - 1;

/// An environment that the file can't carry. The texts name the variable and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironError {
    /// A name that is empty or holds `=`, a line break or NUL.
    #[error(
        "environ: {name:?} can't be the name of a variable: it must not be empty or hold '=', a line break or NUL"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// A value with a line break (the runner would read the rest as another variable) or NUL.
    #[error(
        "environ: the value of {name} holds a line break or NUL, which can't be passed to a kernel; encode the value"
    )]
    Value {
        /// The variable's name.
        name: String,
    },
    /// One variable that Linux would not hand to any program.
    #[error(
        "environ: {name} has {bytes} bytes with its value, and Linux passes at most {MAX_VARIABLE_BYTES} in one variable; \
         put the value into a file"
    )]
    VariableTooLarge {
        /// The variable's name, cut at 64 characters.
        name: String,
        /// The size of `NAME=value`, in bytes.
        bytes: usize,
    },
    /// More than the file may hold.
    #[error(
        "environ: {bytes} bytes of variables are more than the {MAX_ENVIRON_BYTES} that a kernel can be given"
    )]
    TooLarge {
        /// The size of the whole, in bytes.
        bytes: usize,
    },
}

/// The file's text.
pub(super) fn render(environ: &BTreeMap<String, String>) -> Result<String, EnvironError> {
    // Python's text files end a line at a lone carriage return, too.
    let breaks = ['\n', '\r', '\0'];
    let mut text = String::new();
    for (name, value) in environ {
        if name.is_empty() || name.contains('=') || name.contains(breaks) {
            return Err(EnvironError::Name { name: name.chars().take(64).collect() });
        }
        if value.contains(breaks) {
            return Err(EnvironError::Value { name: name.clone() });
        }
        let bytes = name.len() + 1 + value.len();
        if bytes > MAX_VARIABLE_BYTES {
            return Err(EnvironError::VariableTooLarge { name: name.chars().take(64).collect(), bytes });
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    if text.len() > MAX_ENVIRON_BYTES {
        return Err(EnvironError::TooLarge { bytes: text.len() });
    }
    Ok(text)
}

/// The variables in a file's bytes, and how many lines were no `NAME=value` in UTF-8: the user can write to the
/// file, so such lines are possible and no reason to fail.
pub(super) fn parse(bytes: &[u8]) -> (BTreeMap<String, String>, usize) {
    let mut environ = BTreeMap::new();
    let mut skipped = 0;
    for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
        match std::str::from_utf8(line).ok().and_then(|line| line.split_once('=')) {
            Some((name, value)) if !name.is_empty() && !line.contains(&0) => {
                environ.insert(name.to_owned(), value.to_owned());
            }
            _ => skipped += 1,
        }
    }
    (environ, skipped)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn one(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn one_variable_is_one_line() {
        assert_eq!(render(&one("A", "b = c")).unwrap(), "A=b = c\n");
        assert_eq!(render(&BTreeMap::new()).unwrap(), "");
    }

    #[test]
    fn a_value_can_not_smuggle_in_a_variable() {
        for value in ["x\nLD_PRELOAD=y", "x\rB=y", "x\0"] {
            assert_eq!(render(&one("A", value)), Err(EnvironError::Value { name: "A".into() }));
        }
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in ["", "A=B", "A\n", "\0", "A\rB"] {
            assert!(matches!(render(&one(name, "x")), Err(EnvironError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn the_error_does_not_show_the_value() {
        let error = render(&one("TOKEN", "hunter2\n")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn too_much_is_refused() {
        let large = "x".repeat(MAX_VARIABLE_BYTES - 3);
        let environ: BTreeMap<_, _> = (0..9).map(|n| (format!("A{n}"), large.clone())).collect();
        assert!(matches!(render(&environ), Err(EnvironError::TooLarge { .. })));
    }

    #[test]
    fn a_variable_that_linux_would_not_pass_on_is_refused() {
        let largest = "x".repeat(MAX_VARIABLE_BYTES - 2);
        assert!(render(&one("A", &largest)).is_ok());
        let error = render(&one("A", &(largest + "x"))).unwrap_err();
        assert_eq!(error, EnvironError::VariableTooLarge { name: "A".into(), bytes: MAX_VARIABLE_BYTES + 1 });
        assert!(error.to_string().len() < 300, "the value is not in the text");
    }

    #[test]
    fn damaged_lines_are_skipped_and_counted() {
        let (environ, skipped) = parse(b"A=1\nnonsense\n=x\n\xff=2\n\nB=2=3\r\n");
        assert_eq!(environ, BTreeMap::from([("A".into(), "1".into()), ("B".into(), "2=3".into())]));
        assert_eq!(skipped, 3);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(environ in btree_map("[^=\n\r\x00]{1,8}", "[^\n\r\x00]{0,12}", 0..8)) {
            let text = render(&environ).unwrap();
            prop_assert_eq!(parse(text.as_bytes()), (environ, 0));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in vec(any::<u8>(), 0..64)) {
            let (environ, _) = parse(&bytes);
            prop_assert!(render(&environ).is_ok());
        }
    }
}
