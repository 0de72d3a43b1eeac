//! The manager's side of the event socket: a PULL socket that keeps everything it got, with the time it came.
//!
//! It runs on a thread of its own, so that times are right even while a test is busy. Being a manager that can go
//! away and come back is part of its job: [`Manager::down`] closes the socket, [`Manager::up`] binds it again.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use backendai_agent::zmtp::Pull;
use rmpv::Value;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::msgpack::{to_json, unpack};
use super::ports::Port;

/// One event as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// The instance id of the agent that sent it.
    pub(crate) instance: String,
    /// The arguments as msgpack, for those who must tell bytes from text.
    pub(crate) raw: Value,
    /// The arguments as JSON.
    pub(crate) args: Json,
    /// When it arrived.
    pub(crate) at: SystemTime,
}

struct Log {
    events: Mutex<Vec<Event>>,
    /// How many events there are; wakes the waiting.
    count: watch::Sender<usize>,
}

/// The event socket of a fake manager.
pub(crate) struct Manager {
    port: Port,
    log: Arc<Log>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Manager {
    /// Binds a socket on a port of its own.
    pub(crate) fn start() -> Self {
        let log = Arc::new(Log { events: Mutex::default(), count: watch::Sender::new(0) });
        let mut manager = Self { port: Port::lease(), log, running: None };
        manager.up();
        manager
    }

    /// `host:port` of the socket, for etcd.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Goes on at a port that was not used before.
    pub(crate) fn move_away(&mut self) {
        self.down();
        self.port = Port::lease();
        self.up();
    }

    /// Binds the socket again after [`Manager::down`].
    pub(crate) fn up(&mut self) {
        let stop = CancellationToken::new();
        let (log, port, stopped) = (self.log.clone(), self.port.number(), stop.clone());
        let (bound, is_bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = Pull::bind(&format!("127.0.0.1:{port}")).expect("bind the event socket");
                bound.send(()).unwrap();
                stopped.run_until_cancelled(collect(socket, log)).await;
            });
        });
        is_bound.recv().expect("the event socket");
        self.running = Some((stop, thread));
    }

    /// Closes the socket and every connection; what was received stays.
    pub(crate) fn down(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.cancel();
            thread.join().unwrap();
        }
    }

    /// Everything received so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.log.events.lock().unwrap().clone()
    }

    /// The events of one name that `fits` holds for.
    pub(crate) fn all(&self, name: &str, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.name == name && fits(event)).collect()
    }

    /// Waits until `count` events of this name fit, however early they came, and gives all of them.
    pub(crate) async fn wait(
        &self,
        name: &str,
        count: usize,
        fits: impl Fn(&Event) -> bool,
        limit: Duration,
    ) -> Vec<Event> {
        let mut changes = self.log.count.subscribe();
        let found = tokio::time::timeout(limit, async {
            loop {
                changes.borrow_and_update();
                let found = self.all(name, &fits);
                if found.len() >= count {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        });
        found.await.unwrap_or_else(|_| {
            panic!("no {count} events {name} that fit within {limit:?}; there were:{}", self.story())
        })
    }

    /// What arrived, heartbeats only counted.
    fn story(&self) -> String {
        let mut text = String::new();
        let mut beats = 0;
        for event in self.events() {
            if event.name == "instance_heartbeat" {
                beats += 1;
            } else {
                let _ = write!(text, "\n  {} {}", event.name, event.args);
            }
        }
        text + &format!("\n  and {beats} heartbeats")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.down();
    }
}

async fn collect(mut socket: Pull, log: Arc<Log>) {
    loop {
        let frames = socket.recv().await.frames;
        let at = SystemTime::now();
        // The manager's own receiver takes three frames apart and dies of any other number.
        assert_eq!(frames.len(), 3, "an event has three frames: {frames:?}");
        let raw = unpack(&frames[2]);
        let text = |i: usize| String::from_utf8(frames[i].to_vec()).expect("UTF-8");
        let event = Event { name: text(0), instance: text(1), args: to_json(&raw), raw, at };
        log.events.lock().unwrap().push(event);
        log.count.send_modify(|count| *count += 1);
    }
}

/// `images` of a heartbeat: name and id of each.
pub(crate) fn images_told(info: &Value) -> Vec<(String, String)> {
    let map = info.as_map().unwrap();
    let packed = map.iter().find(|(key, _)| key.as_str() == Some("images")).map(|(_, value)| value);
    let Some(Value::Binary(packed)) = packed else { panic!("images must be bytes: {packed:?}") };
    let raw = snap::raw::Decoder::new().decompress_vec(packed).expect("snappy, the raw format");
    let list = to_json(&unpack(&raw));
    let pair = |pair: &Json| {
        assert_eq!(pair.as_array().map(Vec::len), Some(2), "[name, id]: {pair}");
        (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned())
    };
    list.as_array().unwrap().iter().map(pair).collect()
}
