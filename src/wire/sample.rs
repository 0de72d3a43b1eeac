//! One kernel's figures at one moment, in the shape that the manager reads (PROTOCOL section 6).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::value::{self, Value};

/// The statistics map of a kernel. Goes to Redis, into the answer of `destroy_kernel`, into `kernel_terminated`,
/// and (as JSON) into the journal of endings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// CPU time used since the container's start, milliseconds; finite and never negative.
    pub cpu_used_ms: f64,
    /// The most memory that was in use at any time, bytes, page cache included.
    pub mem_max_bytes: u64,
    /// Memory in use, bytes, page cache included.
    pub mem_cur_bytes: u64,
    /// Bytes received on the interfaces `eth*`.
    pub net_rx_bytes: u64,
    /// Bytes sent on the interfaces `eth*`.
    pub net_tx_bytes: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
    /// The largest size of the scratch directory that was measured, bytes.
    pub io_max_scratch_size: u64,
    /// The size of the scratch directory, bytes: the lengths of its files.
    pub io_cur_scratch_size: u64,
}

/// A figure as it travels: its text goes to Redis, its value into msgpack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Fits a signed 64-bit integer: the manager's database columns are that wide.
    Int(u64),
    /// Finite.
    Float(f64),
}

impl fmt::Display for Number {
    /// Decimal text without an exponent, which Python's `int` and `float` read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}

impl Sample {
    /// All nine figures under their names on the wire. The manager looks only for `cpu_used` before it takes the
    /// others, so they always come together.
    #[must_use]
    pub fn pairs(&self) -> [(&'static str, Number); 9] {
        let int = |number: u64| Number::Int(number.min(i64::MAX.unsigned_abs()));
        // Neither NaN, nor an infinity, nor the minus of -0.0 gets out.
        let cpu_used =
            if self.cpu_used_ms.is_finite() && self.cpu_used_ms > 0.0 { self.cpu_used_ms } else { 0.0 };
        [
            ("cpu_used", Number::Float(cpu_used)),
            ("mem_max_bytes", int(self.mem_max_bytes)),
            ("mem_cur_bytes", int(self.mem_cur_bytes)),
            ("net_rx_bytes", int(self.net_rx_bytes)),
            ("net_tx_bytes", int(self.net_tx_bytes)),
            ("io_read_bytes", int(self.io_read_bytes)),
            ("io_write_bytes", int(self.io_write_bytes)),
            ("io_max_scratch_size", int(self.io_max_scratch_size)),
            ("io_cur_scratch_size", int(self.io_cur_scratch_size)),
        ]
    }

    /// The statistics map as it travels in answers and events.
    #[must_use]
    pub fn to_value(&self) -> Value {
        value::map(self.pairs().map(|(name, number)| {
            let value = match number {
                Number::Int(n) => Value::from(n),
                Number::Float(x) => Value::from(x),
            };
            (name, value)
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_texts_are_what_the_manager_parses() {
        let sample = Sample { cpu_used_ms: 673.027_202, mem_max_bytes: 7, ..Sample::default() };
        let texts: Vec<String> =
            sample.pairs().iter().map(|(name, number)| format!("{name}={number}")).collect();
        assert_eq!(texts[..3], ["cpu_used=673.027202", "mem_max_bytes=7", "mem_cur_bytes=0"]);
        let huge = Sample { cpu_used_ms: 1e20, io_read_bytes: u64::MAX, ..Sample::default() };
        assert_eq!(huge.pairs()[0].1.to_string(), "100000000000000000000");
        assert_eq!(huge.pairs()[5].1.to_string(), "9223372036854775807");
        let odd = Sample { cpu_used_ms: f64::NAN, ..Sample::default() };
        assert_eq!(odd.pairs()[0].1, Number::Float(0.0));
    }

    proptest! {
        #[test]
        fn the_journal_keeps_a_sample(cpu in 0.0f64..1e15, sizes in any::<[u64; 8]>()) {
            let [mem_max_bytes, mem_cur_bytes, net_rx_bytes, net_tx_bytes, io_read_bytes, io_write_bytes,
                io_max_scratch_size, io_cur_scratch_size] = sizes;
            // Whole nanoseconds, as the kernel counts them.
            let cpu_used_ms = (cpu * 1e3).round() / 1e3;
            let sample = Sample { cpu_used_ms, mem_max_bytes, mem_cur_bytes, net_rx_bytes, net_tx_bytes,
                io_read_bytes, io_write_bytes, io_max_scratch_size, io_cur_scratch_size };
            let read: Sample = serde_json::from_str(&serde_json::to_string(&sample).unwrap()).unwrap();
            prop_assert!((read.cpu_used_ms - sample.cpu_used_ms).abs() <= sample.cpu_used_ms * 1e-12);
            prop_assert_eq!(read.io_cur_scratch_size, sample.io_cur_scratch_size);
            prop_assert_eq!(&read.pairs()[1..], &sample.pairs()[1..]);
        }

        #[test]
        fn any_sample_is_plain_decimal(cpu in any::<f64>(), size in any::<u64>()) {
            let sample = Sample { cpu_used_ms: cpu, mem_max_bytes: size, ..Sample::default() };
            for (name, number) in sample.pairs() {
                let text = number.to_string();
                prop_assert!(text.bytes().all(|b| b.is_ascii_digit() || (b == b'.' && name == "cpu_used")), "{}", text);
            }
        }
    }
}
