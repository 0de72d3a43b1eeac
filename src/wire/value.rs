//! Msgpack values as the Python side packs them (`use_bin_type=True`: text as str, bytes as bin).
//!
//! PROTOCOL, notation and section 2. Sequences arrive as arrays whatever Python calls them. Ext types are kept
//! as they are: 123–127 hold Python pickles, which are never looked into; [`holds_ext`] tells them apart so
//! that parameters which contain one can be refused.

use std::io::{self, Cursor, Read};

use bytes::Bytes;
pub use rmpv::Value;

/// How deep a value may nest. The manager sends four levels at most; a deeper value is an attempt on the stack.
const MAX_DEPTH: usize = 64;

/// Bytes that are not exactly one msgpack value.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The bytes end early, nest too deep or hold an unknown marker.
    #[error("not msgpack: {0}")]
    Malformed(#[from] rmpv::decode::Error),
    /// A whole value, and then more.
    #[error("{0} bytes follow the msgpack value")]
    Trailing(usize),
    /// A value of too many parts.
    #[error("more than {0} values")]
    TooMany(usize),
}

/// One whole value.
pub fn unpack(bytes: &[u8]) -> Result<Value, UnpackError> {
    // No value is shorter than a byte.
    unpack_at_most(bytes, bytes.len() + 1)
}

/// One whole value of at most so many values, itself included; each takes some ten times the memory that it takes as
/// bytes. Stops reading at the limit.
pub fn unpack_at_most(bytes: &[u8], values: usize) -> Result<Value, UnpackError> {
    let mut counted = Counted { bytes: Cursor::new(bytes), left: 2 * values };
    let value = counted.value(MAX_DEPTH, values)?;
    counted.ends()?;
    Ok(value)
}

/// A sequence, and what it ends with.
#[derive(Debug)]
pub struct Sequence {
    /// Its values but for `file`.
    pub items: Vec<Value>,
    /// The last value where that is bytes: a part of the frame, not copied, since it may be a file of any size.
    pub file: Option<Bytes>,
}

/// A sequence as [`unpack_at_most`] has it; `None` for a value that is none.
pub fn unpack_sequence(frame: &Bytes, values: usize) -> Result<Option<Sequence>, UnpackError> {
    let Some((head, count)) = sequence_head(frame) else {
        return unpack_at_most(frame, values).map(|_| None);
    };
    let mut counted = Counted { bytes: Cursor::new(frame), left: 2 * values - 1 };
    counted.bytes.set_position(head);
    let mut items = Vec::new();
    for still in (0..count).rev() {
        if still == 0
            && let Some(at) = start_of_last_bytes(frame, counted.read())
        {
            return Ok(Some(Sequence { items, file: Some(frame.slice(at..)) }));
        }
        items.push(counted.value(MAX_DEPTH - 1, values)?);
    }
    counted.ends()?;
    Ok(Some(Sequence { items, file: None }))
}

/// How many bytes the head of a sequence takes, and how many values follow it.
fn sequence_head(bytes: &[u8]) -> Option<(u64, u32)> {
    match *bytes {
        [marker @ 0x90..=0x9f, ..] => Some((1, u32::from(marker & 0x0f))),
        [0xdc, a, b, ..] => Some((3, u32::from_be_bytes([0, 0, a, b]))),
        [0xdd, a, b, c, d, ..] => Some((5, u32::from_be_bytes([a, b, c, d]))),
        _ => None,
    }
}

/// Where the content begins, if the value at `at` is bytes that go on to the end of all.
fn start_of_last_bytes(all: &[u8], at: usize) -> Option<usize> {
    let (head, length) = match *all.get(at..)? {
        [0xc4, a, ..] => (2, u32::from(a)),
        [0xc5, a, b, ..] => (3, u32::from_be_bytes([0, 0, a, b])),
        [0xc6, a, b, c, d, ..] => (5, u32::from_be_bytes([a, b, c, d])),
        _ => return None,
    };
    let start = at + head;
    (start.checked_add(usize::try_from(length).ok()?)? == all.len()).then_some(start)
}

/// Counts values by the reads of a single byte: one for each value's marker, and for some values one more.
struct Counted<'b> {
    bytes: Cursor<&'b [u8]>,
    left: usize,
}

impl Counted<'_> {
    /// The next value; `values` is the limit that an error names.
    fn value(&mut self, depth: usize, values: usize) -> Result<Value, UnpackError> {
        match rmpv::decode::read_value_with_max_depth(self, depth) {
            Err(_) if self.left == 0 => Err(UnpackError::TooMany(values)),
            read => Ok(read?),
        }
    }

    /// Nothing may be left.
    fn ends(&self) -> Result<(), UnpackError> {
        match self.bytes.get_ref().len() - self.read() {
            0 => Ok(()),
            more => Err(UnpackError::Trailing(more)),
        }
    }

    fn read(&self) -> usize {
        usize::try_from(self.bytes.position()).unwrap_or(usize::MAX)
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.len() == 1 {
            self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::QuotaExceeded)?;
        }
        self.bytes.read(buffer)
    }
}

/// The bytes of one value.
#[must_use]
pub fn pack(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack_onto(&mut bytes, value);
    bytes
}

/// Appends one.
pub fn pack_onto(out: &mut Vec<u8>, value: &Value) {
    let begin = out.len();
    // Writing to a Vec can't fail; should it ever, nil is a value that every peer can read.
    if rmpv::encode::write_value(out, value).is_err() {
        out.truncate(begin);
        out.push(0xc0);
    }
}

