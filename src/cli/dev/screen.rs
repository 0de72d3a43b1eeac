//! What `dev` tells of its agent: where everything is, what to type next, events and statistics. Pure but for the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::super::events::as_text;
use crate::address::{HostPort, called_at};
use crate::agent::config::Config;
use crate::dev::Stored;
use crate::ids::KernelId;
use crate::wire::event::HeardEvent;
use crate::wire::event::image_names;

/// Statistics come every 5 s; so often they are shown.
const STATISTICS_EVERY: Duration = Duration::from_secs(30);

/// What has been heard, and what to tell of it.
pub(super) struct Screen {
    /// How this program is called.
    program: String,
    agent: String,
    etcd: SocketAddr,
    redis: SocketAddr,
    /// Where a browser on this machine finds the agent's page; `None` where the system chose the port.
    page: Option<SocketAddr>,
    /// Its local socket, for the commands that look at it; `None` where it has none.
    socket: Option<PathBuf>,
    root: PathBuf,
    ends_kernels: bool,
    /// The newest list of kernel images, once there was one.
    images: Option<Vec<String>>,
    /// Whether the agent has said that it serves.
    serves: bool,
    /// Kernels that began and have not ended.
    kernels: BTreeSet<String>,
    /// Kernels that ended.
    ended: usize,
    /// When each kernel's statistics were shown last.
    shown: BTreeMap<String, Instant>,
}

impl Screen {
    pub(super) fn new(config: &Config, etcd: SocketAddr, redis: SocketAddr, program: String) -> Self {
        Self {
            program,
            agent: HostPort { host: called_at(config.rpc_listen).to_string(), port: config.agent_port }
                .endpoint(),
            etcd,
            redis,
            page: config
                .metrics_addr
                .map(|addr| SocketAddr::new(called_at(addr.ip()), addr.port()))
                .filter(|addr| addr.port() != 0),
            socket: config
                .identity
                .instance_id_override
                .as_ref()
                .and_then(|instance| config.socket.path(&config.cluster.namespace, instance)),
            root: config.scratch_root.clone(),
            ends_kernels: config.stop_kernels_on_exit,
            images: None,
            serves: false,
            kernels: BTreeSet::new(),
            ended: 0,
            shown: BTreeMap::new(),
        }
    }

    /// An event came.
    pub(super) fn heard(&mut self, event: &HeardEvent) -> Option<String> {
        if event.name == "instance_heartbeat" {
            return self.beat(event);
        }
        let kernel = event.args.first().and_then(|id| id.as_str()).map(str::to_owned);
        match (event.name.as_str(), kernel) {
            ("instance_started", _) => {
                self.serves = true;
                return Some(format!("event       {}\n\n{}", as_text(event), self.welcome()));
            }
            ("kernel_creating", Some(kernel)) => drop(self.kernels.insert(kernel)),
            ("kernel_terminated", Some(kernel)) => {
                self.shown.remove(&kernel);
                self.ended += usize::from(self.kernels.remove(&kernel));
            }
            _ => {}
        }
        Some(format!("event       {}", as_text(event)))
    }

    /// Heartbeats are not shown; what is new in one is.
    fn beat(&mut self, event: &HeardEvent) -> Option<String> {
        let images = event.args.first().and_then(image_names)?;
        let is_new = self.images.as_ref() != Some(&images);
        self.images = Some(images);
        (is_new && self.serves).then(|| format!("\n{}", self.welcome()))
    }

    /// Statistics were stored.
    pub(super) fn stored(&mut self, stored: &Stored) -> Option<String> {
        let now = Instant::now();
        let is_due = self.shown.get(&stored.key).is_none_or(|at| now.duration_since(*at) >= STATISTICS_EVERY);
        if !is_due {
            return None;
        }
        self.shown.insert(stored.key.clone(), now);
        let number =
            |name: &str| stored.fields.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let mib = |name: &str| number(name) / f64::from(1 << 20);
        if stored.fields.contains_key("cpu_pct") {
            return Some(format!(
                "statistics  {} all kernels: cpu {:.0} %, memory {:.1} MiB",
                stored.key,
                number("cpu_pct"),
                mib("mem_cur_bytes"),
            ));
        }
        Some(format!(
            "statistics  {} cpu {:.1} s, memory {:.1} MiB, network {:.1} MiB, files {:.1} MiB",
            stored.key,
            number("cpu_used") / 1000.0,
            mib("mem_cur_bytes"),
            mib("net_rx_bytes") + mib("net_tx_bytes"),
            mib("io_cur_scratch_size"),
        ))
    }

