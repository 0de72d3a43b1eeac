//! What the next life of the agent has to know of the run that goes on, and its way to the disk.
//!
//! One task for each connected runner ([`RunKeeper`]) owns this: it follows the queue, and hands what is to be remembered
//! to a [`RunMemory`] that its maker injects. Callers wait for it at the two moments that matter: before code is handed to
//! the runner the run is remembered, and before a run's end is answered that end is kept. A kill of the agent at any moment
//! then leaves a run whose code has not left, one that the runner can be asked about, or one whose end is known. A memory
//! that hangs or fails holds callers up for a moment only; what could not be written counts as not written, and the
//! newest is written later.
//!
//! Output that nobody has collected is kept as well, [`SPILL`] after it came at the latest: what was read in so short a time
//! before a kill is all that a kill can lose. A stop in order loses nothing. Output that is collected sooner never reaches
//! the disk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::code::{GoingRun, Way};
use super::current::Activity;
use super::shared::Shared;
use super::spill::Spilled;
use crate::ids::{KernelId, RunId};

/// How long a caller waits for the memory.
const LIMIT: Duration = Duration::from_secs(1);
/// The pause before what could not be remembered is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long output waits for the disk.
const SPILL: Duration = Duration::from_millis(20);

/// Where the run that goes on is remembered.
pub trait RunMemory: Send + Sync + 'static {
    /// Changes what is kept of the runs' output as [`RunMemory::spill`] does, then remembers this in place of what was before, also after
    /// an error of the output. Keeps the order of its calls, also of those that are given up.
    fn keep(&self, output: Vec<Spilled>, going: GoingRun) -> BoxFuture<'static, Written>;

    /// Changes what is kept of the runs' output; in order with all other calls. After an error, what is kept of these runs is
    /// of no use and goes.
    fn spill(&self, output: Vec<Spilled>) -> BoxFuture<'static, io::Result<()>>;
}

/// What became of [`RunMemory::keep`].
#[derive(Debug)]
pub struct Written {
    /// Of the output.
    pub output: io::Result<()>,
    /// Of the run that goes on.
    pub going: io::Result<()>,
}

/// The newest attempt to remember.
#[derive(Debug, Clone, Default)]
struct Attempt {
    /// What was to be remembered.
    going: GoingRun,
    /// Whether it is.
    worked: bool,
}

/// Where callers wait for the memory.
#[derive(Clone)]
pub(super) struct Remembered {
    /// For log lines.
    kernel: KernelId,
    attempts: watch::Receiver<Attempt>,
    /// Asks for all output to be kept, and to be told then.
    flushes: mpsc::Sender<oneshot::Sender<()>>,
}

impl Remembered {
    /// Waits until this run is remembered, or its memory was tried and failed.
    pub(super) async fn begun(&self, run: &RunId) {
        self.wait(|going| going.run.as_ref() == Some(run)).await;
    }

    /// Waits until it is remembered that this run's code leaves, or that was tried and failed.
    pub(super) async fn leaving(&self, run: &RunId) {
        self.wait(|going| going.run.as_ref() == Some(run) && !matches!(going.way, Way::Kept(_))).await;
    }

    /// Waits until it is remembered that so many answers may come, or that was tried and failed.
    pub(super) async fn asking(&self, answers: u8) {
        self.wait(|going| going.answers >= answers).await;
    }

    /// Waits until all output that has come is kept, or that was tried and failed.
    pub(super) async fn kept(&self) {
        let (done, kept) = oneshot::channel();
        let asked = async {
            self.flushes.send(done).await.ok()?;
            kept.await.ok()
        };
        if timeout(LIMIT, asked).await.is_err() {
            self.tell_slow();
        }
    }

    async fn wait(&self, fits: impl Fn(&GoingRun) -> bool) {
        let mut attempts = self.attempts.clone();
        if timeout(LIMIT, attempts.wait_for(|attempt| fits(&attempt.going))).await.is_err() {
            self.tell_slow();
        }
    }

    fn tell_slow(&self) {
        tracing::warn!(kernel = %self.kernel, "the note of a run is slow to be written; check the disk below the scratch root");
    }
}

/// Owns the memory of one connected runner.
pub(super) struct RunKeeper {
    shared: Arc<Shared>,
    activity: watch::Receiver<Activity>,
    memory: Arc<dyn RunMemory>,
    attempts: watch::Sender<Attempt>,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
    /// Whether the disk took the last output.
    spills: bool,
}

