//! What all kernels of an agent use together, as managers of 18.12 show it (PROTOCOL section 6). Pure; times come in.

use std::collections::HashMap;
use std::time::Instant;

use crate::ids::{InstanceId, KernelId};
use crate::wire::sample::Sample;

/// What they use at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Which agent's kernels.
    pub(super) instance: InstanceId,
    /// CPU time since the moment before, in per cent of one core.
    pub(super) cpu_pct: f64,
    /// Memory with the page cache, in bytes.
    pub(super) mem_cur_bytes: u64,
}

/// Follows it.
#[derive(Debug)]
pub(super) struct LoadMeter {
    instance: InstanceId,
    /// CPU time of each kernel in milliseconds, and when that was read.
    last: Option<(Instant, HashMap<KernelId, f64>)>,
}

impl LoadMeter {
    pub(super) fn new(instance: InstanceId) -> Self {
        Self { instance, last: None }
    }

    /// From the samples of this moment. Kernels that are new count from the next one on.
    pub(super) fn next(&mut self, samples: &[(KernelId, Sample)], now: Instant) -> Load {
        let used: HashMap<_, _> =
            samples.iter().map(|(kernel, sample)| (*kernel, sample.cpu_used_ms)).collect();
        let cpu_pct = self.last.as_ref().map_or(0.0, |(then, before)| {
            let more = |(kernel, used): (&KernelId, &f64)| Some((used - before.get(kernel)?).max(0.0));
            // Not `sum`, which is -0 of nothing.
            let busy_ms = used.iter().filter_map(more).fold(0.0, |busy: f64, ms| busy + ms);
            let passed_ms = now.saturating_duration_since(*then).as_secs_f64() * 1000.0;
            if passed_ms > 0.0 { busy_ms / passed_ms * 100.0 } else { 0.0 }
        });
        self.last = Some((now, used));
        Load {
            instance: self.instance.clone(),
            cpu_pct,
            mem_cur_bytes: samples.iter().map(|(_, sample)| sample.mem_cur_bytes).sum(),
        }
    }
}

impl Load {
    /// The fields of its hash in Redis.
    pub(super) fn pairs(&self) -> [(&'static str, String); 2] {
        [("cpu_pct", format!("{:.1}", self.cpu_pct)), ("mem_cur_bytes", self.mem_cur_bytes.to_string())]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(cpu_used_ms: f64, mem_cur_bytes: u64) -> Sample {
        Sample { cpu_used_ms, mem_cur_bytes, ..Sample::default() }
    }

    #[test]
    fn the_kernels_of_two_moments_count_together() {
        let (a, b, begun) = (KernelId::random(), KernelId::random(), Instant::now());
        let mut meter = LoadMeter::new(InstanceId::new("i"));
        let first = meter.next(&[(a, sample(1000.0, 10))], begun);
        assert_eq!(first.pairs().map(|(_, text)| text), ["0.0", "10"]);
        let second =
            meter.next(&[(a, sample(3500.0, 20)), (b, sample(9000.0, 5))], begun + Duration::from_secs(5));
        assert_eq!(second.pairs().map(|(_, text)| text), ["50.0", "25"]);
        // A kernel that was restarted counts anew.
        let third =
            meter.next(&[(a, sample(100.0, 1)), (b, sample(19_000.0, 1))], begun + Duration::from_secs(10));
        assert_eq!(third.pairs().map(|(_, text)| text), ["200.0", "2"]);
        assert_eq!(meter.next(&[], begun + Duration::from_secs(15)).pairs()[0].1, "0.0");
    }
}
