//! Binding of positional and keyword arguments to a signature, as Python does it.
//!
//! PROTOCOL section 2: both forms are legal. Arguments that do not fit are a `ParametersError`; unlike the
//! reference, which coerces by calling the annotated type (`ping(123)` answers `"123"`), a wrong type is refused.

use super::value::{self, Value};

/// The arguments of one call, by name.
#[derive(Debug)]
pub struct Bound<'n> {
    slots: Vec<(&'n str, Option<Value>)>,
}

/// Arguments that do not fit; the text becomes the argument of the `ParametersError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadParameters(pub String);

/// Binds to a signature in which every parameter is required.
pub fn bind<'n>(
    names: &[&'n str],
    args: Vec<Value>,
    kwargs: Vec<(String, Value)>,
) -> Result<Bound<'n>, BadParameters> {
    let mut slots: Vec<_> = names.iter().map(|name| (*name, None)).collect();
    if args.len() > names.len() {
        return Err(BadParameters("too many positional arguments".to_owned()));
    }
    for (slot, value) in slots.iter_mut().zip(args) {
        slot.1 = Some(value);
    }
    for (name, value) in kwargs {
        match slots.iter_mut().find(|(n, _)| *n == name) {
            None => return Err(BadParameters(format!("got an unexpected keyword argument '{name}'"))),
            Some((_, Some(_))) => {
                return Err(BadParameters(format!("multiple values for argument '{name}'")));
            }
            Some((_, slot)) => *slot = Some(value),
        }
    }
    for (name, slot) in &slots {
        match slot {
            None => return Err(BadParameters(format!("missing a required argument: '{name}'"))),
            Some(v) if value::holds_ext(v) => {
                return Err(BadParameters(format!(
                    "argument '{name}' holds a msgpack extension type; only plain values are taken"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(Bound { slots })
}

impl Bound<'_> {
    /// Takes the value out; nil when it was taken before.
    pub fn value(&mut self, name: &str) -> Value {
        let slot = self.slots.iter_mut().find(|(n, _)| *n == name);
        slot.and_then(|(_, v)| v.take()).unwrap_or(Value::Nil)
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Result<String, BadParameters> {
        let value = self.value(name);
        as_text(&value).ok_or_else(|| wrong(name, "text", &value))
    }

    /// A text, or nil.
    pub fn text_or_nil(&mut self, name: &str) -> Result<Option<String>, BadParameters> {
        match self.value(name) {
            Value::Nil => Ok(None),
            value => as_text(&value).map(Some).ok_or_else(|| wrong(name, "text or nil", &value)),
        }
    }

    /// A map; nil counts as an empty one.
    pub fn map_or_nil(&mut self, name: &str) -> Result<Value, BadParameters> {
        match self.value(name) {
            Value::Nil => Ok(Value::Map(Vec::new())),
            value @ Value::Map(_) => Ok(value),
            value => Err(wrong(name, "a map", &value)),
        }
    }

    /// A map.
    pub fn map(&mut self, name: &str) -> Result<Value, BadParameters> {
        match self.value(name) {
            value @ Value::Map(_) => Ok(value),
            value => Err(wrong(name, "a map", &value)),
        }
    }

    /// A whole number.
    pub fn int(&mut self, name: &str) -> Result<i64, BadParameters> {
        let value = self.value(name);
        value.as_i64().ok_or_else(|| wrong(name, "a whole number", &value))
    }

    /// Bytes.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, BadParameters> {
        match self.value(name) {
            Value::Binary(bytes) => Ok(bytes),
            value => Err(wrong(name, "bytes", &value)),
        }
    }
}

fn as_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn wrong(name: &str, wanted: &str, value: &Value) -> BadParameters {
    BadParameters(format!("argument '{name}' must be {wanted}, not {}", kind(value)))
}

/// What a value is, in the words of an error text.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::F32(_) | Value::F64(_) => "a float",
        Value::String(s) if s.is_str() => "text",
        Value::String(_) => "text that is not UTF-8",
        Value::Binary(_) => "bytes",
        Value::Array(_) => "a sequence",
        Value::Map(_) => "a map",
        Value::Ext(..) => "an extension type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: Vec<Value>, kwargs: Vec<(&str, Value)>, expected: Result<(), &str>) {
        let kwargs = kwargs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let got = bind(&["a", "b"], args, kwargs).map(|_| ());
        assert_eq!(got, expected.map_err(|text| BadParameters(text.to_owned())));
    }

    #[test]
    fn arguments_bind_as_in_python() {
        let one = || Value::from(1);
        check(vec![one(), one()], vec![], Ok(()));
        check(vec![one()], vec![("b", one())], Ok(()));
        check(vec![], vec![("b", one()), ("a", one())], Ok(()));
        check(vec![one()], vec![], Err("missing a required argument: 'b'"));
        check(vec![one(); 3], vec![], Err("too many positional arguments"));
        check(vec![one()], vec![("a", one())], Err("multiple values for argument 'a'"));
        check(vec![], vec![("c", one())], Err("got an unexpected keyword argument 'c'"));
        let pickle = Value::Array(vec![Value::Ext(127, vec![0x80])]);
        let text = "argument 'b' holds a msgpack extension type; only plain values are taken";
        check(vec![one(), pickle], vec![], Err(text));
    }

    #[test]
    fn types_are_not_coerced() {
        let mut bound = bind(&["a", "b"], vec![Value::from(5), Value::Nil], vec![]).unwrap();
        assert_eq!(bound.text("a").unwrap_err().0, "argument 'a' must be text, not an integer");
        assert_eq!(bound.text_or_nil("b").unwrap(), None);
    }
}
