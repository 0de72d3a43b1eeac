//! A connected runner against a fake one: a PULL and a PUSH on loopback that play the container's side. The PUSH is
//! another implementation's.

use std::future::ready;
use std::net::Ipv4Addr;

use bytes::Bytes;
use zeromq::{PushSocket, Socket, SocketSend, ZmqMessage};

use super::*;
use crate::wire::record::MAX_RECORD;
use crate::wire::reply::{ConsoleItem, RunStatus};
use crate::wire::service::ServicePort;
use crate::zmtp::{Multipart, Pull};

/// Every wait in these tests ends by then; none should come near it.
const LIMIT: Duration = Duration::from_secs(30);

/// Longer than any answer that is on its way takes.
const PATIENT: Duration = Duration::from_secs(20);

const MIB: usize = 1024 * 1024;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("timed out")
}

/// A disk that takes everything.
fn disk() -> Arc<memory::tests::Fake> {
    Arc::default()
}

/// Processes that can't be seen.
struct Unseen;

impl Signs for Unseen {
    fn cpu_used(&self) -> futures_util::future::BoxFuture<'static, Option<Duration>> {
        Box::pin(async { None })
    }
}

/// The container's side.
struct Fake {
    input: Pull,
    output: PushSocket,
}

fn record(kind: &str, data: impl Into<Bytes>) -> Multipart {
    vec![Bytes::copy_from_slice(kind.as_bytes()), data.into()]
}

