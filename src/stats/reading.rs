//! How what could be read becomes a sample; pure.

use crate::wire::sample::Sample;
/// What could be read of a container. `None` means that this figure was not to be had: a controller that is
/// switched off on this machine, a file that an older kernel lacks, a container that is just going away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// CPU time, nanoseconds.
    pub(super) cpu_ns: Option<u64>,
    /// Memory in use, bytes.
    pub(super) mem_cur: Option<u64>,
    /// The kernel's own maximum of it; v2 has it only since Linux 5.19.
    pub(super) mem_peak: Option<u64>,
    /// Bytes read and written.
    pub(super) io: Option<(u64, u64)>,
    /// Bytes received and sent.
    pub(super) net: Option<(u64, u64)>,
}

/// What is known of a scratch directory's size, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ScratchSize {
    /// At the last measurement.
    pub(super) current: u64,
    /// The most that any measurement found.
    pub(super) max: u64,
}

impl ScratchSize {
    /// Takes a new measurement in.
    pub(super) fn measured(&mut self, bytes: u64) {
        self.current = bytes;
        self.max = self.max.max(bytes);
    }
}

impl Reading {
    /// Nothing of the container's own group could be read: it is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.cpu_ns.is_none() && self.mem_cur.is_none() && self.mem_peak.is_none() && self.io.is_none()
    }

    /// The sample. Where a figure is missing the one of `previous` (an earlier sample of the same container) stays:
    /// all of them are counters or the latest known state, and falling back to 0 would bill less than was used.
    pub(super) fn into_sample(self, previous: Option<&Sample>, scratch: ScratchSize) -> Sample {
        let before = previous.copied().unwrap_or_default();
        let mem_cur_bytes = self.mem_cur.unwrap_or(before.mem_cur_bytes);
        let (io_read_bytes, io_write_bytes) =
            self.io.unwrap_or((before.io_read_bytes, before.io_write_bytes));
        let (received, sent) = self.net.unwrap_or((before.net_rx_bytes, before.net_tx_bytes));
        Sample {
            cpu_used_ms: self.cpu_ns.map_or(before.cpu_used_ms, milliseconds),
            mem_max_bytes: self.mem_peak.unwrap_or(0).max(mem_cur_bytes).max(before.mem_max_bytes),
            mem_cur_bytes,
            net_rx_bytes: received,
            net_tx_bytes: sent,
            io_read_bytes,
            io_write_bytes,
            io_max_scratch_size: scratch.max,
            io_cur_scratch_size: scratch.current,
        }
    }
}

fn milliseconds(ns: u64) -> f64 {
    // Exact up to 104 days of CPU time, and within a nanosecond or two for years after.
    #[allow(clippy::cast_precision_loss)]
    let ns = ns as f64;
    ns / 1e6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_reading_is_taken_as_it_is() {
        let reading = Reading {
            cpu_ns: Some(673_027_202),
            mem_cur: Some(5),
            mem_peak: Some(9),
            io: Some((1, 2)),
            net: Some((3, 4)),
        };
        let expected = Sample {
            cpu_used_ms: 673.027_202,
            mem_max_bytes: 9,
            mem_cur_bytes: 5,
            net_rx_bytes: 3,
            net_tx_bytes: 4,
            io_read_bytes: 1,
            io_write_bytes: 2,
            io_max_scratch_size: 8,
            io_cur_scratch_size: 7,
        };
        assert_eq!(reading.into_sample(None, ScratchSize { current: 7, max: 8 }), expected);
        assert!(!reading.is_gone());
    }

    #[test]
    fn missing_figures_stay_at_the_last_known() {
        let before = Sample {
            cpu_used_ms: 5.0,
            mem_max_bytes: 90,
            mem_cur_bytes: 50,
            net_rx_bytes: 3,
            io_read_bytes: 1,
            ..Sample::default()
        };
        let sample = Reading::default().into_sample(Some(&before), ScratchSize::default());
        assert_eq!(sample, before);
        assert!(Reading { net: Some((1, 1)), ..Reading::default() }.is_gone());
    }

    proptest! {
        #[test]
        fn the_maximum_of_memory_never_falls(currents in proptest::collection::vec(any::<u64>(), 1..20)) {
            let mut last: Option<Sample> = None;
            let mut most = 0;
            for mem_cur in currents {
                most = most.max(mem_cur);
                let reading = Reading { mem_cur: Some(mem_cur), ..Reading::default() };
                let sample = reading.into_sample(last.as_ref(), ScratchSize::default());
                prop_assert_eq!((sample.mem_cur_bytes, sample.mem_max_bytes), (mem_cur, most));
                last = Some(sample);
            }
        }
    }
}
