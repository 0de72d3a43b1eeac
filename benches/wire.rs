//! What every call costs before anything is done about it: codecs and output aggregation.
//! `cargo bench --features rooms --bench wire`; compare figures of one run only.

use backendai_agent::rooms::runner::output::Output;
use backendai_agent::wire::call::Call;
use backendai_agent::wire::header::RequestHeader;
use backendai_agent::wire::record::Record;
use backendai_agent::wire::request::Request;
use backendai_agent::wire::value::Value;
use bytes::Bytes;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

fn execute_call() -> Call {
    let header = RequestHeader { pid: 1, random: 2, request_id: 3, sent_at: 4.0 };
    let kernel = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10";
    let args = vec![2.into(), kernel.into(), "run".into(), "query".into(), "print(1)".into(), Value::Nil];
    Call { header, method: "execute".to_owned(), args, file: None, kwargs: Vec::new() }
}

/// From frames to a typed request.
#[divan::bench]
fn decode_execute(bencher: Bencher) {
    let frames = execute_call().encode();
    bencher.bench(|| {
        let call = Call::decode(black_box(&frames)).ok()?;
        Request::of(call).ok()
    });
}

/// A program that prints lines: two records each, joined into one text.
#[divan::bench(args = [100, 10_000])]
fn aggregate_lines(bencher: Bencher, lines: usize) {
    let line = [
        Bytes::from_static(b"stdout"),
        Bytes::from_static(b"a line of fifty characters, more or less, printed."),
    ];
    bencher.bench(|| {
        let mut output = Output::default();
        for _ in 0..lines {
            if let Ok(record) = Record::decode(black_box(&line)) {
                output.push(record);
            }
        }
        output.take()
    });
}
