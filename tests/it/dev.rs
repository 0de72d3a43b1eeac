//! `backendai-agent dev`: an agent, and all that it needs, in one process; tried by the commands that it prints.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::elsewhere::Elsewhere;
use crate::support::ports::Port;
use crate::support::process::Process;
use crate::support::{docker, new_id, secs, until};

const AGENT: &str = env!("CARGO_BIN_EXE_backendai-agent");

/// The process, its directory, and what it is called.
pub(crate) struct Dev {
    process: Process,
    instance: String,
    port: Port,
    /// Of its page.
    page: Port,
    home: TempDir,
    /// The ordinary user that it runs as, with Docker's group; root where there is none.
    user: Option<u32>,
}

impl Dev {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_as(None, options)
    }

    fn start_as(user: Option<u32>, options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        if let Some(uid) = user {
            chown(home.path(), Some(uid), Some(uid)).unwrap();
        }
        let (port, page) = (Port::lease(), Port::lease());
        let instance = format!("i-dev-{}", &new_id()[..8]);
        let process = Self::process(&home, &instance, user, &port, &page, options);
        Self { process, instance, port, page, home, user }
    }

    fn process(
        home: &TempDir,
        instance: &str,
        user: Option<u32>,
        port: &Port,
        page: &Port,
        options: &[&str],
    ) -> Process {
        let (port, page) = (port.number().to_string(), format!("127.0.0.1:{}", page.number()));
        let own = [AGENT, "dev", "--instance-id", instance];
        let places = ["--agent-port", &port, "--metrics-addr", &page];
        let own = own.iter().chain(&places).chain(options).map(|&word| word.to_owned());
        let command: Vec<String> = user.map(becomes).unwrap_or_default().into_iter().chain(own).collect();
        // A variable of a real agent on the same machine changes nothing.
        let home_path = home.path().to_str().unwrap();
        let env = [("HOME", home_path), ("BACKEND_NAMESPACE", "real"), ("XDG_RUNTIME_DIR", "/run/user/0")];
        Process::spawn("dev", &command, &env, &home.path().join("log")).talkative()
    }

    /// Runs what the same user would type; gives what it printed.
    async fn typed(&self, command: &str, before: &str) -> String {
        let line = format!("{before}\n{command}");
        let words = self.user.map(becomes).unwrap_or_default().into_iter();
        let words: Vec<String> = words.chain(["sh", "-c", &line].map(str::to_owned)).collect();
        let mut shell = Command::new(&words[0]);
        shell.args(&words[1..]).env("HOME", self.home.path()).env_remove("XDG_RUNTIME_DIR");
        let output = shell.output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{command}: {said}");
        said
    }

    /// Waits until it serves and has told what to type next.
    pub(crate) async fn serves(&self) {
        self.says("Events and statistics are shown here.", secs(5)).await;
    }

    /// Where its agent is called.
    pub(crate) fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port.number())
    }

    /// Waits until it has said this, and gives all that it said.
    async fn says(&self, text: &str, limit: Duration) -> String {
        until(&format!("{text:?}"), limit, async || {
            Some(self.process.output()).filter(|output| output.contains(text))
        })
        .await
    }

    /// The commands to type next, as it printed them.
    fn printed(&self) -> Vec<String> {
        let output = self.process.output();
        let (_, commands) = output.split_once("In another terminal:\n").expect("commands");
        let (commands, _) = commands.split_once("Events and statistics").expect("their end");
        let commands = commands.lines().map(str::trim).filter(|line| !line.is_empty());
        commands.map(str::to_owned).collect()
    }

    /// What stands after `name` and before white space in what it said.
    fn told(&self, name: &str) -> String {
        let output = self.process.output();
        let (_, rest) = output.split_once(name).expect(name);
        rest.split([' ', ',', ';', '\n']).next().unwrap().to_owned()
    }

    fn scratch(&self) -> PathBuf {
        self.home.path().join(".cache/backendai-agent/dev")
    }

    /// Where its page is.
    pub(crate) fn page(&self) -> String {
        format!("127.0.0.1:{}", self.page.number())
    }

    /// Where its etcd is.
    pub(crate) fn etcd(&self) -> String {
        self.told("Its etcd is at ")
    }

    pub(crate) async fn interrupt(&mut self) -> ExitStatus {
        self.process.signal(Signal::INT);
        self.process.wait(secs(10)).await
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.process.kill();
        let label = format!("label=ai.backend.instance-id={}", self.instance);
        let list =
            std::process::Command::new("docker").args(["ps", "-aq", "--filter", &label]).output().unwrap();
        for id in String::from_utf8_lossy(&list.stdout).lines() {
            let _ = std::process::Command::new("docker").args(["rm", "-fv", id]).output();
        }
        docker::remove_network(&docker::own_network("dev", &self.instance));
    }
}

