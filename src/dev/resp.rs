//! The protocol of Redis, as its server reads and writes it. Pure.

use bytes::{Buf, Bytes, BytesMut};

/// The most words of a command.
const WORDS: usize = 1024;
/// The longest word, in bytes.
const LONGEST: usize = 64 * 1024;
/// The longest line: the head of a command or of a word.
const LINE: usize = 32;

/// Bytes that are no command, or one beyond the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: send commands as arrays of at most {WORDS} words of {LONGEST} bytes")]
pub(super) struct Malformed;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A word of the protocol's own.
    Simple(&'static str),
    /// What is wrong, its kind first.
    Error(String),
    /// A number.
    Int(i64),
    /// A text.
    Bulk(Vec<u8>),
    /// Nothing.
    Nil,
    /// Several.
    Array(Vec<Reply>),
}

/// Takes the next command out of `buffer`; `None` while it isn't all there.
pub(super) fn command(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, Malformed> {
    let mut rest = &buffer[..];
    let Some(words) = head(&mut rest, b'*', WORDS)? else { return Ok(None) };
    let mut command = Vec::new();
    for _ in 0..words {
        let Some(length) = head(&mut rest, b'$', LONGEST)? else { return Ok(None) };
        let Some((word, after)) = rest.split_at_checked(length) else { return Ok(None) };
        match after {
            [b'\r', b'\n', after @ ..] => rest = after,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(Malformed),
        }
        command.push(Bytes::copy_from_slice(word));
    }
    let read = buffer.len() - rest.len();
    buffer.advance(read);
    Ok(Some(command))
}

/// A line of one mark and a number up to `most`.
fn head(rest: &mut &[u8], mark: u8, most: usize) -> Result<Option<usize>, Malformed> {
    let Some(end) = rest.iter().take(LINE).position(|byte| *byte == b'\n') else {
        return if rest.len() < LINE && rest.first().is_none_or(|first| *first == mark) {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    let number = rest[..end].strip_prefix(&[mark]).and_then(|line| line.strip_suffix(b"\r"));
    let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    *rest = &rest[end + 1..];
    number.filter(|number| *number <= most).map(Some).ok_or(Malformed)
}

impl Reply {
    /// Appends its bytes.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut line = |mark: char, text: &str| to.extend_from_slice(format!("{mark}{text}\r\n").as_bytes());
        match self {
            Self::Simple(text) => line('+', text),
            Self::Error(text) => line('-', text),
            Self::Int(number) => line(':', &number.to_string()),
            Self::Nil => line('$', "-1"),
            Self::Bulk(text) => {
                line('$', &text.len().to_string());
                to.extend_from_slice(text);
                to.extend_from_slice(b"\r\n");
            }
            Self::Array(replies) => {
                line('*', &replies.len().to_string());
                for reply in replies {
                    reply.write(to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_is_taken_when_all_of_it_is_there() {
        let sent = b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n";
        for cut in 0..sent.len() {
            let mut part = BytesMut::from(&sent[..cut]);
            assert_eq!(command(&mut part), Ok(None), "{cut}");
            assert_eq!(part.len(), cut);
        }
        let mut two = BytesMut::from(&[&sent[..], &sent[..3]].concat()[..]);
        assert_eq!(command(&mut two), Ok(Some(vec!["PING".into(), "".into()])));
        assert_eq!(&two[..], b"*2\r");
    }

    #[test]
    fn what_is_no_command_or_too_large_is_refused() {
        for sent in [
            "PING\r\n",
            "*x\r\n",
            "*-1\r\n",
            "*1025\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n$65537\r\n",
            "*1\r\n$1\r\nxyz",
            "*00000000000000000000000000000001",
        ] {
            assert_eq!(command(&mut BytesMut::from(sent)), Err(Malformed), "{sent:?}");
        }
    }

    #[test]
    fn replies_look_as_clients_read_them() {
        let reply = Reply::Array(vec![
            Reply::Simple("OK"),
            Reply::Error("ERR no".into()),
            Reply::Int(-2),
            Reply::Nil,
            Reply::Bulk(b"a\r\nb".to_vec()),
        ]);
        let mut bytes = Vec::new();
        reply.write(&mut bytes);
        assert_eq!(bytes, b"*5\r\n+OK\r\n-ERR no\r\n:-2\r\n$-1\r\n$4\r\na\r\nb\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(sent: Vec<u8>) {
            let mut buffer = BytesMut::from(&sent[..]);
            while let Ok(Some(_)) = command(&mut buffer) {}
        }
    }
}
