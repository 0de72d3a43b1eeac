//! Log lines on their way to a place that may be slow, full or gone.
//!
//! Whoever logs only puts the line into a queue and goes on: a terminal that stopped reading or a full disk
//! never holds the agent up. The queue is bounded by bytes; what does not fit is lost, counted and reported.
//!
//! One thread per sink, `log-{name}`. It ends at [`LineSink::close`]. Channels: lines and the wish to end come
//! in (`mpsc`, bounded by [`QUEUE_BYTES`]); `done` tells the closer that everything has been written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes of lines may wait for one sink: seconds of the most talkative agent, and little memory.
const QUEUE_BYTES: usize = 8 << 20;

/// Losses are reported at most this often, so that the reports do not add to an overload.
const REPORT_EVERY: Duration = Duration::from_secs(10);

enum Item {
    Line(Vec<u8>),
    Close,
}

#[derive(Default)]
struct Count {
    /// Bytes in the queue now.
    queued: AtomicUsize,
    /// Lines refused by a full queue since the last report.
    refused: AtomicU64,
}

/// What the sink's thread has to say about its own trouble.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Writing has begun to fail; lines are being lost from here on.
    Failing(io::Error),
    /// So many lines were lost since the last report; writing works.
    Lost(u64),
}

/// Takes lines without ever waiting.
#[derive(Clone)]
pub(super) struct LineSender {
    queue: Sender<Item>,
    count: Arc<Count>,
}

/// A running sink; close it to be sure that its lines are out.
pub(super) struct LineSink {
    sender: LineSender,
    /// Gets one message, or is cut, when the thread has ended. Locked by whoever waits for that.
    done: Mutex<Receiver<()>>,
}

impl LineSink {
    /// Starts the thread that writes to `out`; one call of `write_all` per line.
    pub(super) fn start(
        name: &str,
        out: impl Write + Send + 'static,
        report: impl Fn(Trouble) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, lines) = mpsc::channel();
        let (ended, done) = mpsc::channel();
        let count = Arc::<Count>::default();
        let mut thread = SinkThread {
            out,
            report,
            count: Arc::clone(&count),
            failed: 0,
            failing: false,
            last_report: None,
        };
        thread::Builder::new().name(format!("log-{name}")).spawn(move || {
            thread.run(&lines);
            // Nobody waits any more when the closer ran out of patience.
            let _ = ended.send(());
        })?;
        Ok(Self { sender: LineSender { queue, count }, done: Mutex::new(done) })
    }

    /// The end for the logging side.
    pub(super) fn sender(&self) -> LineSender {
        self.sender.clone()
    }

    /// Writes what waits and ends the thread; false if that took longer than `limit`, and then the thread is
    /// left behind, stuck in its write.
    pub(super) fn close(&self, limit: Duration) -> bool {
        let _ = self.sender.queue.send(Item::Close);
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(done.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Timeout))
    }
}

impl LineSender {
    fn offer(&self, line: &[u8]) {
        let before = self.count.queued.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before.saturating_add(line.len()) <= QUEUE_BYTES;
        if !fits || self.queue.send(Item::Line(line.to_vec())).is_err() {
            self.count.queued.fetch_sub(line.len(), Ordering::Relaxed);
            self.count.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The formatting layer writes each line with one call.
impl Write for &LineSender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.offer(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineSender {
    type Writer = &'a LineSender;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

struct SinkThread<W, R> {
    out: W,
    report: R,
    count: Arc<Count>,
    /// Lines whose write failed since the last report of a loss.
    failed: u64,
    /// Whether the last write failed, so that only the first failure of a row is reported.
    failing: bool,
    /// When a loss was last reported.
    last_report: Option<Instant>,
}

impl<W: Write, R: Fn(Trouble)> SinkThread<W, R> {
    fn run(&mut self, lines: &Receiver<Item>) {
        while let Ok(Item::Line(line)) = lines.recv() {
            self.write(&line);
            self.report_loss(REPORT_EVERY);
        }
        // The report is itself a line: it must be in the queue before the queue is emptied for the last time.
        self.report_loss(Duration::ZERO);
        while let Ok(Item::Line(line)) = lines.try_recv() {
            self.write(&line);
        }
    }

    fn write(&mut self, line: &[u8]) {
        self.count.queued.fetch_sub(line.len(), Ordering::Relaxed);
        match self.out.write_all(line).and_then(|()| self.out.flush()) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.failed += 1;
                if !self.failing {
                    self.failing = true;
                    (self.report)(Trouble::Failing(error));
                }
            }
        }
    }

    fn report_loss(&mut self, every: Duration) {
        if self.failing || self.last_report.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let lost = std::mem::take(&mut self.failed) + self.count.refused.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.last_report = Some(Instant::now());
            (self.report)(Trouble::Lost(lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A place to write to that can be shut, as a pipe whose reader stopped, or broken, as a full disk.
    #[derive(Clone, Default)]
    struct Place(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        text: String,
        shut: bool,
        broken: bool,
    }

    impl Place {
        fn set(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            self.0.0.lock().unwrap().text.clone()
        }
    }

    impl Write for Place {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let state = self.0.0.lock().unwrap();
            let mut state = self.0.1.wait_while(state, |state| state.shut).unwrap();
            if state.broken {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.text.push_str(std::str::from_utf8(line).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(place: &Place) -> (LineSink, Receiver<Trouble>) {
        let (report, troubles) = mpsc::channel();
        let sink = LineSink::start("test", place.clone(), move |trouble| report.send(trouble).unwrap());
        (sink.unwrap(), troubles)
    }

    #[test]
    fn closing_waits_for_every_line() {
        let place = Place::default();
        let (sink, _troubles) = start(&place);
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
        for line in &lines {
            (&sink.sender()).write_all(line.as_bytes()).unwrap();
        }
        assert!(sink.close(LIMIT));
        assert_eq!(place.text(), lines.concat());
        assert!(sink.close(LIMIT), "closing twice is no error");
    }

    #[test]
    fn a_stuck_place_costs_lines_and_never_time() {
        let place = Place::default();
        place.set(|state| state.shut = true);
        let (sink, troubles) = start(&place);
        let line = vec![b'x'; QUEUE_BYTES / 4];
        for _ in 0..20 {
            (&sink.sender()).write_all(&line).unwrap();
        }
        assert!(!sink.close(Duration::from_millis(50)), "the thread is stuck, closing must not be");
        place.set(|state| state.shut = false);
        let Trouble::Lost(lost) = troubles.recv_timeout(LIMIT).unwrap() else { panic!("no loss reported") };
        assert!((15..20).contains(&lost), "{lost} of 20 lines do not fit");
    }

    #[test]
    fn a_full_disk_is_reported_once_and_its_end_with_the_count() {
        let place = Place::default();
        place.set(|state| state.broken = true);
        let (sink, troubles) = start(&place);
        for _ in 0..3 {
            (&sink.sender()).write_all(b"lost\n").unwrap();
        }
        assert!(matches!(troubles.recv_timeout(LIMIT), Ok(Trouble::Failing(_))));
        while sink.sender.count.queued.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        // The last of the three may be in its write still: the lock inside `set` comes after it or before it.
        place.set(|state| state.broken = false);
        (&sink.sender()).write_all(b"kept\n").unwrap();
        let Ok(Trouble::Lost(lost)) = troubles.recv_timeout(LIMIT) else { panic!("no loss reported") };
        assert!((2..=3).contains(&lost), "{lost}");
        assert!(sink.close(LIMIT));
        assert!(place.text().ends_with("kept\n"));
    }
}
