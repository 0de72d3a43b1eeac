//! How much of the machine a kernel gets, as the managers of each series write it (PROTOCOL section 3). Pure.
//!
//! Each number says by its own type how it counts: 1.3 sends numbers, and memory in MiB; 1.4 and 18.12 send decimal text, and
//! memory in GiB. That holds for a create only. On a restart 1.4 and 18.12 send numbers that may count in either, so nothing
//! reads them there: a kernel's limits never change in any of these managers.

use std::time::Duration;

use super::params::kind;
use super::value::{self, Value};
use crate::units::{Cores, Gpus, Memory};

/// The slots that the manager schedules by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Memory; none means that there is no limit.
    pub mem_slot: Memory,
    /// Cores.
    pub cpu_slot: Cores,
    /// GPUs.
    pub gpu_slot: Gpus,
}

/// How long managers up to 1.4 wait for a kernel. They close their connection when they give up.
pub const SHORT_WAIT: Duration = Duration::from_secs(3);
/// How long the manager of 18.12 waits for a kernel, less 2 s for the way of the answer: it keeps its connection when it
/// gives up, so nothing else tells.
pub const LONG_WAIT: Duration = Duration::from_secs(28);

/// A limit that can't be used; the text says which and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLimit(pub String);

impl Limits {
    /// From the `limits` of a create.
    pub fn from_value(given: &Value) -> Result<Self, BadLimit> {
        let missing = |name: &str| BadLimit(format!("limits.{name} is missing"));
        // No machine of this agent has any.
        let tpus = slot(given, "tpu_slot", |n| Gpus::from_slot(n.amount()))?.unwrap_or_default();
        if tpus > Gpus::default() {
            return Err(BadLimit(format!("limits.tpu_slot is {}, and this agent has no TPUs", tpus.slot())));
        }
        let memory = |n: Number| match n {
            Number::Text(gib) => Memory::from_gib(gib),
            Number::Plain(mib) => Memory::from_slot(mib),
        };
        Ok(Self {
            mem_slot: slot(given, "mem_slot", memory)?.ok_or_else(|| missing("mem_slot"))?,
            cpu_slot: slot(given, "cpu_slot", |n| Cores::from_slot(n.amount()))?
                .ok_or_else(|| missing("cpu_slot"))?,
            gpu_slot: slot(given, "gpu_slot", |n| Gpus::from_slot(n.amount()))?.unwrap_or_default(),
        })
    }

    /// As a manager of 1.3 sends it; what the client commands use.
    #[must_use]
    pub fn to_value(self) -> Value {
        value::map([
            ("mem_slot", Value::from(self.mem_slot.slot())),
            ("cpu_slot", Value::from(self.cpu_slot.slot())),
            ("gpu_slot", Value::from(self.gpu_slot.slot())),
        ])
    }
}

/// By when whoever sends these `limits` wants its kernel, from the receipt of its call on.
#[must_use]
pub fn wait(limits: &Value) -> Duration {
    if value::get(limits, "tpu_slot").is_some() { LONG_WAIT } else { SHORT_WAIT }
}

#[derive(Clone, Copy)]
enum Number {
    Plain(f64),
    /// Of a decimal text.
    Text(f64),
}

impl Number {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.as_str()?.parse().ok().map(Self::Text),
            number => number.as_f64().map(Self::Plain),
        }
    }

    fn amount(self) -> f64 {
        let (Self::Plain(number) | Self::Text(number)) = self;
        number
    }
}

fn slot<T>(limits: &Value, name: &str, read: impl Fn(Number) -> Option<T>) -> Result<Option<T>, BadLimit> {
    let Some(given) = value::get(limits, name).filter(|v| !v.is_nil()) else { return Ok(None) };
    let wrong = || {
        let shown: String = given.to_string().chars().take(80).collect();
        BadLimit(format!("limits.{name} must be a number, 0 or more, not {} ({shown})", kind(given)))
    };
    Number::read(given).and_then(read).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(mem: impl Into<Value>, cpu: impl Into<Value>, more: &[(&'static str, Value)]) -> Value {
        let pairs = [("mem_slot", mem.into()), ("cpu_slot", cpu.into())];
        value::map(pairs.into_iter().chain(more.iter().cloned()))
    }

    fn read(value: &Value) -> Result<(u64, f64, f64), String> {
        let limits = Limits::from_value(value).map_err(|bad| bad.to_string())?;
        Ok((limits.mem_slot.bytes(), limits.cpu_slot.slot(), limits.gpu_slot.slot()))
    }

    #[test]
    fn each_series_form_means_the_same() {
        let half = Ok((512 << 20, 1.0, 0.0));
        assert_eq!(read(&given(512, 1.0, &[("gpu_slot", 0.0.into())])), half, "1.3");
        assert_eq!(read(&given("0.5", "1.00", &[("gpu_slot", "0".into())])), half, "1.4");
        let with_tpu = [("gpu_slot", "0".into()), ("tpu_slot", "0".into())];
        assert_eq!(read(&given("0.5", "1.00", &with_tpu)), half, "18.12");
        assert_eq!(read(&given("1E+1", "1.5", &[("gpu_slot", "0.25".into())])), Ok((10 << 30, 1.5, 0.25)));
    }

    #[test]
    fn the_manager_that_knows_tpus_waits_longer() {
        assert_eq!(wait(&given(512, 1, &[])), SHORT_WAIT);
        assert_eq!(wait(&given("0.5", "1", &[])), SHORT_WAIT);
        assert_eq!(wait(&given("0.5", "1", &[("tpu_slot", "0".into())])), LONG_WAIT);
        assert_eq!(wait(&Value::Nil), SHORT_WAIT);
    }

    #[test]
    fn what_is_no_amount_is_named() {
        let check = |value: Value, expected: &str| assert_eq!(read(&value), Err(expected.to_owned()));
        check(Value::Nil, "limits.mem_slot is missing");
        check(given(Value::Nil, 1, &[]), "limits.mem_slot is missing");
        check(given(1, Value::Nil, &[]), "limits.cpu_slot is missing");
        for text in ["lots", "", "-1", "NaN", "Infinity", "1,5", "0.5 "] {
            let expected = format!("limits.mem_slot must be a number, 0 or more, not text ({text:?})");
            check(given(text, 1, &[]), &expected);
        }
        check(given(1, f64::NAN, &[]), "limits.cpu_slot must be a number, 0 or more, not a float (NaN)");
        let tpu = [("tpu_slot", "0.5".into())];
        check(given("1", "1", &tpu), "limits.tpu_slot is 0.5, and this agent has no TPUs");
    }

    proptest! {
        #[test]
        fn any_text_and_number_is_read_or_refused(text in "\\PC{0,12}", number in any::<f64>()) {
            let _ = read(&given(text, number, &[]));
        }

        #[test]
        fn what_a_client_writes_is_read_back(bytes in 0..1_u64 << 53, cores in 0f64..64.0) {
            let limits = Limits {
                mem_slot: Memory::from_bytes(bytes),
                cpu_slot: Cores::from_slot(cores).unwrap(),
                gpu_slot: Gpus::default(),
            };
            prop_assert_eq!(Limits::from_value(&limits.to_value()).unwrap(), limits);
        }
    }
}
