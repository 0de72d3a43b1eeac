//! A private etcd and a private Redis on loopback, each of which can be killed, frozen and started again with or
//! without its data.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::ports::Port;
use super::process::Process;
use super::{secs, until};

const LOOPBACK: &str = "127.0.0.1";

/// Which program, and so how to start it and how to ask whether it is ready.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Etcd,
    Redis,
}

/// A server process with a directory and ports of its own.
pub(crate) struct Service {
    kind: Kind,
    /// The loopback address that it listens at.
    host: &'static str,
    /// Where clients connect.
    port: Port,
    /// etcd listens for peers even when it is alone.
    peer_port: Port,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Service {
    /// An etcd; not ready yet, see [`Service::ready`].
    pub(crate) fn etcd(dir: &Path) -> Self {
        let mut service = Self::etcd_at(LOOPBACK, dir);
        service.start();
        service
    }

    /// An etcd that does not run yet and will listen at `host`, an IPv6 address without brackets.
    pub(crate) fn etcd_at(host: &'static str, dir: &Path) -> Self {
        Self::prepare(Kind::Etcd, host, dir.join("etcd"))
    }

    /// A Redis; not ready yet, see [`Service::ready`].
    pub(crate) fn redis(dir: &Path) -> Self {
        let mut service = Self::prepare(Kind::Redis, LOOPBACK, dir.join("redis"));
        service.start();
        service
    }

    fn prepare(kind: Kind, host: &'static str, data: PathBuf) -> Self {
        let log = data.with_extension("log");
        Self { kind, host, port: Port::lease(), peer_port: Port::lease(), data, log, process: None }
    }

    /// The port for clients.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Starts it, over the data that are there.
    pub(crate) fn start(&mut self) {
        std::fs::create_dir_all(&self.data).unwrap();
        let (host, port, dir) = (self.host, self.port(), self.data.display());
        let line = match self.kind {
            Kind::Etcd => {
                let client = self.url();
                let peer = format!("http://127.0.0.1:{}", self.peer_port.number());
                // Short election times: the only member need not wait a second for itself.
                format!(
                    "etcd --name it --data-dir {dir} --listen-client-urls {client} --advertise-client-urls {client} \
                     --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster it={peer} \
                     --heartbeat-interval 20 --election-timeout 200 --log-level warn"
                )
            }
            Kind::Redis => format!(
                "redis-server --bind {host} --port {port} --dir {dir} --appendonly yes --appendfsync always"
            ),
        };
        // Redis takes an empty value here to mean "no snapshots"; it can't be written in a split line.
        let no_snapshots = (self.kind == Kind::Redis).then(|| ["--save".to_owned(), String::new()]);
        let command: Vec<String> =
            line.split_whitespace().map(str::to_owned).chain(no_snapshots.into_iter().flatten()).collect();
        self.process = Some(Process::spawn(&command[0], &command, &[], &self.log));
    }

    /// Where clients connect, as an address on the web.
    pub(crate) fn url(&self) -> String {
        let (host, port) = (self.host, self.port());
        if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") }
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&self) {
        let (request, sign): (&[u8], &str) = match self.kind {
            Kind::Etcd => (b"GET /health HTTP/1.0\r\n\r\n", "\"true\""),
            Kind::Redis => (b"PING\r\nQUIT\r\n", "+PONG"),
        };
        let what = format!("a healthy server at port {}", self.port());
        until(&what, secs(10), async || self.ask(request).await.ok().filter(|answer| answer.contains(sign)))
            .await;
    }

    async fn ask(&self, request: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((self.host, self.port())).await?;
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Kills it at once; its data stay.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Throws its data away; only while it is down.
    pub(crate) fn lose_data(&mut self) {
        assert!(self.process.is_none(), "kill the service first");
        std::fs::remove_dir_all(&self.data).unwrap();
    }

    /// Starts it again and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.start();
        self.ready().await;
    }

    /// Freezes it: connections stay open and nothing answers.
    pub(crate) async fn pause(&self) {
        self.running().pause().await;
    }

    /// Ends [`Service::pause`].
    pub(crate) fn resume(&self) {
        self.running().resume();
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the service runs")
    }
}

/// What etcd holds, through `etcdctl`.
impl Service {
    /// Runs etcdctl against this etcd and gives its output.
    pub(crate) async fn etcdctl(&self, args: &[&str]) -> String {
        let endpoint = format!("127.0.0.1:{}", self.port());
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(args);
        output(command).await
    }

    /// Everything that ever happened below `prefix`, as lines: `PUT`, key, value, or `DELETE`, key, empty line.
    /// The watch starts at the first revision, so it does not matter when it is started.
    pub(crate) fn history(&self, prefix: &str) -> History {
        let endpoint = format!("127.0.0.1:{}", self.port());
        let command = ["etcdctl", "--endpoints", &endpoint, "watch", "--rev=1", "--prefix", prefix];
        let log = self.log.with_file_name(format!("watch-{}.log", super::new_id()));
        let process =
            Process::spawn("etcdctl watch", &command.map(str::to_owned), &[("ETCDCTL_API", "3")], &log);
        History { process }
    }
}

/// A running `etcdctl watch`.
pub(crate) struct History {
    process: Process,
}

impl History {
    /// Waits until `count` changes are known; gives all, each as (`PUT` or `DELETE`, key, value).
    pub(crate) async fn changes(&self, count: usize) -> Vec<(String, String, String)> {
        until("changes in etcd", secs(5), async || {
            let output = self.process.output();
            let lines: Vec<&str> = output.lines().collect();
            let change = |c: &[&str]| (c[0].to_owned(), c[1].to_owned(), c[2].to_owned());
            let changes: Vec<_> = lines.chunks_exact(3).map(change).collect();
            (changes.len() >= count).then_some(changes)
        })
        .await
    }
}

/// What Redis holds, through `redis-cli`.
impl Service {
    /// Runs one Redis command and gives its output lines.
    pub(crate) async fn redis_cli(&self, args: &[&str]) -> Vec<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port().to_string()]).args(args);
        output(command).await.lines().map(str::to_owned).collect()
    }

    /// Starts writing down every command that Redis gets, with the time.
    pub(crate) async fn commands(&self) -> Commands {
        let port = self.port().to_string();
        let log = self.log.with_file_name(format!("monitor-{}.log", super::new_id()));
        let command = ["redis-cli", "-p", &port, "monitor"].map(str::to_owned);
        let commands = Commands { process: Process::spawn("redis-cli monitor", &command, &[], &log) };
        until("the Redis monitor", secs(5), async || {
            commands.process.output().starts_with("OK").then_some(())
        })
        .await;
        commands
    }
}

/// A running `redis-cli monitor`.
pub(crate) struct Commands {
    process: Process,
}

impl Commands {
    /// Waits until a command holding all of `parts` was seen; gives, for each, the seconds since the epoch.
    pub(crate) async fn holding(&self, parts: &[&str]) -> Vec<f64> {
        until(&format!("a Redis command with {parts:?}"), secs(5), async || {
            let output = self.process.output();
            let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
            let time = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
            let times: Vec<f64> = output.lines().filter(fits).map(time).collect();
            (!times.is_empty()).then_some(times)
        })
        .await
    }
}

/// Runs a command to its end; panics with its words when it fails.
pub(crate) async fn output(mut command: Command) -> String {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(secs(15), ended).await.unwrap_or_else(|_| panic!("{command:?} hangs"));
    let ended = ended.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(ended.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}
