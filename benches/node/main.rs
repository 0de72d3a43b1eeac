//! What an agent costs: the real binary against real etcd, Redis and Docker, beside other agents and beside the raw parts
//! below it, by turns in one run.
//!
//! ```sh
//! cargo bench --features rooms --bench node                    # everything
//! cargo bench --features rooms --bench node -- ping kernel     # these parts
//! BENCH_AGAINST="before=/path/to/another/backendai-agent" cargo bench --features rooms --bench node
//! ```
//!
//! `BENCH_AGAINST` holds `name=command` pairs, parted by `;`. A command that ends in `server` is taken for the Python
//! agent, which knows fewer flags. `BENCH_OURS` is measured in place of this build. `BENCH_ROUNDS` (3) is how often the
//! contenders take turns in the parts that are short; those from `many` on are measured once. Figures are medians; compare
//! figures of one run only, on a machine that does nothing else. `BENCH_OUT` names a file for all samples, from which
//! `scripts/chart` draws.
//!
//! Sizes: `BENCH_KERNELS` (200) that live at once, `BENCH_LIVES` (500) kernels one after the other, `BENCH_AGENTS` (100) of a
//! fleet. The parts `runs`, `flood`, `ends`, `lives` and `fleet` have an engine and runners of this program in Docker's place ([`stub`]), so that
//! neither Docker nor an interpreter is part of a figure: `BENCH_RUNS` (1000) of each of 50 kernels, `BENCH_FLOOD` (4000) MB of output,
//! `BENCH_STUB_LIVES` (10,000) kernels. The Python agent has no turn in these.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that can't go on should stop where it stands"
)]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod beats;
mod contender;
mod ends;
mod figures;
mod fleet;
mod flood;
mod growth;
mod idle;
mod kernels;
mod lives;
mod many;
mod output;
mod ping;
mod raw;
mod runs;
mod stub;
#[allow(dead_code, reason = "the tests' bed; a benchmark needs a part of it")]
mod support;

use self::contender::Contender;
use self::figures::Figures;

/// The parts by name, and whether one turn of each contender is enough.
const PARTS: [(&str, bool); 13] = [
    ("start", false),
    ("idle", false),
    ("ping", false),
    ("kernel", false),
    ("output", false),
    ("runs", false),
    ("many", true),
    ("growth", true),
    ("beats", true),
    ("fleet", true),
    ("flood", true),
    ("ends", true),
    ("lives", true),
];

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_known = |word: &String| PARTS.iter().any(|(part, _)| part == word);
    let unknown: Vec<&String> = wanted.iter().filter(|word| !is_known(word)).collect();
    assert!(unknown.is_empty(), "no parts {unknown:?}; there are {PARTS:?}");
    let contenders = Contender::all();
    let rounds = sized("BENCH_ROUNDS", 3);
    let mut figures = Figures::of(contenders.iter().map(|contender| contender.name.clone()).collect());
    for (part, once) in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|word| word == part) {
            continue;
        }
        for _ in 0..if once { 1 } else { rounds } {
            for (turn, contender) in
                contenders.iter().enumerate().filter(|(_, contender)| contender.has(part))
            {
                let mut report = figures.turn(turn);
                match part {
                    "start" => idle::start(contender, &mut report).await,
                    "idle" => idle::idle(contender, &mut report).await,
                    "ping" => ping::ping(contender, &mut report).await,
                    "kernel" => kernels::kernels(contender, &mut report).await,
                    "output" => output::output(contender, &mut report).await,
                    "many" => many::many(contender, &mut report).await,
                    "growth" => growth::growth(contender, &mut report).await,
                    "beats" => beats::beats(contender, &mut report).await,
                    "runs" => runs::runs(contender, &mut report).await,
                    "flood" => flood::flood(contender, &mut report).await,
                    "ends" => ends::ends(contender, &mut report).await,
                    "lives" => lives::lives(contender, &mut report).await,
                    _ => fleet::fleet(contender, &mut report).await,
                }
            }
        }
        figures.print(part);
    }
}

/// A number from the environment.
fn sized(variable: &str, usually: usize) -> usize {
    std::env::var(variable).map_or(usually, |number| number.parse().expect(variable))
}
