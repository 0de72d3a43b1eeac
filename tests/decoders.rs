//! Every decoder of bytes that others send, over the corpus of the fuzzer (`fuzz/`), as it is and damaged: the same damage
//! in each run. What the fuzzer finds becomes a file of the corpus, and is tried here ever after.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should panic where it stands")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use fuzz::{TARGETS, run};

/// How long one input may keep a decoder, in a debug build on a busy machine: a heartbeat may wait behind it.
const SLOW: Duration = Duration::from_secs(2);

fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The inputs of a target, each with its name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory("corpus").join(target)).unwrap().map(|entry| entry.unwrap().path());
    let mut corpus: Vec<_> = files
        .map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(file).unwrap()))
        .collect();
    corpus.sort();
    corpus
}

/// Runs one input, and names it if that goes wrong.
fn check(target: &str, name: &str, input: &[u8]) {
    let begun = Instant::now();
    let is_borne = catch_unwind(|| run(target, input)).is_ok();
    assert!(is_borne, "{target}, {name}: {input:02x?}\n{:?}", String::from_utf8_lossy(input));
    let took = begun.elapsed();
    assert!(took < SLOW, "{target}, {name}: {took:?} for {input:02x?}");
}

/// The corpus of a target, and so many inputs made of it by damage.
fn pass(target: &str, damaged: usize) {
    let corpus = corpus(target);
    let (_, readers) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let chosen: BTreeSet<usize> =
        corpus.iter().map(|(_, input)| usize::from(input[0].wrapping_sub(b'0')) % readers.len()).collect();
    assert_eq!(chosen.len(), readers.len(), "{target}: the corpus has nothing for one of its functions");
    for (name, input) in &corpus {
        check(target, name, input);
    }
    let mut random = StdRng::seed_from_u64(1_037);
    for round in 0..damaged {
        let (name, input) = &corpus[round % corpus.len()];
        let (_, other) = &corpus[random.random_range(0..corpus.len())];
        check(target, &format!("{name}, damaged in round {round}"), &damage(input, other, &mut random));
    }
}

/// The same input but for some damage; the choice of the function stays.
fn damage(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut input = input.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(1..=input.len());
        let end = random.random_range(at..=input.len());
        match random.random_range(0..8) {
            0 => input.truncate(at),
            1 => input.insert(at, random.random()),
            2 if at < input.len() => input[at] = random.random(),
            3 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            4 => drop(input.drain(at..end)),
            // Twice the same, as lists and nested values are.
            5 => drop(input.splice(at..at, input[at..end].to_vec())),
            // Heads of what is long, in ZMTP, msgpack and the protocols of lines.
            6 => {
                let heads: [&[u8]; 6] = [
                    b"\x02\0\0\x7f\xff\xff\xff\xff\xff",
                    b"\xdd\xff\xff\xff\xff",
                    b"\xc7\x04\x7b",
                    b"99999999999999999999",
                    b"[[[[[[[[",
                    b"\r\n",
                ];
                drop(input.splice(at..at, heads[random.random_range(0..heads.len())].iter().copied()));
            }
            _ => {
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                drop(input.splice(at..end, other[from..to].to_vec()));
            }
        }
    }
    input
}

/// A test for each target; the number says how many damaged inputs take about a second.
macro_rules! passes {
    ($($target:ident: $damaged:literal),* $(,)?) => {
        $(#[test]
        fn $target() {
            pass(stringify!($target), $damaged);
        })*

        #[test]
        fn each_target_is_fuzzed_and_passed_over() {
            let here: BTreeSet<&str> = [$(stringify!($target)),*].into();
            let known: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(here, known, "tests/decoders.rs has other targets than fuzz/src/lib.rs");
            let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
            let named = |line: &str| Some(line.strip_prefix("name = \"")?.trim_end_matches('"').to_owned());
            let bins: BTreeSet<String> = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.lines().find_map(named)).collect();
            assert!(bins.iter().eq(&known), "fuzz/Cargo.toml has other targets: {bins:?}");
            for target in known {
                let text = fs::read_to_string(directory("fuzz_targets").join(format!("{target}.rs"))).unwrap();
                assert!(text.contains(&format!("run(\"{target}\", input)")), "{target}.rs runs another target");
            }
        }
    };
}

passes! {
    zmtp: 20_000, connection: 1_000, call: 20_000, answer: 20_000, record: 20_000, path: 500, docker: 10_000, etcd: 10_000,
    redis: 5_000, file: 10_000, settings: 1_000, http: 3_000,
}
