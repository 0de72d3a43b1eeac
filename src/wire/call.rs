//! One RPC call as it travels: `[header, method, packed arguments, packed keyword arguments]`.
//!
//! PROTOCOL section 2 (law). The routing id that the ROUTER socket puts in front is not part of it.

use bytes::Bytes;

use super::header::RequestHeader;
use super::value::{self, Sequence, UnpackError, Value};

/// The most values of a call's arguments, and again of its keyword arguments; a create with a long environment has some
/// hundreds.
pub const MAX_VALUES: usize = 10_000;

/// A decoded call; its arguments are not yet checked against any signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Who asks, and by which number the answer is matched.
    pub header: RequestHeader,
    /// The method's name, as sent.
    pub method: String,
    /// Positional arguments, but for `file`.
    pub args: Vec<Value>,
    /// The last positional argument where that is bytes: a part of the frame in which it came.
    pub file: Option<Bytes>,
    /// Keyword arguments, in the order sent.
    pub kwargs: Vec<(String, Value)>,
}

/// Why frames are no call. Such frames are logged and dropped, since no client makes them; but for one that says too
/// much, which is answered.
#[derive(Debug, thiserror::Error)]
pub enum BadCall {
    /// Not four frames.
    #[error("a call has 4 frames, this has {0}")]
    FrameCount(usize),
    /// The header has another length.
    #[error("a request header has 16 bytes, this has {0}")]
    Header(usize),
    /// The method's name is not UTF-8.
    #[error("the method's name is not UTF-8")]
    Method,
    /// The arguments' frame is not msgpack.
    #[error("the {frame} frame: {source}")]
    Unpack {
        /// Which frame.
        frame: &'static str,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// The arguments' frame is msgpack, but no sequence or map with text keys.
    #[error("the {frame} frame is not a {wanted}")]
    Shape {
        /// Which frame.
        frame: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

impl BadCall {
    /// Whether it is a call all the same, of too many values.
    #[must_use]
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Unpack { source: UnpackError::TooMany(_), .. })
    }
}

impl Call {
    /// From the frames after the routing id.
    pub fn decode(frames: &[Bytes]) -> Result<Self, BadCall> {
        let [header, method, args, kwargs] = frames else {
            return Err(BadCall::FrameCount(frames.len()));
        };
        let header = RequestHeader::decode(header).ok_or(BadCall::Header(header.len()))?;
        let method = std::str::from_utf8(method).map_err(|_| BadCall::Method)?.to_owned();
        let no_msgpack = |frame| move |source| BadCall::Unpack { frame, source };
        let Sequence { items: args, file } = value::unpack_sequence(args, MAX_VALUES)
            .map_err(no_msgpack("args"))?
            .ok_or(BadCall::Shape { frame: "args", wanted: "sequence" })?;
        let kwargs = value::unpack_at_most(kwargs, MAX_VALUES).map_err(no_msgpack("kwargs"))?;
        let shape = BadCall::Shape { frame: "kwargs", wanted: "map with text keys" };
        let Value::Map(pairs) = kwargs else { return Err(shape) };
        let named = pairs.into_iter().map(|(k, v)| Some((k.as_str()?.to_owned(), v)));
        let kwargs = named.collect::<Option<Vec<_>>>().ok_or(shape)?;
        Ok(Self { header, method, args, file, kwargs })
    }

    /// All positional arguments, whatever they hold.
    #[must_use]
    pub fn all_args(self) -> Vec<Value> {
        let file = self.file.map(|bytes| Value::Binary(bytes.into()));
        self.args.into_iter().chain(file).collect()
    }

    /// The frames after the routing id; what a client sends.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let kwargs = value::map(self.kwargs.iter().map(|(k, v)| (k.as_str(), v.clone())));
        vec![
            Bytes::copy_from_slice(&self.header.encode()),
            Bytes::copy_from_slice(self.method.as_bytes()),
            value::pack(&Value::Array(self.clone().all_args())).into(),
            value::pack(&kwargs).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> RequestHeader {
        RequestHeader { pid: 1, random: 2, request_id: 3, sent_at: 4.5 }
    }

    proptest! {
        #[test]
        fn calls_round_trip(method in ".{0,12}", text in ".*", number: i64, key in "[a-z]{1,8}",
                            file: Option<Vec<u8>>) {
            let call = Call { header: header(), method, args: vec![text.into(), number.into()],
                              file: file.map(Bytes::from), kwargs: vec![(key, Value::Nil)] };
            prop_assert_eq!(Call::decode(&call.encode()).unwrap(), call);
        }

        #[test]
        fn any_frames_are_a_call_or_refused(frames in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
            let _ = Call::decode(&frames);
        }
    }

    #[test]
    fn each_frame_is_checked() {
        let good = Call { header: header(), method: "ping".into(), args: vec![], file: None, kwargs: vec![] }
            .encode();
        let with = |i: usize, bytes: &'static [u8]| {
            let mut frames = good.clone();
            frames[i] = Bytes::from_static(bytes);
            Call::decode(&frames).unwrap_err().to_string()
        };
        assert_eq!(with(0, b"short"), "a request header has 16 bytes, this has 5");
        assert_eq!(with(1, b"\xff"), "the method's name is not UTF-8");
        assert!(with(2, b"\xd9").starts_with("the args frame: not msgpack"));
        assert_eq!(with(2, b"\xc0"), "the args frame is not a sequence");
        assert_eq!(with(3, b"\x90"), "the kwargs frame is not a map with text keys");
        assert!(matches!(Call::decode(&good[..3]), Err(BadCall::FrameCount(3))));
    }
}
