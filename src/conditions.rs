//! What the agent's work needs, whether it is there, and what the agent gives up without it. Pure; times come in.
//!
//! The rule: without what no new kernel can be made with, the agent offers no **slots**, so that the manager places none
//! here, and what goes on goes on. Without what only the telling of kernels needs, it keeps its slots and is not **ready**:
//! somebody has to look, but a session that is placed here runs. No slots means not ready, too. A need that was not looked at
//! yet changes neither.
//!
//! | need | unmet when | given up |
//! | --- | --- | --- |
//! | `start` | the start is not over: Docker, the manager, earlier kernels and the first heartbeat are awaited, in this order | ready |
//! | `docker` | Docker does not answer | slots |
//! | `disk` | the scratch root or Docker's own disk is full, read-only, gone or does not answer | slots |
//! | `images` | there is no kernel image on this machine | slots |
//! | `undrained` | an operator has drained the node (`backendai-agent drain`), until `resume` | slots |
//! | `events` | no heartbeat has arrived at the manager for 5 s: it has given this node up | ready |
//! | `etcd` | etcd does not answer: changes that the manager makes are not heard | ready |
//! | `manager` | the manager has left etcd | ready |
//! | `redis` | statistics don't reach Redis, and users don't see them | ready |

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

/// Something that the agent's work needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// That the start is over.
    Start,
    /// An engine that answers.
    Docker,
    /// Room on the disks, and a scratch root that can be written to.
    Disk,
    /// Kernel images.
    Images,
    /// That no operator has drained the node.
    Undrained,
    /// Heartbeats that arrive.
    Events,
    /// The cluster's settings.
    Etcd,
    /// The manager's presence.
    Manager,
    /// Where statistics go.
    Redis,
}

/// What the agent gives up without a need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// Slots, and being ready.
    Slots,
    /// Being ready.
    Ready,
}

impl Need {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Docker,
        Self::Disk,
        Self::Images,
        Self::Undrained,
        Self::Events,
        Self::Etcd,
        Self::Manager,
        Self::Redis,
    ];

    /// Its name in pages, metrics and log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Docker => "docker",
            Self::Disk => "disk",
            Self::Images => "images",
            Self::Undrained => "undrained",
            Self::Events => "events",
            Self::Etcd => "etcd",
            Self::Manager => "manager",
            Self::Redis => "redis",
        }
    }

    /// What the agent gives up without it.
    #[must_use]
    pub fn cost(self) -> Cost {
        match self {
            Self::Docker | Self::Disk | Self::Images | Self::Undrained => Cost::Slots,
            Self::Start | Self::Events | Self::Etcd | Self::Manager | Self::Redis => Cost::Ready,
        }
    }

    /// Whether a create is refused without it, with its reason. Without the others a create fails or works by itself, in words
    /// of its own.
    #[must_use]
    pub fn refuses_creates(self) -> bool {
        matches!(self, Self::Disk | Self::Undrained)
    }
}

impl Serialize for Need {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// A moment, on the clock that never jumps and on the wall's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For durations.
    pub at: Instant,
    /// Seconds since 1970, for people and pages.
    pub unix: u64,
}

/// How one need is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Which need.
    pub name: Need,
    /// Whether it is met.
    pub ok: bool,
    /// Why it is not met, in one line for an operator; empty while it is.
    pub reason: String,
    /// What the agent gives up while it is not met.
    pub costs: Cost,
    /// Since when it is met or not, in seconds since 1970.
    pub since: u64,
    /// The same on the clock that never jumps.
    #[serde(skip)]
    at: Instant,
}

/// A need that is met or unmet from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is unmet.
    Lost,
    /// It is met again, after so long.
    Back(Duration),
}

/// All needs that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// At most one of each need, in their order.
    list: Vec<Condition>,
}

impl Conditions {
    /// Takes in how a need is met: `None`, or why it is not. What has changed, to be told once; a reason that is worded anew is no
    /// change.
    pub fn set(&mut self, name: Need, unmet: Option<String>, now: Moment) -> Option<Change> {
        let at = self.list.binary_search_by_key(&name, |condition| condition.name);
        let (ok, reason) = (unmet.is_none(), unmet.unwrap_or_default());
        match at {
            Err(place) => {
                let new = Condition { name, ok, reason, costs: name.cost(), since: now.unix, at: now.at };
                self.list.insert(place, new);
                (!ok).then_some(Change::Lost)
            }
            Ok(place) => {
                let condition = self.list.get_mut(place)?;
                condition.reason = reason;
                if condition.ok == ok {
                    return None;
                }
                let lasted = now.at.saturating_duration_since(condition.at);
                (condition.ok, condition.since, condition.at) = (ok, now.unix, now.at);
                Some(if ok { Change::Back(lasted) } else { Change::Lost })
            }
        }
    }