impl RunKeeper {
    /// `known`: what the memory holds at first, if that is known.
    pub(super) fn new(
        shared: Arc<Shared>,
        memory: Arc<dyn RunMemory>,
        known: Option<GoingRun>,
    ) -> (Self, Remembered) {
        let worked = known.is_some();
        let attempts = watch::Sender::new(Attempt { going: known.unwrap_or_default(), worked });
        let (flush, flushes) = mpsc::channel(1);
        let remembered = Remembered { kernel: shared.kernel, attempts: attempts.subscribe(), flushes: flush };
        let activity = shared.activity.subscribe();
        (Self { shared, activity, memory, attempts, flushes, spills: true }, remembered)
    }

    /// Follows the queue until the connection is given up; the last word is written then, too.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let (mut spill_at, mut waits_for) = (None::<Instant>, None);
        while !end.is_cancelled() {
            self.keep_up().await;
            let is_behind = !self.attempts.borrow().worked;
            tokio::select! {
                () = end.cancelled() => {}
                changed = self.activity.changed() => if changed.is_err() {
                    return;
                },
                () = self.shared.spills.notified() => {
                    let newest = self.shared.runs().collections();
                    // What the time was for may have been collected meanwhile; what is there came after that.
                    if spill_at.is_none() || (newest.is_some() && newest != waits_for) {
                        (spill_at, waits_for) = (Some(Instant::now() + SPILL), newest);
                    }
                }
                () = sleep_until(spill_at.unwrap_or_else(Instant::now)), if spill_at.is_some() => {
                    spill_at = None;
                    self.spill().await;
                }
                Some(kept) = self.flushes.recv() => {
                    self.spill().await;
                    // Whoever asked may be gone.
                    let _ = kept.send(());
                }
                () = sleep(RETRY), if is_behind => {}
            }
        }
        self.spill().await;
        self.keep_up().await;
    }

    async fn keep_up(&mut self) {
        let going = self.activity.borrow_and_update().going.clone();
        let last = self.attempts.borrow().clone();
        if last.worked && last.going.means_the_same_as(&going) {
            return;
        }
        // Of a run that is over, the end is kept before the memory of it goes.
        let is_over = last.going.run != going.run;
        let spilled = if is_over { self.shared.runs().spill() } else { Vec::new() };
        let has_spilled = !spilled.is_empty();
        let Written { output, going: kept } = self.memory.keep(spilled, going.clone()).await;
        if has_spilled {
            self.spilled(&output);
        }
        match &kept {
            Err(error) if last.worked => {
                tracing::warn!(kernel = %self.shared.kernel, %error, "could not note which run goes on, trying again; check the disk below the scratch root");
            }
            Err(error) => {
                tracing::debug!(kernel = %self.shared.kernel, %error, "still can't note which run goes on");
            }
            Ok(()) => {}
        }
        self.attempts.send_replace(Attempt { going, worked: kept.is_ok() });
    }

    /// Brings the disk up to date.
    async fn spill(&mut self) {
        let spilled = self.shared.runs().spill();
        if spilled.is_empty() {
            return;
        }
        let outcome = self.memory.spill(spilled).await;
        self.spilled(&outcome);
    }

    /// The disk took output, or refused it.
    fn spilled(&mut self, outcome: &io::Result<()>) {
        if let Err(error) = outcome {
            self.shared.runs().spill_refused();
            if self.spills {
                tracing::warn!(kernel = %self.shared.kernel, %error, "can't keep output that nobody has fetched; a restart of the agent would lose it");
            }
        }
        self.spills = outcome.is_ok();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;

    use super::super::runs::{Entry, Runs, Taken};
    use super::super::spill::Change;
    use super::*;
    use crate::wire::record::Record;

    /// A memory that takes everything, or refuses.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) kept: Mutex<Vec<GoingRun>>,
        pub(crate) spilled: Mutex<Vec<Change>>,
        /// Whether what is spilled never gets there.
        pub(crate) hangs: std::sync::atomic::AtomicBool,
        pub(crate) is_full: std::sync::atomic::AtomicBool,
    }

    impl RunMemory for Fake {
        fn keep(&self, output: Vec<Spilled>, going: GoingRun) -> BoxFuture<'static, Written> {
            let is_full = self.is_full.load(std::sync::atomic::Ordering::Relaxed);
            if !is_full {
                self.kept.lock().unwrap().push(going);
            }
            let going = if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
            let spilled = (!output.is_empty()).then(|| self.spill(output));
            async move {
                let output = match spilled {
                    Some(spilled) => spilled.await,
                    None => Ok(()),
                };
                Written { output, going }
            }
            .boxed()
        }

        fn spill(&self, output: Vec<Spilled>) -> BoxFuture<'static, io::Result<()>> {
            if self.hangs.load(std::sync::atomic::Ordering::Relaxed) {
                return std::future::pending().boxed();
            }
            self.spilled.lock().unwrap().extend(output.into_iter().map(|spilled| spilled.change));
            async { Ok(()) }.boxed()
        }
    }

    /// A queue whose keeper works.
    struct Kept {
        shared: Arc<Shared>,
        memory: Arc<Fake>,
        remembered: Remembered,
        end: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Kept {
        fn start() -> Self {
            let shared = Arc::new(Shared::new(KernelId::random(), Runs::default()));
            let memory = Arc::new(Fake::default());
            let (keeper, remembered) =
                RunKeeper::new(shared.clone(), memory.clone(), Some(GoingRun::default()));
            let end = CancellationToken::new();
            let task = tokio::spawn(keeper.run(end.clone()));
            Self { shared, memory, remembered, end, task }
        }
    }

    fn going(run: &str) -> GoingRun {
        GoingRun { run: Some(RunId::new(run)), ..GoingRun::default() }
    }

    fn activity(run: &str) -> Activity {
        Activity { run: Some(RunId::new(run)), in_use: true, going: going(run), ..Activity::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_not_taken_for_written_and_only_the_newest_is_written_later() {
        let Kept { shared, memory, remembered, end, task } = Kept::start();
        memory.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
        for run in ["first", "second"] {
            shared.activity.send_replace(activity(run));
            // A caller is not held up for the whole limit.
            let begun = tokio::time::Instant::now();
            remembered.begun(&RunId::new(run)).await;
            assert!(begun.elapsed() < LIMIT);
        }
        assert!(memory.kept.lock().unwrap().is_empty());
        memory.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
        sleep(RETRY + LIMIT).await;
        assert_eq!(*memory.kept.lock().unwrap(), [going("second")]);
        shared.activity.send_replace(Activity::default());
        end.cancel();
        task.await.unwrap();
        assert_eq!(*memory.kept.lock().unwrap(), [going("second"), GoingRun::default()], "the last word");
    }

    #[tokio::test(start_paused = true)]
    async fn only_output_that_was_not_collected_in_time_goes_to_the_disk() {
        let Kept { shared, memory, remembered, end, task } = Kept::start();
        let run = RunId::new("r");
        let mut ticket = shared.change(|runs| runs.enter(&run, Entry::New)).unwrap();
        shared.change(|runs| runs.started(ticket, std::time::Instant::now()));
        remembered.begun(&run).await;
        for _ in 0..5 {
            let came = Record::Stdout("x".into());
            shared.change(|runs| runs.record(came, std::time::Instant::now()));
            sleep(SPILL * 3 / 4).await;
            let taken = shared.change(|runs| runs.take_all(ticket));
            assert!(matches!(taken, Taken::Answer(items, _) if items.len() == 1));
            ticket = shared.change(|runs| runs.enter(&run, Entry::GoOn)).unwrap();
        }
        assert!(memory.spilled.lock().unwrap().is_empty());
        let kept = Record::Stdout("y".into());
        shared.change(|runs| runs.record(kept.clone(), std::time::Instant::now()));
        sleep(SPILL + Duration::from_millis(1)).await;
        assert_eq!(*memory.spilled.lock().unwrap(), [Change::Append(vec![kept])]);
        end.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn that_code_has_left_is_not_written_after_it_was_leaving() {
        let Kept { shared, memory, remembered, end, task } = Kept::start();
        let leaving = GoingRun { way: Way::Leaving, ..going("run") };
        shared.activity.send_replace(Activity { going: leaving.clone(), ..activity("run") });
        remembered.begun(&RunId::new("run")).await;
        shared.activity.send_replace(activity("run"));
        sleep(RETRY + LIMIT).await;
        shared.activity.send_replace(Activity::default());
        end.cancel();
        task.await.unwrap();
        assert_eq!(*memory.kept.lock().unwrap(), [leaving, GoingRun::default()]);
    }
}
