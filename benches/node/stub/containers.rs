//! The containers of an engine: what each was made of, and what the engine tells of it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json, json};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::runner::Runner;

/// All containers of one engine.
pub(super) struct Containers {
    all: Mutex<All>,
    /// Lines of the stream of events.
    events: broadcast::Sender<String>,
}

#[derive(Default)]
struct All {
    by_id: HashMap<String, Container>,
    /// How many there were ever.
    made: u32,
}

struct Container {
    id: String,
    name: String,
    /// What it was created with.
    body: Json,
    address: Ipv4Addr,
    /// There while it runs.
    runner: Option<Runner>,
}

impl Default for Containers {
    fn default() -> Self {
        Self { all: Mutex::default(), events: broadcast::Sender::new(4096) }
    }
}

impl Containers {
    pub(super) fn events(&self) -> broadcast::Receiver<String> {
        self.events.subscribe()
    }

    /// Makes one; its id.
    pub(super) fn create(&self, name: &str, body: Json) -> String {
        let mut all = self.all();
        all.made += 1;
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let container = Container {
            id: id.clone(),
            name: name.to_owned(),
            body,
            address: address(all.made),
            runner: None,
        };
        self.tell(&container, "create");
        all.by_id.insert(id.clone(), container);
        id
    }

    /// Whether there is such a container; it runs from now on.
    pub(super) fn start(&self, id: &str) -> bool {
        let mut all = self.all();
        let Some(container) = all.by_id.get_mut(id) else { return false };
        container.runner = Some(Runner::listen(container.address));
        self.tell(container, "start");
        true
    }

    /// Ends and removes one, by its id or name. Whether there was one.
    pub(super) fn remove(&self, id_or_name: &str) -> bool {
        let mut all = self.all();
        let Some(id) = all.find(id_or_name).map(|container| container.id.clone()) else { return false };
        if let Some(container) = all.by_id.remove(&id) {
            if container.runner.is_some() {
                self.tell(&container, "die");
            }
            self.tell(&container, "destroy");
        }
        true
    }

    pub(super) fn inspect(&self, id_or_name: &str) -> Option<Json> {
        self.all().find(id_or_name).map(Container::inspection)
    }

    /// Those that have all these labels, `name=value`.
    pub(super) fn list(&self, labels: &[String]) -> Json {
        let all = self.all();
        let fits = |container: &&Container| labels.iter().all(|label| container.has(label));
        all.by_id.values().filter(fits).map(Container::summary).collect()
    }

    fn tell(&self, container: &Container, action: &str) {
        let mut attributes = container.body["Labels"].as_object().cloned().unwrap_or_default();
        attributes.insert("name".to_owned(), json!(container.name));
        if action == "die" {
            attributes.insert("exitCode".to_owned(), json!("137"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let event = json!({
            "Type": "container", "Action": action, "scope": "local",
            "time": now.as_secs(), "timeNano": u64::try_from(now.as_nanos()).unwrap(),
            "Actor": { "ID": container.id, "Attributes": attributes },
        });
        // Nobody may listen yet.
        let _ = self.events.send(format!("{event}\n"));
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap()
    }
}

impl All {
    fn find(&self, id_or_name: &str) -> Option<&Container> {
        let by_name = || self.by_id.values().find(|container| container.name == id_or_name);
        self.by_id.get(id_or_name).or_else(by_name)
    }
}

impl Container {
    fn status(&self) -> &'static str {
        if self.runner.is_some() { "running" } else { "created" }
    }

    fn has(&self, label: &str) -> bool {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        self.body["Labels"][name] == value
    }

    fn summary(&self) -> Json {
        json!({
            "Id": self.id, "Names": [format!("/{}", self.name)], "Image": self.body["Image"],
            "Labels": self.body["Labels"], "State": self.status(), "Created": 0,
        })
    }

    fn inspection(&self) -> Json {
        let host = &self.body["HostConfig"];
        let runs = self.runner.is_some();
        let mounts = host["Mounts"].as_array().into_iter().flatten();
        let mounts: Vec<Json> = mounts
            .map(|mount| {
                json!({ "Type": mount["Type"], "Source": mount["Source"], "Destination": mount["Target"],
                        "RW": mount["ReadOnly"] != true })
            })
            .collect();
        json!({
            "Id": self.id, "Name": format!("/{}", self.name),
            // Any process that lives: it is not the container's, so that the agent asks the engine for figures.
            "State": { "Status": self.status(), "Running": runs, "Pid": if runs { std::process::id() } else { 0 },
                       "StartedAt": if runs { "2020-01-01T00:00:00Z" } else { "0001-01-01T00:00:00Z" } },
            "Config": { "Image": self.body["Image"], "Labels": self.body["Labels"], "Tty": self.body["Tty"] },
            "HostConfig": host, "Mounts": mounts,
            "NetworkSettings": { "Ports": if runs { self.ports() } else { json!({}) },
                                 "Networks": { "bridge": { "IPAddress": self.address.to_string() } } },
        })
    }

    /// Published at a port where nobody listens: the container's own address is reached.
    fn ports(&self) -> Json {
        let wanted = self.body["HostConfig"]["PortBindings"].as_object().into_iter().flatten();
        let published = wanted.map(|(port, bindings)| {
            let bindings = bindings.as_array().into_iter().flatten();
            let bound = bindings.map(|binding| json!({ "HostIp": binding["HostIp"], "HostPort": "1" }));
            (port.clone(), bound.collect())
        });
        Json::Object(published.collect::<Map<String, Json>>())
    }
}

/// The address of the container with this number: one of some 60,000, each of which is free again long before its next turn.
fn address(number: u32) -> Ipv4Addr {
    let [.., third, fourth] = (number % 60_000 + 1).to_be_bytes();
    Ipv4Addr::new(127, 1, third, fourth)
}