    /// Each need that was looked at, in the order of [`Need::ALL`].
    #[must_use]
    pub fn list(&self) -> &[Condition] {
        &self.list
    }

    /// Those that are unmet.
    pub fn unmet(&self) -> impl Iterator<Item = &Condition> {
        self.list.iter().filter(|condition| !condition.ok)
    }

    /// Whether the agent offers slots.
    #[must_use]
    pub fn offers_slots(&self) -> bool {
        self.unmet().all(|condition| condition.costs != Cost::Slots)
    }

    /// Whether the agent can do all of its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.list.is_empty() && self.unmet().next().is_none()
    }

    /// Why no kernel is made at present; `None` while they are.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.unmet()
            .find(|condition| condition.name.refuses_creates())
            .map(|condition| condition.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(start: Instant, seconds: u64) -> Moment {
        Moment { at: start + Duration::from_secs(seconds), unix: 1000 + seconds }
    }

    #[test]
    fn a_change_is_told_once_each_way_with_its_length() {
        let (mut all, start) = (Conditions::default(), Instant::now());
        let mut set = |second, unmet| all.set(Need::Disk, unmet, after(start, second));
        assert_eq!(set(0, None), None, "that all is well from the beginning is no news");
        assert_eq!(set(5, Some("4 % free".to_owned())), Some(Change::Lost));
        assert_eq!(set(6, Some("3 % free".to_owned())), None);
        assert_eq!(set(12, None), Some(Change::Back(Duration::from_secs(7))));
        assert_eq!(set(13, None), None);
        assert_eq!(set(14, Some("2 % free".to_owned())), Some(Change::Lost));
        let disk = &all.list()[0];
        assert_eq!((disk.ok, disk.reason.as_str(), disk.since), (false, "2 % free", 1014));
    }

    #[test]
    fn what_is_unmet_from_the_beginning_is_news() {
        let (mut all, now) = (Conditions::default(), after(Instant::now(), 0));
        assert_eq!(all.set(Need::Redis, Some("refused".to_owned()), now), Some(Change::Lost));
    }

    #[test]
    fn what_kernels_are_made_with_takes_the_slots_and_the_rest_only_the_readiness() {
        for need in Need::ALL {
            let (mut all, now) = (Conditions::default(), after(Instant::now(), 0));
            assert!(all.offers_slots() && !all.is_ready(), "nothing was looked at");
            all.set(Need::Start, None, now);
            assert!(all.is_ready());
            all.set(need, Some("away".to_owned()), now);
            let takes_slots = [Need::Docker, Need::Disk, Need::Images, Need::Undrained].contains(&need);
            assert_eq!((all.offers_slots(), all.is_ready()), (!takes_slots, false), "{need:?}");
            assert_eq!(all.refusal(), [Need::Disk, Need::Undrained].contains(&need).then_some("away"));
            all.set(need, None, now);
            assert!(all.offers_slots() && all.is_ready());
        }
    }

    #[test]
    fn a_condition_says_all_in_json() {
        let (mut all, now) = (Conditions::default(), after(Instant::now(), 7));
        all.set(Need::Disk, Some("full".to_owned()), now);
        let json = serde_json::to_string(all.list()).unwrap();
        assert_eq!(json, r#"[{"name":"disk","ok":false,"reason":"full","costs":"slots","since":1007}]"#);
    }

    proptest! {
        #[test]
        fn each_need_is_listed_once_in_order(sets in proptest::collection::vec((0..9_usize, any::<bool>()), 0..60)) {
            let (mut all, start) = (Conditions::default(), Instant::now());
            for (second, (need, ok)) in sets.iter().enumerate() {
                all.set(Need::ALL[*need], (!ok).then(String::new), after(start, second as u64));
            }
            let listed: Vec<Need> = all.list().iter().map(|condition| condition.name).collect();
            let expected: Vec<Need> =
                Need::ALL.into_iter().filter(|need| sets.iter().any(|(i, _)| Need::ALL[*i] == *need)).collect();
            prop_assert_eq!(listed, expected);
            for condition in all.list() {
                let last = sets.iter().rev().find(|(i, _)| Need::ALL[*i] == condition.name).unwrap();
                prop_assert_eq!(condition.ok, last.1);
            }
        }
    }
}