/// Whether an ext value hides anywhere in it.
#[must_use]
pub fn holds_ext(value: &Value) -> bool {
    match value {
        Value::Ext(..) => true,
        Value::Array(items) => items.iter().any(holds_ext),
        Value::Map(pairs) => pairs.iter().any(|(k, v)| holds_ext(k) || holds_ext(v)),
        _ => false,
    }
}

/// A map with text keys, in the given order.
#[must_use]
pub fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(pairs.into_iter().map(|(k, v)| (Value::from(k), v)).collect())
}

/// A list of unsigned integers, as `cpu_set` and `gpu_set` travel.
#[must_use]
pub fn uints(items: &[u32]) -> Value {
    Value::Array(items.iter().map(|n| Value::from(*n)).collect())
}

/// An optional value, nil when there is none.
#[must_use]
pub fn opt<T: Into<Value>>(value: Option<T>) -> Value {
    value.map_or(Value::Nil, Into::into)
}

/// The value under a text key of a map; `None` for a missing key and for anything but a map.
#[must_use]
pub fn get<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let pairs = value.as_map()?;
    // The last one wins, as in a Python dict.
    pairs.iter().rev().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
}

/// JSON as the runner sends it, in msgpack as the manager is answered.
#[must_use]
pub fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::Number(n) => n
            .as_i64()
            .map(Value::from)
            .or_else(|| n.as_u64().map(Value::from))
            .or_else(|| n.as_f64().map(Value::from))
            .unwrap_or(Value::Nil),
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(items) => Value::Array(items.iter().map(from_json).collect()),
        serde_json::Value::Object(pairs) => {
            Value::Map(pairs.iter().map(|(k, v)| (Value::from(k.as_str()), from_json(v))).collect())
        }
    }
}

/// Msgpack as the manager sends options, in JSON as the runner reads them; bytes become text.
#[must_use]
pub fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil | Value::Ext(..) => serde_json::Value::Null,
        Value::Boolean(b) => (*b).into(),
        Value::Integer(n) => n
            .as_i64()
            .map(serde_json::Value::from)
            .or_else(|| n.as_u64().map(serde_json::Value::from))
            .unwrap_or(serde_json::Value::Null),
        Value::F32(x) => f64::from(*x).into(),
        Value::F64(x) => (*x).into(),
        Value::String(s) => String::from_utf8_lossy(s.as_bytes()).into_owned().into(),
        Value::Binary(b) => String::from_utf8_lossy(b).into_owned().into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(k, v)| {
                let key = k.as_str().map_or_else(|| k.to_string(), str::to_owned);
                (key, to_json(v))
            });
            serde_json::Value::Object(pairs.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300f64).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                proptest::collection::vec((inner.clone(), inner), 0..6).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_itself(value in any_value()) {
            prop_assert_eq!(unpack(&pack(&value)).unwrap(), value);
        }

        #[test]
        fn any_bytes_unpack_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = unpack(&bytes);
        }
    }

    #[test]
    fn trailing_bytes_and_bottomless_nests_are_refused() {
        assert!(matches!(unpack(&[0xc0, 0xc0]), Err(UnpackError::Trailing(1))));
        assert!(matches!(unpack(&[0x91; 5000]), Err(UnpackError::Malformed(_))));
        assert!(matches!(unpack(&[]), Err(UnpackError::Malformed(_))));
        // an array that claims four billion items and holds none
        assert!(matches!(unpack(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(UnpackError::Malformed(_))));
    }

    #[test]
    fn values_are_counted_before_they_take_memory() {
        let nils = |count: u32| [&b"\xdd"[..], &count.to_be_bytes(), &vec![0xc0; count as usize]].concat();
        assert_eq!(unpack_at_most(&nils(100), 101).unwrap().as_array().unwrap().len(), 100);
        // Of ten million the limit is all that is looked at.
        let many = nils(10_000_000);
        let began = std::time::Instant::now();
        assert!(matches!(unpack_at_most(&many, 1000), Err(UnpackError::TooMany(1000))));
        assert!(began.elapsed() < std::time::Duration::from_millis(50), "{:?}", began.elapsed());
        // A long value is one.
        let file = pack(&Value::from(vec![7_u8; 1 << 20]));
        assert!(unpack_at_most(&file, 1).is_ok());
        let texts = pack(&Value::Array(vec!["".into(), "a".into(), "b".repeat(40).into(), 200.into()]));
        assert!(unpack_at_most(&texts, 5).is_ok());
        assert!(matches!(unpack_at_most(&[0x91; 5000], 10_000), Err(UnpackError::Malformed(_))));
    }

    #[test]
    fn bytes_at_the_end_of_a_sequence_stay_where_they_came() {
        let frame = Bytes::from(pack(&Value::Array(vec!["name".into(), Value::from(vec![7_u8; 1000])])));
        let Sequence { items, file } = unpack_sequence(&frame, 10).unwrap().unwrap();
        let file = file.unwrap();
        assert_eq!((items, &file[..]), (vec!["name".into()], &[7; 1000][..]));
        assert!(frame.as_ptr_range().contains(&file.as_ptr()), "the bytes were copied");
        let inner = Bytes::from(pack(&Value::Array(vec![Value::from(vec![7_u8]), 1.into()])));
        let Sequence { items, file } = unpack_sequence(&inner, 10).unwrap().unwrap();
        assert_eq!((items.len(), file), (2, None));
        assert!(unpack_sequence(&Bytes::from_static(b"\xc0"), 10).unwrap().is_none());
        assert!(matches!(unpack_sequence(&inner, 2), Err(UnpackError::TooMany(2))));
    }

    #[test]
    fn a_hidden_ext_is_found() {
        let pickle = Value::Ext(127, vec![1]);
        assert!(holds_ext(&Value::Array(vec![map([("a", pickle)])])));
        assert!(!holds_ext(&map([("a", Value::from("b"))])));
    }
}
