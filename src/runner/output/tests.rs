//! What callers collect, and what the disk has to hold of it.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::runner::piece::ITEM_COST;

fn out(text: &str) -> Record {
    Record::Stdout(Bytes::copy_from_slice(text.as_bytes()))
}

fn err(text: &str) -> Record {
    Record::Stderr(Bytes::copy_from_slice(text.as_bytes()))
}

/// The simple model: a list of (stream, text), neighbours joined at the end.
fn model(writes: &[(bool, String)]) -> Vec<ConsoleItem> {
    let mut joined: Vec<(bool, String)> = Vec::new();
    for (stream, text) in writes.iter().filter(|(_, t)| !t.is_empty()) {
        match joined.last_mut() {
            Some((last, so_far)) if last == stream => so_far.push_str(text),
            _ => joined.push((*stream, text.clone())),
        }
    }
    joined.into_iter().map(|(e, t)| if e { ConsoleItem::Stderr(t) } else { ConsoleItem::Stdout(t) }).collect()
}

proptest! {
    #[test]
    fn aggregation_agrees_with_the_model(writes in proptest::collection::vec((any::<bool>(), ".{0,5}"), 0..20)) {
        let mut output = Output::default();
        for (is_err, text) in &writes {
            output.push(if *is_err { err(text) } else { out(text) });
        }
        prop_assert!(output.push(Record::Finished(Some(0))));
        let (items, status) = output.take();
        prop_assert_eq!(items, model(&writes));
        prop_assert_eq!(status, Some(RunStatus::Finished(Some(0))));
        prop_assert_eq!(output.bytes(), 0);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Came(Record),
    Collected,
    Spilled,
}

fn op() -> impl Strategy<Value = Op> {
    // Of characters with several bytes, cut anywhere.
    let text = || proptest::sample::select(vec![&b"x"[..], b"\xe2", b"\x98\x83", b"\xe2\x98", b"\xff"]);
    prop_oneof![
        4 => text().prop_map(|text| Op::Came(Record::Stdout(Bytes::from_static(text)))),
        2 => text().prop_map(|text| Op::Came(Record::Stderr(Bytes::from_static(text)))),
        1 => Just(Op::Came(Record::Html("h".into()))),
        1 => Just(Op::Came(Record::WaitingInput(serde_json::json!({})))),
        1 => Just(Op::Came(Record::BuildFinished(Some(0)))),
        1 => Just(Op::Collected),
        2 => Just(Op::Spilled),
    ]
}

proptest! {
    /// Whenever the disk is up to date, the next life of the agent answers what this one would.
    #[test]
    fn what_the_disk_holds_makes_the_same_output(ops in proptest::collection::vec(op(), 0..30)) {
        let (mut output, mut disk) = (Output::default(), Vec::new());
        let spill = |output: &mut Output, disk: &mut Vec<Record>| match output.spill() {
            Some(Change::Append(records)) => disk.extend(records),
            Some(Change::Replace(records)) => *disk = records,
            Some(Change::Remove) => disk.clear(),
            None => {}
        };
        for op in ops {
            match op {
                Op::Came(record) => drop(output.push(record)),
                Op::Collected => drop(output.take()),
                Op::Spilled => spill(&mut output, &mut disk),
            }
        }
        spill(&mut output, &mut disk);
        prop_assert!(!output.has_to_spill());
        let mut restored = Output::restored(disk);
        prop_assert!(!restored.has_to_spill());
        output.push(Record::Finished(None));
        restored.push(Record::Finished(None));
        while output.holds_stop() {
            prop_assert_eq!(output.take(), restored.take());
        }
        prop_assert_eq!(restored.bytes(), 0);
    }
}

#[test]
fn a_character_goes_on_over_an_answer_and_another_stream() {
    let mut output = Output::default();
    output.push(Record::Stdout(Bytes::from_static(b"x\xe2")));
    output.push(Record::WaitingInput(serde_json::json!({})));
    output.push(err("e"));
    output.push(Record::Stdout(Bytes::from_static(b"\x98\x83")));
    let (items, stop) = output.take();
    assert_eq!(items, [ConsoleItem::Stdout("x".into())]);
    output.give_back(items, stop);
    output.take();
    let rest = [ConsoleItem::Stderr("e".into()), ConsoleItem::Stdout("\u{2603}".into())];
    assert_eq!(output.take().0, rest);
    assert_eq!(output.bytes(), 0);
}

#[test]
fn an_answer_ends_at_the_first_stop() {
    let mut output = Output::default();
    output.push(out("a"));
    output.push(Record::CleanFinished(Some(1)));
    output.push(Record::BuildFinished(Some(0)));
    output.push(out("b"));
    assert!(output.holds_stop());
    assert_eq!(
        output.take(),
        (vec![ConsoleItem::Stdout("a".into())], Some(RunStatus::CleanFinished(Some(1))))
    );
    assert_eq!(output.take(), (vec![], Some(RunStatus::BuildFinished(Some(0)))));
    assert_eq!(output.take(), (vec![ConsoleItem::Stdout("b".into())], None));
}

#[test]
fn what_is_given_back_is_as_if_it_had_not_been_taken() {
    let mut output = Output::default();
    output.push(out("a"));
    output.push(Record::WaitingInput(serde_json::json!({})));
    let before = output.bytes();
    let (items, stop) = output.take();
    output.give_back(items, stop);
    assert_eq!(output.bytes(), before);
    output.push(err("b"));
    let (items, stop) = output.take();
    assert_eq!(items, [ConsoleItem::Stdout("a".into())]);
    assert_eq!(output.take().0, [ConsoleItem::Stderr("b".into())]);
    output.push(out("c"));
    output.give_back(items, stop.filter(|_| false));
    assert_eq!(output.take().0, [ConsoleItem::Stdout("ac".into())], "neighbours are joined");
}

#[test]
fn a_character_cut_at_the_end_of_a_step_is_replaced() {
    let mut output = Output::default();
    output.push(Record::Stdout(Bytes::from_static(b"x\xe2\x98")));
    output.push(Record::Finished(None));
    assert_eq!(output.take().0, [ConsoleItem::Stdout("x\u{fffd}".into())]);
}

#[test]
fn it_is_full_of_text_and_of_many_empty_items() {
    let mut output = Output::default();
    assert!(output.push(out(&"x".repeat(FULL))));
    let mut output = Output::default();
    for _ in 0..=FULL / ITEM_COST {
        output.push(Record::Html(String::new()));
    }
    assert!(output.is_full());
}

/// User code can ask for input as often and at such length as it likes.
#[test]
fn options_of_a_stop_fill_the_buffer_by_what_they_take_in_memory() {
    let mut output = Output::default();
    let options = serde_json::json!({ "prompt": "x".repeat(FULL / 2), "list": vec![0; 1000] });
    output.push(Record::WaitingInput(options.clone()));
    assert!(!output.is_full());
    assert!(output.bytes() > FULL / 2 + 1000 * size_of::<serde_json::Value>());
    let one = output.bytes();
    output.push(Record::WaitingInput(options));
    assert!(output.is_full());
    output.take();
    assert_eq!(output.bytes(), one);
    output.take();
    assert_eq!(output.bytes(), 0);
}
