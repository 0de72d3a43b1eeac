//! What every call costs before anything is done about it: codecs and output aggregation.
//!
//! ```sh
//! cargo bench --features rooms --bench wire    # times; compare figures of one run only
//! scripts/instructions                         # counts of instructions, compared with benches/instructions.txt
//! ```
//!
//! With `WIRE_PATH=name:count` it goes down one path so often and does nothing else, for whoever counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that can't go on should stop where it stands"
)]

use backendai_agent::rooms::runner::output::Output;
use backendai_agent::wire::answer::Answer;
use backendai_agent::wire::call::Call;
use backendai_agent::wire::header::{AnswerHeader, RequestHeader};
use backendai_agent::wire::record::Record;
use backendai_agent::wire::request::Request;
use backendai_agent::wire::value::{self, Value};
use backendai_agent::zmtp::frame;
use bytes::Bytes;
use divan::{Bencher, black_box};

const KERNEL: &str = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10";

/// One path, ready for going down it often.
type Path = Box<dyn Fn()>;

/// A path's name, and what makes it ready.
type Named = (&'static str, fn() -> Path);

const PATHS: [Named; 5] =
    [("ping", ping), ("execute", execute), ("create", create), ("upload", upload), ("output", output)];

fn main() {
    let Ok(wanted) = std::env::var("WIRE_PATH") else { return divan::main() };
    let (name, count) =
        wanted.split_once(':').unwrap_or_else(|| panic!("WIRE_PATH={wanted} is no name:count"));
    let path = path(name);
    for _ in 0..count.parse().unwrap() {
        path();
    }
}

fn path(name: &str) -> Path {
    let found = PATHS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no path {name}; there are {:?}", PATHS.map(|(name, _)| name))).1()
}

#[divan::bench(args = PATHS.map(|(name, _)| name))]
fn all(bencher: Bencher, name: &str) {
    bencher.bench_local(path(name));
}

/// A call's frames, as its caller sends them.
fn frames(method: &str, args: Vec<Value>) -> Vec<Bytes> {
    let header = RequestHeader { pid: 1, random: 2, request_id: 3, sent_at: 4.0 };
    Call { header, method: method.to_owned(), args, file: None, kwargs: Vec::new() }.encode()
}

fn parsed(frames: &[Bytes]) -> Request {
    Request::of(Call::decode(black_box(frames)).unwrap()).unwrap()
}

/// From the frames of a call that does nothing to the bytes of its answer.
fn ping() -> Path {
    let frames = frames("ping", vec!["hello".into()]);
    Box::new(move || {
        let Request::Ping(text) = parsed(&frames) else { panic!("no ping") };
        let header = AnswerHeader { pid: 1, random: 2, request_id: 3, sent_at: 4.0, is_error: false };
        black_box(frame::message(&Answer { header, body: Ok(text.into()) }.encode()));
    })
}

fn execute() -> Path {
    let args = vec![2.into(), KERNEL.into(), "run".into(), "query".into(), "print(1)".into(), Value::Nil];
    let frames = frames("execute", args);
    Box::new(move || drop(black_box(parsed(&frames))))
}

/// With a hundred variables for the kernel's environment.
fn create() -> Path {
    let environ: Vec<_> =
        (0..100).map(|n| (format!("VARIABLE_{n}").into(), format!("value {n}").into())).collect();
    let limits = value::map([("mem_slot", 256.into()), ("cpu_slot", 1.0.into()), ("gpu_slot", 0.0.into())]);
    let config = value::map([
        ("lang", "python:latest".into()),
        ("limits", limits),
        ("mounts", Value::Array(Vec::new())),
        ("environ", Value::Map(environ)),
    ]);
    let frames = frames("create_kernel", vec![KERNEL.into(), config]);
    Box::new(move || drop(black_box(parsed(&frames))))
}

/// A file's size makes no difference.
fn upload() -> Path {
    let frames = frames("upload_file", vec![KERNEL.into(), "a".into(), Value::Binary(vec![7; 1 << 20])]);
    Box::new(move || drop(black_box(parsed(&frames))))
}

/// A program that prints a hundred lines, from its records to one text.
fn output() -> Path {
    let line = [
        Bytes::from_static(b"stdout"),
        Bytes::from_static(b"a line of fifty characters, more or less, printed."),
    ];
    Box::new(move || {
        let mut output = Output::default();
        for _ in 0..100 {
            output.push(Record::decode(black_box(&line)).unwrap());
        }
        black_box(output.take());
    })
}
