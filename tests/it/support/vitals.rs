//! What an agent costs while something is wrong, and how regular its heartbeats are.

use std::time::{Duration, Instant, SystemTime};

use super::{Agent, Bed, http};

/// The longest pause between two heartbeats that a manager's limit of 5 s can bear on a busy machine.
pub(crate) const LONGEST_GAP: Duration = Duration::from_millis(4500);

/// Clock ticks per second in `/proc/PID/stat`; the same on every Linux.
const TICKS: f64 = 100.0;

/// An agent's expenses from now on.
pub(crate) struct Vitals {
    begun: Instant,
    processor: f64,
    log_lines: usize,
}

impl Vitals {
    /// Begins to measure.
    pub(crate) fn of(agent: &Agent) -> Self {
        Self { begun: Instant::now(), processor: processor_seconds(agent), log_lines: log_lines(agent) }
    }

    /// No busy loop (a fifth of one core is far more than waiting costs), and no flood of log lines.
    pub(crate) fn check(&self, agent: &Agent, most_lines: usize) {
        let passed = self.begun.elapsed().as_secs_f64();
        let processor = processor_seconds(agent) - self.processor;
        let lines = log_lines(agent) - self.log_lines;
        println!("{passed:.1} s: {processor:.2} s of processor time, {lines} log lines");
        assert!(processor < 0.5 + passed / 5.0, "{processor:.2} s of processor time in {passed:.1} s");
        assert!(lines <= most_lines, "{lines} log lines in {passed:.1} s");
    }
}

/// The figures on an agent's metrics page by their names without the prefix, all series of a name added up; what it does not
/// tell is not a number.
pub(crate) async fn gauges(port: u16) -> Option<impl Fn(&str) -> f64> {
    let (_, page) = http::get(port, "/metrics").await?;
    Some(move |name: &str| {
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("backendai_agent_")?.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        });
        values.reduce(|sum, value| sum + value).unwrap_or(f64::NAN)
    })
}

/// The longest that another caller waits for a `ping` while `attack` goes on.
pub(crate) async fn longest_wait(agent: &Agent, attack: impl Future<Output = ()>) -> Duration {
    let mut longest = Duration::ZERO;
    let others = async {
        loop {
            let began = Instant::now();
            assert_eq!(agent.call("ping", serde_json::json!(["there"])).await.unwrap(), "there");
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = attack => {}
        () = others => {}
    }
    longest
}

/// Time that the agent computed.
fn processor_seconds(agent: &Agent) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    // The second field holds the program's name, in which there may be spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: &str| field.parse::<f64>().unwrap();
    (ticks(fields[11]) + ticks(fields[12])) / TICKS
}

fn log_lines(agent: &Agent) -> usize {
    agent.output().lines().count()
}

/// The longest time without a heartbeat between `since` and now.
pub(crate) fn longest_gap(bed: &Bed, since: SystemTime) -> Duration {
    let beats = bed.manager.all("instance_heartbeat", |event| event.at > since);
    let times = std::iter::once(since).chain(beats.iter().map(|beat| beat.at));
    let times: Vec<SystemTime> = times.chain([SystemTime::now()]).collect();
    let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap_or_default());
    let longest = gaps.max().unwrap();
    println!("longest gap between heartbeats: {longest:?}");
    longest
}

/// Fails when the manager would have given the agent up between `since` and now.
pub(crate) fn heartbeats_were_on_time(bed: &Bed, since: SystemTime) {
    let longest = longest_gap(bed, since);
    assert!(longest < LONGEST_GAP, "no heartbeat for {longest:?}");
}