fn finished() -> Multipart {
    record("finished", r#"{"exitCode": 0}"#)
}

fn completion(found: &str) -> Multipart {
    record("completion", serde_json::json!([found]).to_string())
}

impl Fake {
    async fn start() -> (Runner, Self) {
        Self::start_with(disk()).await
    }

    async fn start_with(disk: Arc<memory::tests::Fake>) -> (Runner, Self) {
        let input = Pull::bind("127.0.0.1:0").unwrap();
        let mut output = PushSocket::new();
        let bound = within(output.bind("tcp://127.0.0.1:0")).await.unwrap().to_string();
        let port = bound.rsplit(':').next().unwrap().parse().unwrap();
        let at = RunnerAddr { host: Ipv4Addr::LOCALHOST.into(), input: input.local_port(), output: port };
        let tracker = TaskTracker::new();
        let runner = Runner::connect(
            KernelId::random(),
            at,
            Runs::default(),
            (disk, Some(GoingRun::default())),
            Arc::new(Unseen),
            &tracker,
        );
        (runner, Self { input, output })
    }

    /// The next command: its name and its data.
    async fn command(&mut self) -> (String, String) {
        let frames = within(self.input.recv()).await.frames;
        assert_eq!(frames.len(), 2);
        let text = |frame: &Bytes| String::from_utf8(frame.to_vec()).unwrap();
        (text(&frames[0]), text(&frames[1]))
    }

    async fn expect(&mut self, name: &str, data: &str) {
        assert_eq!(self.command().await, (name.to_owned(), data.to_owned()));
    }

    async fn expect_completion(&mut self, text: &str) {
        let (name, data) = self.command().await;
        let asked: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!((name.as_str(), asked["code"].as_str()), ("complete", Some(text)));
    }

    /// Sends frames as they are.
    async fn send(&mut self, frames: Multipart) {
        send_to(&mut self.output, frames).await;
    }

    async fn answer_completion(&mut self, found: &str) {
        self.send(completion(found)).await;
    }
}

/// The other implementation's PUSH fails instead of waiting for its first peer.
async fn send_to(output: &mut PushSocket, frames: Multipart) {
    let message: ZmqMessage = frames.try_into().unwrap();
    within(async {
        while output.send(message.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A run of its own whose code was sent.
async fn begin(runner: &Runner, run: &str) -> Seat {
    let seat = runner.enter(RunId::new(run), Entry::New).unwrap();
    assert_eq!(within(seat.turn()).await, Some(Begin::Start));
    seat.start(Code::Query(format!("code of {run}")), ready(())).await.unwrap();
    seat
}

fn go_on(runner: &Runner, run: &str) -> Seat {
    runner.enter(RunId::new(run), Entry::GoOn).unwrap()
}

async fn collected(seat: Seat) -> (Vec<ConsoleItem>, RunStatus) {
    within(seat.collect(PATIENT, ready(()))).await.expect("cut off")
}

fn ask(text: &str) -> Completions {
    Completions { text: text.to_owned(), opts: serde_json::Map::new() }
}

fn out(text: &str) -> ConsoleItem {
    ConsoleItem::Stdout(text.to_owned())
}

fn done() -> RunStatus {
    RunStatus::Finished(Some(0))
}

/// Waits until the queue of the runner is in some state.
async fn until(runner: &Runner, mut holds: impl FnMut(&Runs) -> bool) {
    within(async {
        while !holds(&runner.shared.runs()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_query_goes_from_its_code_to_its_end() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.expect("code", "code of r").await;
    let snowman = "☃".as_bytes();
    fake.send(record("stdout", Bytes::copy_from_slice(&snowman[..2]))).await;
    fake.send(record("stdout", Bytes::copy_from_slice(&snowman[2..]))).await;
    fake.send(record("stderr", "bad")).await;
    fake.send(record("media", r#"{"type": "image/png", "data": "xx"}"#)).await;
    fake.send(record("html", "<b>x</b>")).await;
    fake.send(record("log", "l")).await;
    fake.send(finished()).await;
    let expected = vec![
        out("☃"),
        ConsoleItem::Stderr("bad".into()),
        ConsoleItem::Media("image/png".into(), "xx".into()),
        ConsoleItem::Html("<b>x</b>".into()),
        ConsoleItem::Log("l".into()),
    ];
    assert_eq!(collected(seat).await, (expected, done()));
    assert_eq!(runner.activity().borrow().run, None);
}

#[tokio::test]
async fn a_run_that_waits_for_input_gets_it() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.expect("code", "code of r").await;
    fake.send(record("stdout", "name? ")).await;
    fake.send(record("waiting-input", r#"{"is_password": true}"#)).await;
    let asks = RunStatus::WaitingInput(serde_json::json!({ "is_password": true }));
    assert_eq!(collected(seat).await, (vec![out("name? ")], asks));
    assert_eq!(runner.activity().borrow().running_since, None);
    let seat = go_on(&runner, "r");
    assert_eq!(within(seat.turn()).await, Some(Begin::Resume));
    seat.input("lab".to_owned()).await.unwrap();
    fake.expect("input", "lab").await;
    assert!(runner.activity().borrow().running_since.is_some());
    fake.send(record("stdout", "hi lab")).await;
    fake.send(finished()).await;
    assert_eq!(collected(seat).await, (vec![out("hi lab")], done()));
}

#[tokio::test]
async fn an_answer_after_the_time_limit_holds_what_came_and_the_next_one_the_rest() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.send(record("stdout", "early")).await;
    let mut text = String::new();
    // Records may need longer than one of these short limits; what matters is that none is lost or doubled.
    let mut seat = Some(seat);
    while text.is_empty() {
        let seat = seat.take().unwrap_or_else(|| go_on(&runner, "r"));
        let (items, status) = within(seat.collect(Duration::from_millis(20), ready(()))).await.unwrap();
        assert_eq!(status, RunStatus::Continued);
        text.extend(items.iter().map(|item| match item {
            ConsoleItem::Stdout(text) => text.as_str(),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(text, "early");
    // What comes while no caller is there waits for the next one.
    fake.send(record("stdout", "between")).await;
    fake.send(finished()).await;
    until(&runner, |runs| runs.activity().run.is_none()).await;
    assert_eq!(collected(go_on(&runner, "r")).await, (vec![out("between")], done()));
    assert!(runner.enter(RunId::new("r"), Entry::GoOn).is_err());
}

#[tokio::test]
async fn a_second_run_waits_for_the_end_of_the_first() {
    let (runner, mut fake) = Fake::start().await;
    let first = begin(&runner, "r1").await;
    let second = runner.enter(RunId::new("r2"), Entry::New).unwrap();
    let third = runner.enter(RunId::new("r3"), Entry::New).unwrap();
    fake.expect("code", "code of r1").await;
    let waited = tokio::spawn(async move {
        assert_eq!(second.turn().await, Some(Begin::Start));
        second.start(Code::Query("code of r2".into()), ready(())).await.unwrap();
        second.collect(PATIENT, ready(())).await
    });
    // A caller that goes away frees its place.
    drop(third);
    fake.send(record("stdout", "of r1")).await;
    fake.send(finished()).await;
    assert_eq!(collected(first).await, (vec![out("of r1")], done()));
    // The second run's code came after the end of the first, or the next command would not be there yet when r1 ended.
    fake.expect("code", "code of r2").await;
    fake.send(record("stdout", "of r2")).await;
    fake.send(finished()).await;
    assert_eq!(within(waited).await.unwrap(), Some((vec![out("of r2")], done())));
    until(&runner, |runs| runs.activity() == Activity::default()).await;
}

#[tokio::test]
async fn frames_that_are_no_record_are_skipped_and_the_run_ends() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    let raw = |frames: &[&'static [u8]]| frames.iter().map(|f| Bytes::from_static(f)).collect::<Multipart>();
    let mut garbage = vec![
        raw(&[b""]),
        raw(&[b"stdout"]),
        raw(&[b"stdout", b"a", b"b"]),
        raw(&[b"", b""]),
        raw(&[b"\xff\xfe", b"\xff"]),
        raw(&[b"dance", b"x"]),
        raw(&[b"STDOUT", b"x"]),
        raw(&[b"media", b""]),
        raw(&[b"media", b"{"]),
        raw(&[b"media", b"\xff"]),
        raw(&[b"media", b"[1, 2]"]),
        raw(&[b"media", br#"{"type": "image/png"}"#]),
        raw(&[b"media", br#"{"type": 1, "data": 2}"#]),
        raw(&[b"completion", b"{\"a\""]),
        raw(&[b"status", b"\xc1"]),
        vec![Bytes::from_static(b"stdout"); 8],
        record("media", "[".repeat(10_000)),
        record("completion", "[".repeat(10_000)),
        vec![Bytes::from(vec![b'x'; 1000]), Bytes::new()],
    ];
    let count = garbage.len();
    for frames in garbage.drain(..) {
        fake.send(frames).await;
    }
    // Not UTF-8, but records nevertheless: every bad byte becomes one U+FFFD.
    fake.send(record("stdout", &b"a\xffb\xc3"[..])).await;
    fake.send(record("html", &b"\xfe"[..])).await;
    fake.send(record("finished", "no JSON")).await;
    let (items, status) = collected(seat).await;
    assert!(count > 15);
    assert_eq!(status, RunStatus::Finished(None));
    let replaced = |n: usize| "\u{fffd}".repeat(n);
    let a_b = out(&format!("a{}b", replaced(1)));
    assert_eq!(items, vec![a_b, ConsoleItem::Html(replaced(1)), out(&replaced(1))]);
    // The connection has not suffered.
    let seat = begin(&runner, "r2").await;
    fake.send(finished()).await;
    assert_eq!(collected(seat).await, (vec![], done()));
}

#[tokio::test]
async fn a_run_whose_connection_broke_is_found_out() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r1").await;
    fake.expect("code", "code of r1").await;
    // The end of its connection.
    fake.send(vec![Bytes::from_static(b"stdout"); 2000]).await;
    for (name, data) in [("status", ""), ("build", ""), ("build", "")] {
        fake.expect(name, data).await;
    }
    let mut end = tokio::spawn(collected(seat));
    // This PUSH gives some to the connection that is gone.
    let (items, status) = within(async {
        loop {
            tokio::select! {
                end = &mut end => break end.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    fake.send(record("build-finished", r#"{"exitCode": 0}"#)).await;
                }
            }
        }
    })
    .await;
    assert_eq!(status, RunStatus::Finished(None));
    assert!(format!("{items:?}").contains("connection"), "{items:?}");
}

#[tokio::test]
async fn a_runner_is_over_once_nothing_of_it_is_left() {
    let disk = disk();
    let (runner, mut fake) = Fake::start_with(disk.clone()).await;
    let seat = begin(&runner, "r").await;
    fake.expect("code", "code of r").await;
    runner.let_go();
    // The end of a run that has begun just now is waited for.
    assert!(tokio::time::timeout(Duration::from_millis(100), runner.over()).await.is_err());
    fake.send(finished()).await;
    within(runner.over()).await;
    assert_eq!(disk.kept.lock().unwrap().last(), Some(&GoingRun::default()), "noted before");
    drop(seat);
}

#[tokio::test]
async fn a_message_of_too_many_frames_costs_its_connection_and_the_run_goes_on() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.send(vec![Bytes::from_static(b"stdout"); 2000]).await;
    let mut end = tokio::spawn(collected(seat));
    // What is sent before the next connection is there is lost with the last one.
    let (items, status) = within(async {
        loop {
            tokio::select! {
                end = &mut end => break end.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(20)) => fake.send(finished()).await,
            }
        }
    })
    .await;
    assert_eq!((items, status), (vec![], done()));
}

#[tokio::test]
async fn broken_json_ends_a_wait_as_good_json_does() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.send(record("build-finished", "{{")).await;
    assert_eq!(collected(seat).await, (vec![], RunStatus::BuildFinished(None)));
    let seat = go_on(&runner, "r");
    fake.send(record("waiting-input", "[1")).await;
    assert_eq!(collected(seat).await, (vec![], RunStatus::WaitingInput(serde_json::json!({}))));
}

#[tokio::test]
async fn a_large_record_is_cut_at_a_character_and_large_media_leave_a_note() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    // A character of three bytes lies across the limit.
    let long = "a".repeat(MAX_RECORD - 1) + &"☃".repeat(MIB / 3);
    assert!(long.len() > MAX_RECORD + MIB - 3);
    fake.send(record("stdout", long)).await;
    // The record alone fills the buffer, so it is answered before the run is over.
    let (items, status) = collected(seat).await;
    assert_eq!(status, RunStatus::Continued);
    let [ConsoleItem::Stdout(text)] = items.as_slice() else { panic!("{} items", items.len()) };
    assert!(text.len() == MAX_RECORD - 1 && text.bytes().all(|b| b == b'a'), "{} bytes", text.len());

    let seat = go_on(&runner, "r");
    let media = format!(r#"{{"type": "image/png", "data": "{}"}}"#, "x".repeat(11 * MIB));
    let length = media.len();
    fake.send(record("media", media)).await;
    fake.send(finished()).await;
    let (items, status) = collected(seat).await;
    assert_eq!(status, done());
    let [ConsoleItem::Stderr(note)] = items.as_slice() else { panic!("{} items", items.len()) };
    assert!(note.contains(&format!("media of {length} bytes")), "{note}");
}

#[tokio::test]
async fn completions_are_answered_and_are_no_output_of_a_run() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.expect("code", "code of r").await;
    let answer = tokio::spawn({
        let runner = runner.clone();
        async move { runner.complete(ask("imp")).await }
    });
    fake.expect_completion("imp").await;
    fake.answer_completion("import").await;
    assert_eq!(within(answer).await.unwrap(), Ok(serde_json::json!(["import"])));
    fake.send(finished()).await;
    assert_eq!(collected(seat).await, (vec![], done()));
}

#[tokio::test]
async fn a_service_is_started_by_the_runner_beside_a_run() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.expect("code", "code of r").await;
    let port = ServicePort::list("jupyter:http:8080").unwrap().remove(0);
    let start = ServiceStart { port, options: serde_json::Map::new() };
    let asked = tokio::spawn({
        let runner = runner.clone();
        async move { runner.start_service(start).await }
    });
    let (name, data) = fake.command().await;
    assert_eq!(name, "start-service");
    assert!(data.contains("\"jupyter\"") && data.contains("8080"), "{data}");
    fake.send(record("service-result", r#"{"status": "started"}"#)).await;
    assert_eq!(within(asked).await.unwrap(), Ok(serde_json::json!({ "status": "started" })));
    // One that nobody waits for is no output.
    fake.send(record("service-result", r#"{"status": "started"}"#)).await;
    fake.send(finished()).await;
    assert_eq!(collected(seat).await, (vec![], done()));
}

#[tokio::test]
async fn asks_at_the_same_time_get_their_own_answers() {
    let (runner, mut fake) = Fake::start().await;
    let asks = ["a", "b", "c"].map(|text| {
        let runner = runner.clone();
        tokio::spawn(async move { (text, runner.complete(ask(text)).await) })
    });
    for _ in 0..asks.len() {
        let (_, data) = fake.command().await;
        let asked: serde_json::Value = serde_json::from_str(&data).unwrap();
        fake.answer_completion(asked["code"].as_str().unwrap()).await;
    }
    for ask in asks {
        let (text, answer) = within(ask).await.unwrap();
        assert_eq!(answer, Ok(serde_json::json!([text])));
    }
}

/// Asks, and lets the time limit pass: with the clock stopped, the runtime jumps to the next timer.
async fn ask_in_vain(runner: &Runner, text: &str) {
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    assert_eq!(runner.complete(ask(text)).await, Err(AskError::Late));
    let waited = begin.elapsed();
    assert!(
        waited >= COMPLETION_LIMIT && waited < COMPLETION_LIMIT + Duration::from_millis(100),
        "{waited:?}"
    );
    tokio::time::resume();
}

#[tokio::test]
async fn completions_that_do_not_come_are_late() {
    let (runner, mut fake) = Fake::start().await;
    ask_in_vain(&runner, "imp").await;
    fake.expect_completion("imp").await;
    // The next one is answered as if nothing had been.
    let (answer, ()) = tokio::join!(runner.complete(ask("impo")), async {
        fake.expect_completion("impo").await;
        fake.answer_completion("import").await;
    });
    assert_eq!(answer, Ok(serde_json::json!(["import"])));
}

/// A busy runner answers everything that was asked meanwhile in one go, in order.
#[tokio::test]
async fn answers_to_asks_that_were_given_up_are_not_taken_for_newer_ones() {
    let (runner, mut fake) = Fake::start().await;
    for late in ["a", "b", "c"] {
        ask_in_vain(&runner, late).await;
        fake.expect_completion(late).await;
    }
    let (answer, ()) = tokio::join!(runner.complete(ask("d")), async {
        fake.expect_completion("d").await;
        for found in ["a", "b", "c", "d"] {
            fake.answer_completion(found).await;
        }
    });
    assert_eq!(answer, Ok(serde_json::json!(["d"])));
}

#[tokio::test]
async fn a_late_answer_that_nobody_waits_for_is_no_output_of_a_run() {
    let (runner, mut fake) = Fake::start().await;
    let seat = begin(&runner, "r").await;
    fake.expect("code", "code of r").await;
    ask_in_vain(&runner, "imp").await;
    fake.expect_completion("imp").await;
    fake.answer_completion("import").await;
    fake.send(finished()).await;
    assert_eq!(collected(seat).await, (vec![], done()));
}

#[tokio::test]
async fn an_interrupt_goes_out_only_while_a_run_goes_on() {
    let (runner, mut fake) = Fake::start().await;
    runner.interrupt().await;
    let seat = begin(&runner, "r").await;
    // Had the first interrupt gone out, it would be here before the code.
    fake.expect("code", "code of r").await;
    runner.interrupt().await;
    fake.expect("interrupt", "").await;
    fake.send(finished()).await;
    collected(seat).await;
    runner.interrupt().await;
    let _seat = begin(&runner, "r2").await;
    fake.expect("code", "code of r2").await;
}

#[tokio::test]
async fn completions_and_interrupts_pass_while_nobody_collects_and_no_output_is_lost() {
    const HALF: usize = 32 * MIB;
    const PIECE: usize = 64 * 1024;
    let (runner, mut fake) = Fake::start().await;
    drop(begin(&runner, "r").await);
    fake.expect("code", "code of r").await;
    let Fake { mut input, mut output } = fake;
    let (asked_tx, asked) = tokio::sync::oneshot::channel();
    // Answers in the middle of its output, most of which waits in the sockets by then.
    let printer = tokio::spawn(async move {
        for _ in 0..HALF / PIECE {
            send_to(&mut output, record("stdout", vec![b'x'; PIECE])).await;
        }
        send_to(&mut output, completion(asked.await.unwrap())).await;
        for _ in 0..HALF / PIECE {
            send_to(&mut output, record("stdout", vec![b'x'; PIECE])).await;
        }
        send_to(&mut output, finished()).await;
    });
    until(&runner, |runs| !runs.may_read()).await;
    let held = |runner: &Runner| runner.shared.runs().current_bytes();
    assert!(held(&runner) < output::FULL + 2 * PIECE, "{} bytes", held(&runner));

    runner.interrupt().await;
    let frames = within(input.recv()).await.frames;
    assert_eq!(frames, Command::Interrupt.encode());

    let (answer, ()) = tokio::join!(runner.complete(ask("imp")), async {
        let frames = within(input.recv()).await.frames;
        assert_eq!(frames[0], "complete");
        asked_tx.send("import").unwrap();
    });
    assert_eq!(answer, Ok(serde_json::json!(["import"])));
    assert!(held(&runner) < output::FULL_WHILE_ASKING + 2 * PIECE, "{} bytes", held(&runner));

    let mut total = 0;
    loop {
        let (items, status) = collected(go_on(&runner, "r")).await;
        for item in &items {
            let ConsoleItem::Stdout(text) = item else { panic!("not standard output") };
            total += text.len();
        }
        if status == done() {
            break;
        }
        assert_eq!(status, RunStatus::Continued);
    }
    assert_eq!(total, 2 * HALF);
    within(printer).await.unwrap();
}

/// A kill of the agent right after an answer must not have the next one answer the same again.
#[tokio::test]
async fn what_is_answered_has_left_the_disk_before_and_stays_with_the_run_if_its_caller_left() {
    let disk = disk();
    let (runner, mut fake) = Fake::start_with(disk.clone()).await;
    drop(begin(&runner, "r").await);
    let spilled = |wanted: fn(&[Change]) -> bool| {
        let disk = disk.clone();
        within(async move {
            while !wanted(&disk.spilled.lock().unwrap()) {
                tokio::task::yield_now().await;
            }
        })
    };
    for text in ["first", "second"] {
        fake.send(record("stdout", text)).await;
        spilled(|all| matches!(all.last(), Some(Change::Append(_)))).await;
        let (items, status) = go_on(&runner, "r").collect(Duration::ZERO, ready(())).await.unwrap();
        assert_eq!((items, status), (vec![ConsoleItem::Stdout(text.to_owned())], RunStatus::Continued));
        assert_eq!(disk.spilled.lock().unwrap().last(), Some(&Change::Remove));
    }
    fake.send(record("stdout", "third")).await;
    spilled(|all| matches!(all.last(), Some(Change::Append(_)))).await;
    disk.hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    {
        let seat = go_on(&runner, "r");
        let mut collecting = std::pin::pin!(seat.collect(Duration::ZERO, ready(())));
        let until_taken = until(&runner, |runs| runs.current_bytes() == 0);
        tokio::select! {
            answer = &mut collecting => panic!("answered: {answer:?}"),
            () = until_taken => {}
        }
    }
    let (items, _) = within(go_on(&runner, "r").collect(Duration::ZERO, ready(()))).await.unwrap();
    assert_eq!(items, [ConsoleItem::Stdout("third".to_owned())]);
}

#[tokio::test]
async fn closing_cuts_off_everybody_who_waits() {
    let (runner, mut fake) = Fake::start().await;
    let first = begin(&runner, "r1").await;
    fake.expect("code", "code of r1").await;
    let second = runner.enter(RunId::new("r2"), Entry::New).unwrap();
    let closing = async {
        fake.expect_completion("imp").await;
        runner.close();
    };
    let (cut, turn, answer, ()) =
        tokio::join!(first.collect(PATIENT, ready(())), second.turn(), runner.complete(ask("imp")), closing);
    assert_eq!((cut, turn, answer), (None, None, Err(AskError::Closed)));
}