    /// Where everything is, and what to type next.
    fn welcome(&self) -> String {
        let Self { agent, etcd, redis, .. } = self;
        let program = quoted(&self.program);
        let images = self.images.as_deref().unwrap_or_default();
        let root = self.root.display();
        let page =
            self.page.map(|page| format!("Its page is http://{page}/ for a browser.\n")).unwrap_or_default();
        let head = format!(
            "The agent serves at {agent}; kernels' files are in {root}.\n{page}\
             Its etcd is at {etcd} and its Redis at {redis}, for etcdctl and redis-cli.\n"
        );
        let python = images.iter().find(|name| name.starts_with("python"));
        let Some(image) = python.or_else(|| images.first()) else {
            return format!(
                "{head}\n\
                 There is no kernel image on this machine: a Docker image with the name lablup/kernel-NAME:TAG.\n\
                 Get one in another terminal, and the agent finds it within seconds:\n\n    \
                 docker pull lablup/kernel-python:3.6-debian\n"
            );
        };
        let kernel = KernelId::random();
        let code = if python.is_some() { "'print(6 * 7)'" } else { "CODE" };
        // Another agent of this machine may have a socket, too.
        let (socket, look) = match &self.socket {
            Some(path) => (
                format!(" BACKENDAI_AGENT_SOCKET={}", quoted(&path.to_string_lossy())),
                format!("{program} ps        # or status, top, events\n    "),
            ),
            None => (String::new(), String::new()),
        };
        format!(
            "{head}Kernel images here: {}\n\n\
             In another terminal:\n\n    \
             export BACKENDAI_AGENT={agent}{socket}\n    \
             {program} create --lang {image} --kernel-id {kernel}\n    \
             {program} exec {kernel} {code}\n    \
             {look}\
             {program} destroy {kernel}\n\n\
             Events and statistics are shown here. {}\n",
            images.join(", "),
            if self.ends_kernels {
                "Ctrl-C ends the agent and its kernels."
            } else {
                "Ctrl-C ends the agent."
            },
        )
    }

    /// The last words.
    pub(super) fn farewell(&self) -> String {
        let ended = match self.ended {
            0 => "no kernel was made".to_owned(),
            1 => "one kernel was made and ended".to_owned(),
            n => format!("{n} kernels were made and ended"),
        };
        if self.kernels.is_empty() {
            return format!("The agent has stopped; {ended}.");
        }
        let left: Vec<_> = self.kernels.iter().map(String::as_str).collect();
        let left = left.join(", ");
        format!("The agent has stopped; {ended}, and these run on until the next dev takes them back: {left}")
    }
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;
    use crate::wire::event::pack_images;
    use crate::wire::{Value, value};

    fn screen() -> Screen {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Screen {
            program: "./agent".to_owned(),
            agent: "tcp://127.0.0.1:6021".to_owned(),
            etcd: at(1),
            redis: at(2),
            page: Some(at(3)),
            socket: Some("/run/my dev.sock".into()),
            root: "/root/dev".into(),
            ends_kernels: true,
            images: None,
            serves: false,
            kernels: BTreeSet::new(),
            ended: 0,
            shown: BTreeMap::new(),
        }
    }

    fn event(name: &str, args: Vec<Value>) -> HeardEvent {
        HeardEvent { name: name.to_owned(), instance: InstanceId::new("i-dev".to_owned()), args }
    }

    fn beat(images: &[&str]) -> HeardEvent {
        let packed = pack_images(images.iter().map(|name| (*name, "sha256:1")));
        event("instance_heartbeat", vec![value::map([("images", Value::Binary(packed.to_vec()))])])
    }

    #[test]
    fn it_tells_what_to_type_once_the_agent_serves_and_again_when_images_came() {
        let mut screen = screen();
        assert_eq!(screen.heard(&beat(&[])), None);
        let told = screen.heard(&event("instance_started", vec![])).unwrap();
        assert!(told.contains("docker pull ") && !told.contains("exec"), "{told}");
        assert!(told.contains("http://127.0.0.1:3/ "), "{told}");
        assert_eq!(screen.heard(&beat(&[])), None);
        let told = screen.heard(&beat(&["lua:5", "python:3"])).unwrap();
        assert!(told.contains("    ./agent create --lang python:3 --kernel-id "), "{told}");
        assert!(told.contains("Kernel images here: lua:5, python:3\n"), "{told}");
        let export =
            "export BACKENDAI_AGENT=tcp://127.0.0.1:6021 BACKENDAI_AGENT_SOCKET='/run/my dev.sock'\n";
        assert!(told.contains(export) && told.contains("    ./agent ps "), "{told}");
        assert_eq!(screen.heard(&beat(&["lua:5", "python:3"])), None);
    }

    #[test]
    fn it_counts_the_kernels_that_ended_and_names_those_that_did_not() {
        let mut screen = screen();
        assert!(screen.farewell().contains("no kernel"));
        for id in ["a", "b"] {
            screen.heard(&event("kernel_creating", vec![id.into()]));
        }
        let told = screen.heard(&event("kernel_terminated", vec!["a".into(), "user-requested".into()]));
        assert_eq!(told.unwrap(), "event       kernel_terminated i-dev \"a\" \"user-requested\"");
        let farewell = screen.farewell();
        assert!(
            farewell.contains("one kernel was made and ended") && farewell.ends_with(": b"),
            "{farewell}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn statistics_are_shown_now_and_then() {
        let mut screen = screen();
        let fields = [("cpu_used", "1500.5"), ("mem_cur_bytes", "3145728")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let stored = Stored { key: "k".to_owned(), fields };
        let told = screen.stored(&stored).unwrap();
        assert!(told.starts_with("statistics  k cpu 1.5 s, memory 3.0 MiB,"), "{told}");
        assert_eq!(screen.stored(&stored), None);
        tokio::time::advance(STATISTICS_EVERY).await;
        assert!(screen.stored(&stored).is_some());
        let fields = [("cpu_pct", "41.5"), ("mem_cur_bytes", "3145728")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let told = screen.stored(&Stored { key: "i-dev".to_owned(), fields }).unwrap();
        assert_eq!(told, "statistics  i-dev all kernels: cpu 42 %, memory 3.0 MiB");
    }
}
