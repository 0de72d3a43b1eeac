//! How a kernel comes to run, as its task does it: made, or taken back from an earlier life of the agent.

use std::sync::Arc;
use std::time::{Instant as StdInstant, SystemTime};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Kernel, at};
use crate::figures::{self, table};
use crate::ids::RunId;
use crate::kernel::container::{self, Made};
use crate::kernel::error::KernelError;
use crate::kernel::inbox::cut;
use crate::kernel::life::Input;
use crate::kernel::live::Live;
use crate::kernel::notes::NotedPhase;
use crate::kernel::takeover::{self, TakenBack};
use crate::patience::seconds;
use crate::resources::cpuset_text;
use crate::runner::{GoingRun, RunMemory, Runs};

impl Kernel {
    pub(super) async fn make(&mut self) -> Input {
        let begun = StdInstant::now();
        self.born = Some(SystemTime::now());
        let Self { node, id, config, allocation, inbox, deadline, .. } = self;
        let made = tokio::select! {
            biased;
            input = cut(&mut inbox.cuts, node) => Err((
                match input {
                    Input::AskerLeft => KernelError::Unwanted(*id),
                    _ => KernelError::Cancelled(*id),
                },
                input,
            )),
            () = at(deadline.map(|deadline| deadline.at)) => {
                Err((KernelError::Late(deadline.map(|deadline| deadline.limit).unwrap_or_default()), Input::Failed))
            }
            made = container::make(node, *id, config, deadline.map(|deadline| deadline.limit), allocation) => made.map_err(|e| (e, Input::Failed)),
        };
        let mut result = made.map(|made| self.connect(made, Runs::default(), Some(GoingRun::default())));
        self.pen.made_with(&self.config.environ);
        if let Ok(live) = &result
            // On the disk before the answer: the next life undoes what is noted as being made.
            && let Err(source) = self.pen.note_durably(NotedPhase::Running, self.last_use).await
        {
            live.runner.close();
            result = Err((self.node.not_noted(source), Input::Failed));
        }
        if let Ok(live) = &result
            && live.vigil.ended().now_or_never().is_some()
        {
            live.runner.close();
            let error = container::ended_at_once(&self.node, &live.place.container).await;
            result = Err((error, Input::Failed));
        }
        match result {
            Ok(live) => {
                self.place = None;
                tracing::info!(kernel = %self.id, lang = self.config.lang, container = live.place.container.short(),
                    cpus = cpuset_text(&live.place.cpu_set), seconds = seconds(begun.elapsed()), "created");
                figures::count(&table::KERNEL_CREATES, &["done"]);
                figures::took(&table::KERNEL_CREATE_SECONDS, &[], begun.elapsed());
                self.runs_in(live)
            }
            Err((error, input)) => {
                tracing::warn!(kernel = %self.id, lang = self.config.lang, %error, "could not create the kernel; undoing the create");
                figures::count(&table::KERNEL_CREATES, &[error.result()]);
                self.fail(error);
                input
            }
        }
    }

    /// Takes a running container back, or finds that it runs no more.
    pub(super) async fn look(&mut self) -> Input {
        let Self { node, id, inbox, found, .. } = self;
        let Some(container) = found.clone() else { return Input::Dead };
        let looked = tokio::select! {
            biased;
            input = cut(&mut inbox.cuts, node) => return input,
            looked = takeover::look(node, *id, &container) => looked,
        };
        match looked {
            None => Input::Dead,
            Some(Ok(taken)) => self.take_back(*taken).await,
            Some(Err(error)) => {
                // Odd, but somebody's session: it keeps running for a better agent to look at.
                tracing::error!(kernel = %self.id, container = container.short(), %error,
                    "left alone: can't take back this running kernel");
                self.fail(KernelError::LeftAlone { kernel: self.id, source: Box::new(error) });
                Input::Odd(container)
            }
        }
    }

    pub(super) async fn take_back(&mut self, taken: TakenBack) -> Input {
        let TakenBack { made, config, allocation, runs, going, born, unused, is_adopted } = taken;
        (self.config, self.allocation, self.born) = (config, Some(allocation), born);
        let run = going.as_ref().and_then(|going| going.run.clone());
        let live = self.connect(made, runs, going);
        self.last_use = Instant::now().checked_sub(unused).unwrap_or(self.last_use);
        self.pen.made_with(&self.config.environ);
        if is_adopted {
            self.pen.adopted(&live.place.container);
        }
        self.pen.note(NotedPhase::Running, self.last_use).await;
        if let Some(run) = &run {
            // Files that are new from now on are its own.
            live.remember_output(run).await;
        }
        tracing::info!(kernel = %self.id, lang = self.config.lang, container = live.place.container.short(),
            run = run.as_ref().map(RunId::as_str), cpus = cpuset_text(&live.place.cpu_set), "took back a running kernel");
        figures::count(&table::KERNELS_TAKEN_BACK, &[]);
        self.runs_in(live)
    }

    /// A made container becomes a live kernel. `going`: what the note of its run says, if that is known.
    pub(super) fn connect(&mut self, made: Made, runs: Runs, going: Option<GoingRun>) -> Arc<Live> {
        self.last_use = Instant::now();
        let memory = (Arc::new(self.run_pen.clone()) as Arc<dyn RunMemory>, going);
        Arc::new(Live::connect(&self.node, self.id, made, runs, memory, (self.config.clone(), self.born)))
    }

    pub(super) fn runs_in(&mut self, live: Arc<Live>) -> Input {
        let container = live.place.container.clone();
        self.activity = live.runner.activity();
        self.live = Some(live);
        Input::Ready(container)
    }
}
