//! One RPC answer as it travels: `[header, packed body]`.
//!
//! PROTOCOL section 2 (law). The error names are Python paths; the manager's client maps them back to classes
//! and crashes in its own error handling on names outside its table, so [`RemoteError`] can be made with
//! the known names only (section 12, item 8).

use bytes::Bytes;

use super::header::AnswerHeader;
use super::value::{self, UnpackError, Value};

/// The Python exceptions an agent may answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorName {
    /// No such method; args: `[name]`.
    NotFound,
    /// The arguments do not fit the signature; args: `[what was wrong]`.
    Parameters,
    /// A refused or invalid request. The manager logs these less loudly.
    Assertion,
    /// There is no such file; args: `[text]`.
    FileNotFound,
    /// Anything else the agent could not do.
    Runtime,
    /// A time limit of the agent's own.
    Timeout,
}

impl ErrorName {
    /// The path on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "aiozmq.rpc.base.NotFoundError",
            Self::Parameters => "aiozmq.rpc.base.ParametersError",
            Self::Assertion => "builtins.AssertionError",
            Self::FileNotFound => "builtins.FileNotFoundError",
            Self::Runtime => "builtins.RuntimeError",
            // The name that asyncio's class had in the manager's Python 3.6; its client has a mapping for it.
            Self::Timeout => "concurrent.futures._base.TimeoutError",
        }
    }

    fn short(self) -> &'static str {
        let name = self.as_str();
        name.rsplit('.').next().unwrap_or(name)
    }
}

/// What the server sends back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whose answer, to which request.
    pub header: AnswerHeader,
    /// The value or the error; agrees with the header's flag.
    pub body: Result<Value, RemoteError>,
}

/// An error body: `[name, [args…], repr]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteError {
    /// The exception's Python path.
    pub name: String,
    /// The exception's arguments.
    pub args: Vec<Value>,
    /// The exception's `repr()`, which the manager shows for names it does not know.
    pub repr: String,
}

impl RemoteError {
    /// An error with one text as its argument.
    #[must_use]
    pub fn new(name: ErrorName, text: &str) -> Self {
        Self {
            name: name.as_str().to_owned(),
            args: vec![Value::from(text)],
            repr: format!("{}({})", name.short(), python_quoted(text)),
        }
    }
}

/// Why frames are no answer; only clients meet this.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// Not two frames.
    #[error("an answer has 2 frames, this has {0}")]
    FrameCount(usize),
    /// The header has another length.
    #[error("an answer header has 17 bytes, this has {0}")]
    Header(usize),
    /// The body is not msgpack.
    #[error("the body: {0}")]
    Unpack(#[from] UnpackError),
    /// The error flag is set, but the body is not `[name, [args…], repr]`.
    #[error("the error body is not [name, [args…], repr]")]
    ErrorShape,
}

impl Answer {
    /// The frames after the routing id.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let mut body = Vec::new();
        self.pack_body(&mut body);
        vec![Bytes::copy_from_slice(&self.encode_header()), body.into()]
    }

    /// The first of these frames.
    #[must_use]
    pub fn encode_header(&self) -> [u8; 17] {
        AnswerHeader { is_error: self.body.is_err(), ..self.header }.encode()
    }

    /// Appends the second: a large one need not be copied.
    pub fn pack_body(&self, out: &mut Vec<u8>) {
        match &self.body {
            Ok(value) => value::pack_onto(out, value),
            Err(e) => {
                let parts =
                    vec![e.name.as_str().into(), Value::Array(e.args.clone()), e.repr.as_str().into()];
                value::pack_onto(out, &Value::Array(parts));
            }
        }
    }

    /// From the frames after the routing id.
    pub fn decode(frames: &[Bytes]) -> Result<Self, BadAnswer> {
        let [header, body] = frames else { return Err(BadAnswer::FrameCount(frames.len())) };
        let header = AnswerHeader::decode(header).ok_or(BadAnswer::Header(header.len()))?;
        let value = value::unpack(body)?;
        let body =
            if header.is_error { Err(error_from(&value).ok_or(BadAnswer::ErrorShape)?) } else { Ok(value) };
        Ok(Self { header, body })
    }
}

fn error_from(value: &Value) -> Option<RemoteError> {
    let [name, args, repr] = value.as_array()?.as_slice() else { return None };
    Some(RemoteError {
        name: name.as_str()?.to_owned(),
        args: args.as_array()?.clone(),
        repr: repr.as_str()?.to_owned(),
    })
}

/// Text in quotes the way Python's `repr` would put it, near enough to be read.
fn python_quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(is_error: bool) -> AnswerHeader {
        AnswerHeader { pid: 9, random: 8, request_id: 7, sent_at: 6.5, is_error }
    }

    proptest! {
        #[test]
        fn answers_round_trip(text in ".*", fails: bool) {
            let body = if fails { Err(RemoteError::new(ErrorName::Runtime, &text)) } else { Ok(Value::from(text)) };
            let answer = Answer { header: header(fails), body };
            prop_assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        }
    }

    #[test]
    fn the_repr_reads_as_in_python() {
        let repr = |text| RemoteError::new(ErrorName::NotFound, text).repr;
        assert_eq!(repr("no_such"), "NotFoundError('no_such')");
        assert_eq!(repr("it's"), "NotFoundError(\"it's\")");
        assert_eq!(repr("a\n'\""), "NotFoundError('a\\n\\'\"')");
    }

    #[test]
    fn an_error_flag_without_an_error_body_is_refused() {
        let mut frames =
            Answer { header: header(true), body: Err(RemoteError::new(ErrorName::Runtime, "x")) }.encode();
        frames[1] = Bytes::from_static(b"\xc0");
        assert!(matches!(Answer::decode(&frames), Err(BadAnswer::ErrorShape)));
    }
}
