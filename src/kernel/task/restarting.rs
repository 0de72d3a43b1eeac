//! A restart, as the kernel's task does it: got ready while the kernel runs, refused without touching it, and only then
//! carried out (section 12, item 18).

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Kernel;
use crate::figures::{self, table};
use crate::kernel::error::KernelError;
use crate::kernel::inbox::{Restart, cut};
use crate::kernel::life::Input;
use crate::kernel::notes::NotedPhase;
use crate::kernel::remaking;
use crate::patience::seconds;
use crate::runner::{GoingRun, RunMemory, Runs};
use crate::wire::event::Event;

/// How long getting it ready may take; enough is left of what the manager waits to carry it out.
const PREPARE_LIMIT: Duration = Duration::from_secs(12);
/// How long carrying it out may take: with the above, less than the 30 s that the manager waits.
const CARRY_OUT_LIMIT: Duration = Duration::from_secs(16);

impl Kernel {
    /// Gets a restart ready. Whatever goes wrong, the kernel runs on as it was.
    pub(super) async fn prepare(&mut self) -> Input {
        let (Some(live), Some(Restart { config, answer })) = (self.live.clone(), self.restart.take()) else {
            return Input::Failed;
        };
        self.restarting_since = Some(Instant::now());
        // What an end that a crash brings on has to wait for.
        self.pen.restart_asked(true);
        self.pen.note(NotedPhase::Running, self.last_use).await;
        let wanted = config.apply(&self.config);
        let Self { node, id, allocation, inbox, .. } = self;
        let prepared = tokio::select! {
            biased;
            input = cut(&mut inbox.cuts, node) => Err((
                match input {
                    Input::Detach => KernelError::Stopping(*id),
                    Input::AskerLeft => KernelError::Unwanted(*id),
                    _ => KernelError::Cancelled(*id),
                },
                input,
            )),
            // Docker may give its address away before it says so; nothing of this kernel must reach the next one.
            () = live.vigil.ended() => {
                live.runner.close();
                Err((KernelError::NotRunning(*id), Input::ProcessEnded))
            }
            prepared = timeout(PREPARE_LIMIT, remaking::prepare(node, *id, wanted, &live.scratch, allocation)) => {
                let late = KernelError::RestartLate { kernel: *id, limit: PREPARE_LIMIT };
                prepared.unwrap_or(Err(late)).map_err(|e| (e, Input::Failed))
            }
        };
        match prepared {
            Ok(prepared) => {
                self.prepared = Some((prepared, answer));
                Input::Done
            }
            Err((error, input)) => {
                tracing::warn!(kernel = %self.id, %error, "did not restart the kernel, which is as it was");
                figures::count(&table::KERNEL_RESTARTS, &[error.result()]);
                self.pen.restart_asked(false);
                self.pen.note(NotedPhase::Running, self.last_use).await;
                // The asker may be gone; nothing depends on its hearing.
                let _ = answer.send(Err(error.into()));
                input
            }
        }
    }

    /// Carries out what is ready. It races the termination; whoever wants the kernel gone wins.
    pub(super) async fn remake(&mut self) -> Input {
        let (Some(old), Some((prepared, answer))) = (self.live.take(), self.prepared.take()) else {
            return Input::Failed;
        };
        old.runner.close();
        let kept = self.run_pen.keep(Vec::new(), GoingRun::default()).await.going;
        self.pen.restart_asked(false);
        self.pen.made_with(&prepared.config.environ);
        self.pen.note(NotedPhase::Restarting, self.last_use).await;
        self.node.events.emit(Event::KernelCreating(self.id));
        self.config = prepared.config.clone();
        let Self { node, id, allocation, inbox, .. } = self;
        let remake = remaking::carry_out(node, *id, prepared, allocation, &old.place.container);
        let made = tokio::select! {
            biased;
            Some(reason) = inbox.cuts.terminate.recv() => {
                Err((KernelError::Cancelled(*id), Input::Terminate(reason)))
            }
            made = timeout(CARRY_OUT_LIMIT, remake) => {
                let late = KernelError::Late(CARRY_OUT_LIMIT);
                made.unwrap_or(Err(late)).map_err(|e| (e, Input::Failed))
            }
        };
        let (result, input) = match made {
            Ok(made) => {
                let live = self.connect(made, Runs::default(), kept.ok().map(|()| GoingRun::default()));
                let seconds = self.restarting_since.map(|since| seconds(since.elapsed()));
                let container = live.place.container.short();
                tracing::info!(kernel = %self.id, lang = self.config.lang, container, seconds, "restarted");
                figures::count(&table::KERNEL_RESTARTS, &["done"]);
                if let Some(since) = self.restarting_since {
                    figures::took(&table::KERNEL_RESTART_SECONDS, &[], since.elapsed());
                }
                (Ok(live.place.clone()), self.runs_in(live))
            }
            Err((error, input)) => {
                tracing::warn!(kernel = %self.id, %error, "could not restart the kernel; ending it");
                figures::count(&table::KERNEL_RESTARTS, &[error.result()]);
                // For its last statistics.
                self.live = Some(old);
                (Err(self.fail(error)), input)
            }
        };
        // The asker may be gone; the kernel runs all the same.
        let _ = answer.send(result);
        input
    }
}
