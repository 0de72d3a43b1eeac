//! What happens to containers and images, as it happens.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt, future};

use super::{Docker, DockerError};
use crate::ids::ContainerId;

/// The actions that are asked for. The engine tells of many more (every exec, every health check), which would
/// only wake the agent.
const ACTIONS: [&str; 14] = [
    "create", "start", "die", "oom", "kill", "stop", "destroy", "rename", "pause",
    "unpause", // containers
    "pull", "load", "tag", "untag", // images; "delete" and "import" come with an untag or a tag
];

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerEvent {
    /// When, in nanoseconds since 1970, by the engine's clock. What [`Docker::events`] takes to continue.
    pub time_nano: i64,
    /// What.
    pub kind: DockerEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerEventKind {
    /// To a container.
    Container {
        /// Which one.
        id: ContainerId,
        /// `create`, `start`, `die`, `oom`, `kill`, `stop`, `destroy`, `rename`, `pause` or `unpause`.
        action: String,
        /// The container's name at that moment.
        name: String,
        /// With `die`: what its process ended with.
        exit_code: Option<i64>,
        /// Everything that the engine says, its labels included.
        attributes: BTreeMap<String, String>,
    },
    /// To an image.
    Image {
        /// The image's id, or the reference that was pulled.
        id: String,
        /// `pull`, `load`, `tag` or `untag`.
        action: String,
    },
}

impl Docker {
    /// Listens over one connection, beginning with events at or after `since` (nanoseconds since 1970; the engine
    /// remembers the last 256), or with those that come from now on.
    ///
    /// Connects when it is first polled. Ends with the connection, after an error if there was one; listen again from the last event's time plus
    /// one. Silence is no error: whether the engine still answers is for other calls to find out.
    #[must_use]
    pub fn events(&self, since: Option<i64>) -> BoxStream<'static, Result<DockerEvent, DockerError>> {
        let docker = self.clone();
        let step = || "listen to Docker's events".to_owned();
        stream::once(async move {
            // Agreeing on the version first bounds the wait for a hung engine by a deadline.
            let limit = docker.deadlines.quick;
            let engine = docker
                .connection
                .call(step(), limit, |engine| async move { engine.ping().await.map(|_| engine) })
                .await?;
            let events = engine.with_timeout(limit.max(Duration::from_secs(1))).events(Some(options(since)));
            Ok::<_, DockerError>(events.map_err(move |error| {
                docker.connection.forget();
                docker.connection.classify(step(), error)
            }))
        })
        .try_flatten()
        .filter_map(|message| future::ready(message.map(read).transpose()))
        .boxed()
    }
}

fn options(since: Option<i64>) -> bollard::query_parameters::EventsOptions {
    let filters = HashMap::from([("type", vec!["container", "image"]), ("event", ACTIONS.to_vec())]);
    let options = EventsOptionsBuilder::new().filters(&filters);
    match since {
        Some(nanos) => options.since(&in_seconds(nanos)).build(),
        None => options.build(),
    }
}

/// Nanoseconds as the engine reads time stamps: seconds, a dot, nine digits.
fn in_seconds(nanos: i64) -> String {
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// Reads one message; `None` if it is about something else.
pub(super) fn read(message: EventMessage) -> Option<DockerEvent> {
    let time_nano =
        message.time_nano.or_else(|| message.time.map(|seconds| seconds.saturating_mul(1_000_000_000)))?;
    let actor = message.actor?;
    let (id, action) = (actor.id?, message.action?);
    let attributes: BTreeMap<String, String> = actor.attributes.unwrap_or_default().into_iter().collect();
    let kind = match message.typ? {
        EventMessageTypeEnum::CONTAINER => DockerEventKind::Container {
            id: ContainerId::new(id),
            action,
            name: attributes.get("name").cloned().unwrap_or_default(),
            exit_code: attributes.get("exitCode").and_then(|code| code.parse().ok()),
            attributes,
        },
        EventMessageTypeEnum::IMAGE => DockerEventKind::Image { id, action },
        _ => return None,
    };
    Some(DockerEvent { time_nano, kind })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_death_is_read() {
        let message = json!({
            "Type": "container", "Action": "die", "scope": "local", "time": 5, "timeNano": 5_000_000_001_i64,
            "Actor": {"ID": "abc", "Attributes": {"exitCode": "137", "name": "k", "label": "v"}}
        });
        let event = read(serde_json::from_value(message).unwrap()).unwrap();
        assert_eq!(event.time_nano, 5_000_000_001);
        let DockerEventKind::Container { id, action, name, exit_code, attributes } = event.kind else {
            panic!("not a container's event");
        };
        assert_eq!((id.as_str(), action.as_str(), name.as_str(), exit_code), ("abc", "die", "k", Some(137)));
        assert_eq!(attributes["label"], "v");
    }

    #[test]
    fn other_objects_are_left_out() {
        let message = json!({
            "Type": "network", "Action": "connect", "timeNano": 1, "Actor": {"ID": "abc", "Attributes": {}}
        });
        assert_eq!(read(serde_json::from_value(message).unwrap()), None);
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(in_seconds(5_000_000_001), "5.000000001");
        assert_eq!(in_seconds(0), "0.000000000");
    }
}
