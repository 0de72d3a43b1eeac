//! JSON in, msgpack out, and back: tests are written with `json!`, the wire carries msgpack.
//!
//! What JSON lacks is made visible, not lost: bytes become `{"$bytes": [..]}` and ext values `{"$ext": type}`.

use rmpv::Value;
use serde_json::{Map, Value as Json, json};

/// The msgpack value that a Python peer would send for this JSON.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Boolean(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => i.into(),
            (None, Some(u)) => u.into(),
            _ => n.as_f64().unwrap().into(),
        },
        Json::String(s) => s.as_str().into(),
        Json::Array(items) => Value::Array(items.iter().map(from_json).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.as_str().into(), from_json(v))).collect()),
    }
}

/// The JSON that shows this value; equal whatever the order of map keys.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(b) => json!(b),
        Value::Integer(i) => i.as_i64().map_or_else(|| json!(i.as_u64()), |i| json!(i)),
        Value::F32(f) => json!(f),
        Value::F64(f) => json!(f),
        Value::String(s) => json!(s.as_str().expect("text that is not UTF-8")),
        Value::Binary(bytes) => json!({ "$bytes": bytes }),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => {
            let pairs =
                pairs.iter().map(|(k, v)| (k.as_str().expect("a key that is no text").into(), to_json(v)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
        Value::Ext(kind, _) => json!({ "$ext": kind }),
    }
}

/// Encodes one value.
pub(crate) fn pack(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

/// Decodes exactly one value; bytes left over are a mistake of the sender.
pub(crate) fn unpack(mut bytes: &[u8]) -> Value {
    let value = rmpv::decode::read_value(&mut bytes).expect("msgpack");
    assert!(bytes.is_empty(), "{} bytes after the msgpack value", bytes.len());
    value
}

/// The keys of a JSON map, sorted.
pub(crate) fn keys(map: &Json) -> Vec<&str> {
    let mut keys: Vec<&str> =
        map.as_object().unwrap_or_else(|| panic!("not a map: {map}")).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
