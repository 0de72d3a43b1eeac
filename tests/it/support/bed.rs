//! One test's world.
//!
//! Drop order matters: a test's [`Agent`](super::Agent) is declared after its bed and so ends before it; the bed
//! then removes containers, stops the services and deletes its directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tempfile::TempDir;

use super::manager::{Event, Manager};
use super::ports::Port;
use super::process::Process;
use super::services::Service;
use super::{Agent, Rpc, docker, new_id, secs};

/// Services, a fake manager, directories and ids that no other test shares.
pub(crate) struct Bed {
    pub(crate) etcd: Service,
    pub(crate) redis: Service,
    pub(crate) manager: Manager,
    pub(crate) namespace: String,
    /// The agent's instance id.
    pub(crate) instance: String,
    /// The agent's program, and words that come before its arguments.
    pub(crate) program: String,
    agent_port: Port,
    /// Holds everything on disk; removed last.
    dir: TempDir,
}

impl Bed {
    /// A bed whose manager is up: its keys are in etcd.
    pub(crate) async fn start() -> Self {
        let bed = Self::without_manager().await;
        bed.publish(&["nodes/redis", "nodes/manager/event_addr", "nodes/manager"]).await;
        bed
    }

    /// A bed whose manager has not written its keys yet; see [`Bed::publish`].
    pub(crate) async fn without_manager() -> Self {
        let dir = tempfile::Builder::new().prefix("backendai-it-").tempdir().unwrap();
        for part in ["scratch", "folders"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let unique = &new_id()[..8];
        let bed = Self {
            etcd: Service::etcd(dir.path()),
            redis: Service::redis(dir.path()),
            manager: Manager::start(),
            namespace: format!("it-{unique}"),
            instance: format!("i-it-{unique}"),
            program: std::env::var("BACKENDAI_TEST_AGENT_CMD")
                .unwrap_or_else(|_| env!("CARGO_BIN_EXE_backendai-agent").to_owned()),
            agent_port: Port::lease(),
            dir,
        };
        bed.etcd.ready().await;
        bed.redis.ready().await;
        bed.etcd.etcdctl(&["put", &bed.key("volumes/_mount"), &bed.folders().display().to_string()]).await;
        bed
    }

    /// Writes manager keys, in this order, with the values they should have.
    pub(crate) async fn publish(&self, keys: &[&str]) {
        for &key in keys {
            let value = match key {
                "nodes/redis" => format!("127.0.0.1:{}", self.redis.port()),
                "nodes/manager/event_addr" => self.manager.address(),
                "nodes/manager" => "i-the-manager".to_owned(),
                _ => panic!("the manager does not write {key}"),
            };
            self.etcd.etcdctl(&["put", &self.key(key), &value]).await;
        }
    }

    /// A key as etcd knows it.
    pub(crate) fn key(&self, key: &str) -> String {
        format!("/sorna/{}/{key}", self.namespace)
    }

    /// The key of the agent's presence.
    pub(crate) fn presence_key(&self) -> String {
        self.key(&format!("nodes/agents/{}", self.instance))
    }

    /// Keys and values below `nodes/agents`, as lines.
    pub(crate) async fn presence(&self) -> Vec<String> {
        let all = self.etcd.etcdctl(&["get", "--prefix", &self.key("nodes/agents")]).await;
        all.lines().map(str::to_owned).collect()
    }

    /// The root of the scratch directories.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }

    /// The files of a kernel's user: its `/home/work`.
    pub(crate) fn home(&self, kernel: &str) -> PathBuf {
        self.scratch().join(kernel).join("work")
    }

    /// What `volumes/_mount` names.
    pub(crate) fn folders(&self) -> PathBuf {
        self.dir.path().join("folders")
    }

    /// A directory for whatever a test wants outside the other two.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// Names of the kernels' directories below the scratch root; the agent's own are hidden.
    pub(crate) fn scratch_dirs(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.scratch()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// The RPC port that this bed's agent gets.
    pub(crate) fn rpc(&self) -> Rpc {
        Rpc::at(self.agent_port.number())
    }

    /// Starts an agent and waits until it says that it serves.
    pub(crate) async fn agent(&self, args: &[&str]) -> Agent {
        let before = self.manager.all("instance_started", |_| true).len();
        let agent = self.spawn_agent(args);
        self.manager.wait("instance_started", before + 1, |_| true, secs(10)).await;
        agent
    }

    /// Starts an agent and does not wait for anything. What `args` set is not set by the bed.
    pub(crate) fn spawn_agent(&self, args: &[&str]) -> Agent {
        self.spawn_agent_in(&[], args)
    }

    /// The same with these environment variables.
    pub(crate) fn spawn_agent_in(&self, env: &[(&str, &str)], args: &[&str]) -> Agent {
        self.spawn(env, &self.arguments(args))
    }

    /// `args`, and the bed's own settings where they are not among them.
    fn arguments(&self, args: &[&str]) -> Vec<String> {
        let own = [
            ("--namespace", self.namespace.clone()),
            ("--instance-id", self.instance.clone()),
            // A name and not an address: clients that try ::1 only would fail here.
            ("--etcd-addr", format!("localhost:{}", self.etcd.port())),
            ("--agent-port", self.agent_port.number().to_string()),
            ("--scratch-root", self.scratch().display().to_string()),
            ("--agent-host-override", "127.0.0.1".to_owned()),
            ("--kernel-host-override", "127.0.0.1".to_owned()),
            ("--socket", self.outside().join("agent.sock").display().to_string()),
        ];
        let own = own.into_iter().filter(|(flag, _)| !args.contains(flag));
        let mut all: Vec<String> = own.flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all
    }

    /// Starts an agent with these arguments only.
    pub(crate) fn spawn_agent_as(&self, args: &[String]) -> Agent {
        self.spawn(&[], args)
    }

    /// Starts an agent through a program that takes its command line, such as setpriv, and waits until it serves. The
    /// program may become any user.
    pub(crate) async fn agent_through(&self, program: &[String], args: &[&str]) -> Agent {
        let before = self.manager.all("instance_started", |_| true).len();
        // Checkouts often lie where only their owner gets in.
        let copy = self.dir.path().join(format!("agent-{}", new_id()));
        let binary = env!("CARGO_BIN_EXE_backendai-agent");
        if std::fs::hard_link(binary, &copy).is_err() {
            std::fs::copy(binary, &copy).unwrap();
        }
        let mut command = program.to_vec();
        command.push(copy.display().to_string());
        command.extend(self.arguments(args));
        let agent = self.spawn_command(&[], &command);
        self.manager.wait("instance_started", before + 1, |_| true, secs(10)).await;
        agent
    }

    fn spawn(&self, env: &[(&str, &str)], args: &[String]) -> Agent {
        let command: Vec<String> =
            self.program.split_whitespace().map(str::to_owned).chain(args.iter().cloned()).collect();
        self.spawn_command(env, &command)
    }

    fn spawn_command(&self, env: &[(&str, &str)], command: &[String]) -> Agent {
        let log = self.dir.path().join(format!("agent-{}.log", new_id()));
        // Docker has addresses for some 30 networks, and any number of tests may run; those about the agent's own ask for it.
        let env = [&[("BACKEND_KERNEL_NETWORK", "bridge")], env].concat();
        Agent::new(Process::spawn("the agent", command, &env, &log).talkative(), self.rpc())
    }

    /// Waits for an event, however early it came.
    pub(crate) async fn wait_event(
        &self,
        name: &str,
        fits: impl Fn(&Event) -> bool,
        limit: Duration,
    ) -> Event {
        self.manager.wait(name, 1, fits, limit).await.remove(0)
    }

    /// Waits for the one `kernel_terminated` of a kernel.
    pub(crate) async fn wait_end(&self, kernel: &str, limit: Duration) -> Event {
        self.wait_event("kernel_terminated", |event| event.args[0] == kernel, limit).await
    }

    /// Waits for a heartbeat with slots or without, newer than `since`.
    pub(crate) async fn slots(&self, some: bool, since: SystemTime, limit: Duration) {
        let fits = |beat: &Event| {
            let info = &beat.args[0];
            beat.at > since && ["cpu_slots", "mem_slots"].iter().all(|key| (info[key] != 0) == some)
        };
        self.wait_event("instance_heartbeat", fits, limit).await;
    }

    /// All `kernel_terminated` of a kernel that came, or were under way when this was called.
    ///
    /// Events for the manager keep their order, so one that was caused now comes after all of them: the end of a
    /// kernel that nobody knows.
    pub(crate) async fn ends(&self, agent: &Agent, kernel: &str) -> Vec<Event> {
        let marker = new_id();
        agent.call("destroy_kernel", json!([marker])).await.expect("destroy an unknown kernel");
        self.wait_end(&marker, secs(5)).await;
        self.manager.all("kernel_terminated", |event| event.args[0] == kernel)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        docker::remove_leftovers(&self.namespace, &self.instance, &self.scratch());
    }
}
