//! An agent that is away for a while, as over a restart: how long what follows something waits for it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long an agent is waited for, and how often it is asked.
const LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Whether the agent is away.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
}

impl Absence {
    /// The agent was not to be had, once more maybe. Waits until it may be asked again, and says whether it may: not where it
    /// is away for too long. `first` says so to whoever looks, once.
    pub(super) async fn wait(&mut self, first: impl FnOnce(&str)) -> bool {
        if self.since.is_none() {
            first("[the agent is away; waiting for it]");
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() > LIMIT {
            return false;
        }
        sleep(ASK_EVERY).await;
        true
    }

    /// The agent is there; `back` says so, if it was away.
    pub(super) fn end(&mut self, back: impl FnOnce(&str)) {
        if self.since.take().is_some() {
            back("[the agent is back]");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_waited_for_for_a_minute_and_each_absence_is_told_once() {
        let (mut absence, mut told) = (Absence::default(), Vec::new());
        absence.end(|_| panic!("it was not away"));
        for _ in 0..2 {
            assert!(absence.wait(|text| told.push(text.to_owned())).await);
        }
        absence.end(|text| told.push(text.to_owned()));
        assert_eq!(told, ["[the agent is away; waiting for it]", "[the agent is back]"]);
        let begun = Instant::now();
        while absence.wait(|_| {}).await {}
        assert_eq!(begun.elapsed().as_secs(), 60);
    }
}
