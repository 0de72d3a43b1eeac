//! The task that stays in touch with etcd: reads, compares, publishes, repairs, waits for a reason to read again.
//!
//! Snapshot again is its answer to everything: an event of the watch, the end of a watch, a compaction, a new
//! server, an interval without news. So there is one way in for the state, whatever happened to etcd.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::contact::Contact;
use super::keeper::Keeper;
use super::link::{ClusterError, Link, Snapshot, Watching};
use super::presence::Seen;
use super::settings::{Gaps, ManagerSettings, RawSettings, SETTINGS_KEYS, follow};
use super::shared::{BACKOFF, ClusterStatus, Shared};

/// The pause after a watch that ended although etcd answers, so that a server that refuses watches is not
/// asked for one after the other; meanwhile the regular reads go on.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// The watcher's own state.
pub(super) struct Watcher {
    /// Configuration, keys and the channels to everybody else.
    shared: Arc<Shared>,
    /// The keys to read and watch: the settings, then this agent's state and address.
    keys: Vec<String>,
    /// This agent's presence.
    keeper: Keeper,
    /// Whether etcd answers.
    contact: Contact,
    /// Tells `retract` that this task is over, however it ended.
    _ended: DropGuard,
}

/// The watcher was told to stop.
struct Stopped;

impl Watcher {
    /// A watcher that has not begun yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let keys = &shared.keys;
        let settings = SETTINGS_KEYS.iter().map(|key| keys.full(key));
        Self {
            keys: settings.chain([keys.agent_state(), keys.agent_ip()]).collect(),
            keeper: Keeper::new(shared.wanted.subscribe(), shared.published.clone()),
            contact: Contact::default(),
            _ended: shared.ended.clone().drop_guard(),
            shared,
        }
    }

    /// Runs until told to stop. No failure ends it.
    pub(super) async fn run(mut self) {
        let count = self.shared.config.endpoints.len();
        for index in (0..count.max(1)).cycle() {
            let error = match self.visit(index).await {
                Ok(Stopped) => return,
                Err(error) => error,
            };
            if let Some(rounds) = self.contact.failed(&error, count) {
                let trouble = Some(error.to_string());
                self.shared.status.send_if_modified(|status| {
                    let is_news = status.etcd_reachable || status.etcd_trouble != trouble;
                    (status.etcd_reachable, status.etcd_trouble) = (false, trouble);
                    is_news
                });
                let random = RandomState::new().build_hasher().finish();
                tokio::select! {
                    () = self.shared.stop.cancelled() => return,
                    () = tokio::time::sleep(BACKOFF.spread(rounds, random)) => {}
                }
            }
        }
    }

    /// Connects to the server at `index` of the configuration and works with it.
    async fn visit(&mut self, index: usize) -> Result<Stopped, ClusterError> {
        let config = &self.shared.config;
        let endpoint = config.endpoints.get(index).ok_or(ClusterError::NoEndpoint)?;
        let mut link = Link::open(endpoint, config.call_deadline, &config.access).await?;
        self.stay(&mut link).await
    }

    /// Works with one server until it fails.
    async fn stay(&mut self, link: &mut Link) -> Result<Stopped, ClusterError> {
        let shared = Arc::clone(&self.shared);
        let mut watching: Option<Watching> = None;
        let mut watch_again = Instant::now();
        loop {
            let reading = tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(Stopped),
                reading = link.read(&self.keys) => reading?,
            };
            let seen = self.take_in(&reading);
            if self.keeper.keep(link, &shared.keys, &seen, shared.config.check_every).await {
                continue;
            }

            watching = watching.filter(|watching| watching.covers(&reading));
            if watching.is_none() && Instant::now() >= watch_again {
                let started = tokio::select! {
                    biased;
                    () = shared.stop.cancelled() => return Ok(Stopped),
                    started = link.watch(&self.keys, &reading) => started,
                };
                match started {
                    Ok(started) => watching = Some(started),
                    Err(error) => watch_again = after_watch_failed(&error),
                }
            }

            let wake = self.wake(watching.is_none().then_some(watch_again));
            tokio::select! {
                // Being told to stop comes first: a flood of events must not hold up the end.
                biased;
                () = shared.stop.cancelled() => return Ok(Stopped),
                () = self.keeper.wanted_changed() => {}
                change = next_change(&mut watching, reading.revision) => {
                    if let Err(error) = change {
                        watching = None;
                        watch_again = after_watch_failed(&error);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// When to read again though nothing was heard.
    fn wake(&self, watch_again: Option<Instant>) -> Instant {
        let check = Instant::now() + self.shared.config.check_every;
        [watch_again, self.keeper.due()].into_iter().flatten().fold(check, Instant::min)
    }

    /// Publishes what was read, and gives this agent's own part of it.
    fn take_in(&mut self, reading: &Snapshot) -> Seen {
        self.contact.reached();
        let mut values = reading.values.iter().cloned();
        let raw: RawSettings = std::array::from_fn(|_| values.next().flatten());
        let seen = Seen { state: values.next().flatten(), ip: values.next().flatten() };

        let last = self.shared.settings.borrow().clone();
        let (settings, gaps) = follow(last.as_ref(), &raw);
        if settings != last {
            log_settings(last.as_ref(), settings.as_ref());
            self.shared.settings.send_replace(settings);
        }
        let [manager, ..] = &raw;
        let present = manager.is_some();
        self.shared.status.send_if_modified(|status| {
            log_status(status.manager_present, present, last.is_some(), &status.gaps, &gaps);
            let next =
                ClusterStatus { etcd_reachable: true, etcd_trouble: None, manager_present: present, gaps };
            let changed = *status != next;
            *status = next;
            changed
        });
        seen
    }
}

/// Waits for a change that the watch tells of; for ever if there is no watch.
async fn next_change(watching: &mut Option<Watching>, revision: i64) -> Result<(), ClusterError> {
    match watching {
        Some(watching) => watching.changed(revision).await,
        None => std::future::pending().await,
    }
}

/// When the next watch may be started. A failed watch alone does not mean that etcd is gone: the read that
/// follows will tell.
fn after_watch_failed(error: &ClusterError) -> Instant {
    tracing::debug!(%error, "the watch ended; reading again");
    Instant::now() + WATCH_PAUSE
}

fn log_settings(last: Option<&ManagerSettings>, next: Option<&ManagerSettings>) {
    let Some(next) = next else { return };
    tracing::info!(
        manager = %next.manager_id,
        event_addr = %next.event_addr,
        redis = %next.redis,
        volume_mount = %next.volume_mount.display(),
        "{}", if last.is_none() { "the manager's settings are complete" } else { "the manager's settings changed" },
    );
}

fn log_status(was_present: bool, present: bool, known: bool, last: &Gaps, gaps: &Gaps) {
    // Before the first settings `wait_for_manager` tells the story, and after that whoever reads the status.
    if known && was_present != present {
        tracing::debug!(present, "the manager left etcd or came back");
    }
    for bad in gaps.bad.iter().filter(|bad| !last.bad.contains(bad)) {
        tracing::error!(key = bad.key, fault = %bad.fault, "a value in etcd can't be used; waiting for a better one");
    }
}