/// What becomes an ordinary user who may ask Docker.
fn becomes(uid: u32) -> Vec<String> {
    let docker = std::fs::metadata("/var/run/docker.sock").unwrap().gid();
    let line = format!("setpriv --pdeathsig KILL --reuid={uid} --regid={uid} --groups={docker} --");
    line.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn the_printed_commands_work_and_show_what_they_do() {
    let begun = Instant::now();
    let mut dev = Dev::start(&[]);
    dev.serves().await;
    eprintln!("served and told after {:?}", begun.elapsed());
    let commands = dev.printed();
    let [export, create, exec, ps, destroy] = &commands[..] else { panic!("{commands:?}") };
    assert!(create.contains(" create --lang python:"), "{create}");
    let kernel = create.rsplit(' ').next().unwrap();

    let page =
        dev.typed(&format!("curl --fail --silent --show-error {}", dev.told("Its page is ")), "").await;
    assert!(page.contains("<title>"), "{page}");

    dev.typed(create, export).await;
    dev.says(&format!("event       kernel_creating {} \"{kernel}\"", dev.instance), secs(5)).await;
    assert!(dev.scratch().join(kernel).is_dir());
    assert_eq!(dev.typed(exec, export).await.lines().next(), Some("42"));
    dev.says(&format!("statistics  {kernel} cpu "), secs(10)).await;

    let listed = dev.typed(ps, export).await;
    assert!(listed.contains(kernel) && listed.contains("idle for "), "{listed}");

    // What is kept can be asked for with the usual tools.
    let keys = dev
        .typed(
            "etcdctl get --prefix /sorna/dev/",
            &format!("export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={}", dev.etcd()),
        )
        .await;
    for key in ["nodes/manager\n", "nodes/manager/event_addr\n", "nodes/redis\n"] {
        assert!(keys.contains(key), "{keys}");
    }
    assert!(keys.contains(&format!("nodes/agents/{}\nrunning", dev.instance)), "{keys}");
    let redis = dev.told("its Redis at ");
    let (_, port) = redis.rsplit_once(':').unwrap();
    let hash = dev.typed(&format!("redis-cli -p {port} hgetall {kernel}"), "").await;
    assert!(hash.contains("cpu_used\n") && hash.contains("io_cur_scratch_size\n"), "{hash}");

    dev.typed(destroy, export).await;
    dev.says(
        &format!("event       kernel_terminated {} \"{kernel}\" \"user-requested\"", dev.instance),
        secs(5),
    )
    .await;
    docker::gone(kernel).await;

    assert!(dev.interrupt().await.success());
    let output = dev.process.output();
    assert!(output.contains("instance_terminated"), "{output}");
    assert!(output.ends_with("The agent has stopped; one kernel was made and ended.\n"), "{output}");
}

#[tokio::test]
async fn it_is_reached_on_this_machine_only() {
    let elsewhere = Elsewhere::new();
    let mut dev = Dev::start(&["--trusted-peers", "0.0.0.0/0"]);
    dev.serves().await;
    let port = dev.port.number();
    let connects = async |ip: IpAddr| TcpStream::connect(SocketAddr::new(ip, port)).await;
    assert!(connects(Ipv4Addr::LOCALHOST.into()).await.is_ok());
    // Another address of this machine is where its neighbours on the network would call.
    let refused = connects(elsewhere.ip()).await.expect_err("it listens for the network");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(dev.interrupt().await.success());
}

#[tokio::test]
async fn it_ends_its_kernels_and_takes_back_those_of_one_that_was_killed() {
    let mut dev = Dev::start(&[]);
    dev.serves().await;
    let commands = dev.printed();
    let kernel = commands[1].rsplit(' ').next().unwrap().to_owned();
    dev.typed(&commands[1], &commands[0]).await;

    dev.process.kill();
    std::fs::remove_file(dev.home.path().join("log")).unwrap();
    dev.process = Dev::process(&dev.home, &dev.instance, dev.user, &dev.port, &dev.page, &[]);
    dev.serves().await;
    assert_eq!(dev.typed(&commands[2], &commands[0]).await.lines().next(), Some("42"));

    assert!(dev.interrupt().await.success());
    docker::gone(&kernel).await;
    let output = dev.process.output();
    assert!(output.contains(&format!("\"{kernel}\" \"agent-termination\"")), "{output}");
}

#[tokio::test]
async fn an_ordinary_user_looks_at_it_without_a_word_about_where() {
    let mut dev = Dev::start_as(Some(12_346), &[]);
    dev.serves().await;
    let said = dev.process.output();
    assert!(!said.contains("no local socket"), "{said}");
    let commands = dev.printed();
    dev.typed(&commands[1], &commands[0]).await;
    let kernel = commands[1].rsplit(' ').next().unwrap();
    let socket = dev.told("BACKENDAI_AGENT_SOCKET=");
    assert!(socket.starts_with(dev.home.path().to_str().unwrap()), "{socket}");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "others reach it");
    for (command, expected) in [
        ("ps", kernel),
        ("status", "undrained"),
        ("events --count 1", "instance_heartbeat"),
        ("top --count 1", kernel),
    ] {
        let said = dev.typed(&format!("{AGENT} {command}"), &commands[0]).await;
        assert!(said.contains(expected), "{command}: {said}");
    }
    // Sockets of root's agents beside it are not this user's to choose from.
    let said = dev.typed(&format!("{AGENT} ps"), "").await;
    assert!(said.contains(kernel), "{said}");
    dev.typed(&format!("{AGENT} logs {kernel}"), "").await;
    assert!(dev.interrupt().await.success());
}
