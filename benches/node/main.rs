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
//! agent, which knows fewer flags. `BENCH_ROUNDS` (3) is how often the contenders take turns. Figures are medians; compare
//! figures of one run only, on a machine that does nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that can't go on should stop where it stands"
)]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod contender;
mod figures;
mod idle;
mod kernels;
mod output;
mod ping;
mod raw;
#[allow(dead_code, reason = "the tests' bed; a benchmark needs a part of it")]
mod support;

use self::contender::Contender;
use self::figures::Figures;

/// The parts by name; each is one agent's turn.
const PARTS: [&str; 5] = ["start", "idle", "ping", "kernel", "output"];

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let unknown: Vec<&String> = wanted.iter().filter(|word| !PARTS.contains(&word.as_str())).collect();
    assert!(unknown.is_empty(), "no parts {unknown:?}; there are {PARTS:?}");
    let contenders = Contender::all();
    let rounds = std::env::var("BENCH_ROUNDS").map_or(3, |rounds| rounds.parse().expect("BENCH_ROUNDS"));
    let mut figures = Figures::of(contenders.iter().map(|contender| contender.name.clone()).collect());
    for part in PARTS.iter().filter(|part| wanted.is_empty() || wanted.iter().any(|word| word == *part)) {
        for _ in 0..rounds {
            for (turn, contender) in contenders.iter().enumerate() {
                let mut report = figures.turn(turn);
                match *part {
                    "start" => idle::start(contender, &mut report).await,
                    "idle" => idle::idle(contender, &mut report).await,
                    "ping" => ping::ping(contender, &mut report).await,
                    "kernel" => kernels::kernels(contender, &mut report).await,
                    _ => output::output(contender, &mut report).await,
                }
            }
        }
        figures.print();
    }
}
