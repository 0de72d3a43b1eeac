//! The bed, the agent, and what the model believes of every kernel that was ever asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::runs::Going;
use super::{Part, Request};
use crate::support::docker::image;
use crate::support::dockerd::Dockerd;
use crate::support::msgpack::from_json;
use crate::support::ports::Port;
use crate::support::vitals::gauges;
use crate::support::{Agent, Bed, Kernel, RemoteError, kernel, new_id, secs, until};

/// How long a call may take: many kernels on a busy machine, and lateness is not what this is about.
const PATIENCE: Duration = secs(60);
/// The most kernels at a time.
const MOST: usize = 6;
/// Descriptors that the agent may have open at the end beyond those of its start: connections that idle.
const SPARE_DESCRIPTORS: usize = 10;
/// Tasks that it may have beyond those of its start, for the same reason.
const SPARE_TASKS: f64 = 6.0;

/// A kernel that runs, as far as the model knows.
struct Alive {
    id: String,
    container: String,
}

pub(super) struct World {
    // First, so that the agent ends before its engine, and that before its bed.
    agent: Agent,
    engine: Dockerd,
    bed: Bed,
    /// Where the agent tells its figures.
    metrics: Port,
    /// Code runs in it through everything: nothing that happens to the agent may be felt there.
    session: Kernel,
    /// How often it has counted.
    counted: u64,
    /// A run of it that goes on.
    going: Option<Going>,
    /// They run, and no end of theirs may have been told.
    alive: Vec<Alive>,
    /// Every id that the agent was ever asked for.
    all: BTreeSet<String>,
    /// A crash came while their end was being told. It is not told again unless the manager asks, and a manager that
    /// heard it does not ask.
    raced: BTreeSet<String>,
    etcd_paused: bool,
    redis_killed: bool,
    manager_down: bool,
    /// How often dockerd was killed in the middle of something; it may have left things of its own behind.
    docker_killed_amid: usize,
    /// Open descriptors of an agent without kernels.
    descriptors: usize,
    /// Tasks of an agent without kernels.
    tasks: f64,
    /// The cores of a first kernel on an idle agent.
    cores: Json,
}

fn config() -> Json {
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config
}

async fn start(bed: &Bed, engine: &Dockerd, metrics: &Port) -> Agent {
    let (docker, metrics) = (engine.host(), format!("127.0.0.1:{}", metrics.number()));
    let places = ["--docker-host", &docker, "--metrics-addr", &metrics];
    let pace = ["--create-deadline", "50", "--reconcile-interval", "2", "--stats-interval", "1"];
    bed.agent(&[&places[..], &pace].concat()).await
}

impl World {
    pub(super) async fn new() -> Self {
        let bed = Bed::start().await;
        let engine = Dockerd::with_usual_images(bed.outside(), true, true).await;
        let metrics = Port::lease();
        let agent = start(&bed, &engine, &metrics).await;
        let first = agent.create_tiny().await;
        first.destroy().await;
        let cores = first.created["cpu_set"].clone();
        // Of a moment in which nothing goes on.
        let idle = until("an idle agent", secs(15), async || {
            gauges(metrics.number()).await.filter(|gauge| gauge("kernels") == 0.0 && gauge("tasks") > 0.0)
        });
        let tasks = idle.await("tasks");
        let descriptors = agent.open_files();
        let session = agent.create_python().await.warm().await;
        session.run("n = 0").await;
        let all = BTreeSet::from([first.id, session.id.clone()]);
        let (alive, raced) = (Vec::new(), BTreeSet::new());
        let (etcd_paused, redis_killed, manager_down) = (false, false, false);
        Self {
            agent,
            engine,
            bed,
            metrics,
            session,
            counted: 0,
            going: None,
            alive,
            all,
            raced,
            etcd_paused,
            redis_killed,
            manager_down,
            docker_killed_amid: 0,
            descriptors,
            tasks,
            cores,
        }
    }

    pub(super) fn summary(&self) -> String {
        let away = [
            (self.etcd_paused, " no etcd"),
            (self.redis_killed, " no Redis"),
            (self.manager_down, " no manager"),
        ];
        let away: String = away.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        format!("{} kernels{away}", self.alive.len())
    }

    async fn call(&self, method: &str, args: Json) -> Result<Json, RemoteError> {
        self.agent.rpc().call(method, args, PATIENCE).await
    }

    fn take(&mut self, target: usize) -> Option<Alive> {
        (!self.alive.is_empty()).then(|| self.alive.swap_remove(target % self.alive.len()))
    }

    pub(super) async fn create(&mut self) {
        if self.alive.len() >= MOST {
            return;
        }
        let id = new_id();
        self.all.insert(id.clone());
        let created = self.call("create_kernel", json!([id, config()])).await.expect("create_kernel");
        self.alive.push(Alive { container: created["container_id"].as_str().unwrap().to_owned(), id });
    }

    /// One more run of the session; what it knows shows that none was lost, and none was done twice.
    pub(super) async fn execute(&mut self) {
        self.finish().await;
        self.counted += 1;
        let run = self.session.run("n += 1\nprint(n)").await;
        assert_eq!(run.stdout(), format!("{}\n", self.counted));
    }

    /// A run of so many words, which is not followed to its end.
    pub(super) async fn begin(&mut self, words: usize) {
        self.finish().await;
        let mut going = Going::new(words);
        let answer = self.call("execute", going.begin(&self.session)).await;
        if going.take(&answer.expect("execute")) {
            going.has_ended_once(&self.session).await;
        } else {
            self.going = Some(going);
        }
    }

    /// What came of it since.
    pub(super) async fn follow(&mut self) {
        let Some(mut going) = self.going.take() else { return };
        if going.follow(&self.session).await {
            going.has_ended_once(&self.session).await;
        } else {
            self.going = Some(going);
        }
    }

    async fn finish(&mut self) {
        let begun = std::time::Instant::now();
        while self.going.is_some() {
            assert!(begun.elapsed() < secs(90), "the run has no end");
            self.follow().await;
        }
    }

    pub(super) async fn kill_agent_amid_run(&mut self, words: usize, millis: u64) {
        self.finish().await;
        let mut going = Going::new(words);
        let mut line = self.agent.rpc().connect().await;
        line.request("execute", &from_json(&going.begin(&self.session)), &from_json(&json!({}))).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.agent.kill9();
        going.killed(true);
        self.going = Some(going);
        self.note_races();
        self.new_agent().await;
    }

    pub(super) async fn create_and_destroy(&mut self, millis: u64) {
        let id = new_id();
        self.all.insert(id.clone());
        let created = self.call("create_kernel", json!([id, config()]));
        let destroyed = async {
            // A destroy before the create would be about another kernel of the same id.
            let note = self.bed.scratch().join(".agent/kernels").join(format!("{id}.json"));
            until("the kernel's note", secs(9), async || note.exists().then_some(())).await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            self.call("destroy_kernel", json!([id])).await
        };
        // The create works or not, depending on who was first.
        let (_, destroyed) = tokio::join!(created, destroyed);
        destroyed.expect("destroy_kernel");
    }

    pub(super) async fn destroy(&mut self, target: usize) {
        let Some(doomed) = self.take(target) else { return };
        self.call("destroy_kernel", json!([doomed.id])).await.expect("destroy_kernel");
    }

    pub(super) async fn restart(&mut self, target: usize) {
        let Some(mut kernel) = self.take(target) else { return };
        let answer = self.call("restart_kernel", json!([kernel.id, {}])).await.expect("restart_kernel");
        answer["container_id"].as_str().unwrap().clone_into(&mut kernel.container);
        self.alive.push(kernel);
    }

    pub(super) async fn restart_and_destroy(&mut self, target: usize) {
        let Some(kernel) = self.take(target) else { return };
        let restarted = self.call("restart_kernel", json!([kernel.id, {}]));
        let destroyed = self.call("destroy_kernel", json!([kernel.id]));
        // Whoever comes first; the destroy always works.
        let (_, destroyed) = tokio::join!(restarted, destroyed);
        destroyed.expect("destroy_kernel");
    }

    pub(super) async fn end_container(&mut self, target: usize, command: &[&str]) {
        let Some(kernel) = self.take(target) else { return };
        self.engine.docker(&[command, &[kernel.container.as_str()]].concat()).await;
    }

    /// Within 5 s, whatever is away.
    pub(super) async fn stop_agent(&mut self) {
        assert!(self.agent.stop().await.success());
        self.new_agent().await;
    }

    pub(super) async fn kill_agent(&mut self) {
        self.agent.kill9();
        if let Some(going) = &mut self.going {
            going.killed(false);
        }
        self.note_races();
        self.new_agent().await;
    }

    /// Ends that were under way when the agent was killed.
    fn note_races(&mut self) {
        for entry in std::fs::read_dir(self.bed.scratch().join(".agent/endings")).unwrap() {
            let path = entry.unwrap().path();
            let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let ending = serde_json::from_slice::<Json>(&std::fs::read(&path).unwrap());
            if ending.is_ok_and(|ending| ending["told_at"].is_null() && !ending["left_at"].is_null()) {
                self.raced.insert(id);
            }
        }
    }

    /// The call's name, the kernel that it is about, and its arguments; a kernel that is taken counts as over.
    fn request(&mut self, request: Request, target: usize) -> Option<(&'static str, String, Json)> {
        let (method, id) = match request {
            Request::Create => ("create_kernel", new_id()),
            Request::Destroy => ("destroy_kernel", self.take(target)?.id),
            Request::Restart => ("restart_kernel", self.take(target)?.id),
        };
        self.all.insert(id.clone());
        let args = match request {
            Request::Create => json!([id, config()]),
            Request::Destroy => json!([id]),
            Request::Restart => json!([id, {}]),
        };
        Some((method, id, args))
    }

    pub(super) async fn kill_agent_amid(&mut self, request: Request, target: usize, millis: u64) {
        let Some((method, _, args)) = self.request(request, target) else { return };
        let mut line = self.agent.rpc().connect().await;
        line.request(method, &from_json(&args), &from_json(&json!({}))).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.kill_agent().await;
    }

    pub(super) async fn kill_docker(&mut self) {
        self.engine.kill();
        self.engine.restart().await;
    }

    pub(super) async fn kill_docker_amid(&mut self, request: Request, target: usize, millis: u64) {
        let Some((method, id, args)) = self.request(request, target) else { return };
        self.docker_killed_amid += 1;
        let answer = {
            let Self { agent, engine, .. } = self;
            let outage = async {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                engine.kill();
                engine.restart().await;
            };
            tokio::join!(agent.rpc().call(method, args, PATIENCE), outage).0
        };
        self.believe(request, id, answer);
    }

    pub(super) async fn freeze_docker_amid(&mut self, request: Request, target: usize, millis: u64) {
        let Some((method, id, args)) = self.request(request, target) else { return };
        let outage = async {
            self.engine.pause().await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            self.engine.resume();
        };
        let answer = tokio::join!(self.call(method, args), outage).0;
        self.believe(request, id, answer);
    }

    /// A create or restart that was answered well gives a kernel that lives.
    fn believe(&mut self, request: Request, id: String, answer: Result<Json, RemoteError>) {
        match (request, answer) {
            (Request::Create | Request::Restart, Ok(made)) => {
                self.alive.push(Alive { container: made["container_id"].as_str().unwrap().to_owned(), id });
            }
            (_, answer) => println!("  {request:?} {id}: {answer:?}"),
        }
    }

    /// The manager moves; what was on its way to the old place arrives at the new one.
    pub(super) async fn move_manager(&mut self) {
        if self.manager_down || self.etcd_paused {
            return;
        }
        self.bed.manager.move_away();
        self.bed.publish(&["nodes/manager/event_addr"]).await;
    }

    /// An agent can't start without etcd and the manager.
    async fn new_agent(&mut self) {
        if self.etcd_paused {
            self.toggle(Part::Etcd).await;
        }
        if self.manager_down {
            self.toggle(Part::Manager).await;
        }
        self.agent = start(&self.bed, &self.engine, &self.metrics).await;
    }

    pub(super) async fn pause_agent(&mut self, millis: u64) {
        self.agent.pause().await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.agent.resume();
    }

    pub(super) async fn toggle(&mut self, part: Part) {
        match part {
            Part::Etcd if self.etcd_paused => self.bed.etcd.resume(),
            Part::Etcd => self.bed.etcd.pause().await,
            Part::Redis if self.redis_killed => self.bed.redis.restart().await,
            Part::Redis => self.bed.redis.kill(),
            Part::Manager if self.manager_down => self.bed.manager.up(),
            Part::Manager => self.bed.manager.down(),
        }
        let state = match part {
            Part::Etcd => &mut self.etcd_paused,
            Part::Redis => &mut self.redis_killed,
            Part::Manager => &mut self.manager_down,
        };
        *state = !*state;
    }

    fn ends(&self, id: &str) -> usize {
        self.bed.manager.all("kernel_terminated", |event| event.args[0] == id).len()
    }

    /// Whether the end was told so lately that a destroy may have crossed it.
    fn ended_just_now(&self, id: &str) -> bool {
        let ends = self.bed.manager.all("kernel_terminated", |event| event.args[0] == id);
        ends.last().is_some_and(|end| end.at.elapsed().unwrap_or_default() < secs(50))
    }

    /// Makes sure of the end of every kernel that is not alive, and waits until all were told.
    async fn all_ends_told(&self) {
        let mut alive: Vec<&str> = self.alive.iter().map(|kernel| kernel.id.as_str()).collect();
        alive.push(&self.session.id);
        for id in self.all.iter().filter(|id| !alive.contains(&id.as_str()) && self.ends(id) == 0) {
            self.call("destroy_kernel", json!([id])).await.expect("destroy_kernel");
            self.bed.wait_end(id, secs(10)).await;
        }
    }

    /// Gives everything back, ends everything, and checks that it is over.
    pub(super) async fn settle(mut self) {
        for (is_away, part) in [
            (self.etcd_paused, Part::Etcd),
            (self.redis_killed, Part::Redis),
            (self.manager_down, Part::Manager),
        ] {
            if is_away {
                self.toggle(part).await;
            }
        }
        self.all_ends_told().await;
        self.execute().await;
        let session = Alive { id: self.session.id.clone(), container: self.session.container().to_owned() };
        self.alive.push(session);
        for kernel in std::mem::take(&mut self.alive) {
            assert_eq!(self.ends(&kernel.id), 0, "the end of {} was told while it ran", kernel.id);
            let last = self.call("destroy_kernel", json!([kernel.id])).await.expect("destroy_kernel");
            assert!(last.is_object(), "no statistics of {}", kernel.id);
            let end = self.bed.wait_end(&kernel.id, secs(10)).await;
            assert_eq!(end.args[1], "user-requested");
        }
        // A second destroy soon after an end is not told again.
        for id in self.all.difference(&self.raced).filter(|id| self.ended_just_now(id)) {
            self.call("destroy_kernel", json!([id])).await.expect("destroy_kernel");
        }
        self.nothing_is_left().await;
        self.bed.ends(&self.agent, "").await;
        let counts: Vec<(&String, usize)> = self.all.iter().map(|id| (id, self.ends(id))).collect();
        println!("{} kernels; {} ends were under way at a crash", counts.len(), self.raced.len());
        let wrong: Vec<_> = counts.iter().filter(|(_, n)| *n != 1).collect();
        for (id, _) in &wrong {
            let ends = self.bed.manager.all("kernel_terminated", |event| event.args[0] == id.as_str());
            println!("{id}: {:?}", ends.iter().map(|end| (end.at, end.args[1].clone())).collect::<Vec<_>>());
        }
        assert!(wrong.is_empty(), "not told once: {wrong:?}");
        let last = self.agent.create_tiny().await;
        assert_eq!(last.created["cpu_set"], self.cores, "cores are still taken");
        last.destroy().await;
        self.nothing_is_held().await;
    }

    async fn nothing_is_held(&self) {
        let (agent, most) = (&self.agent, self.descriptors + SPARE_DESCRIPTORS);
        until("the end of open descriptors", secs(10), async || (agent.open_files() <= most).then_some(()))
            .await;
        println!("descriptors: {} at first, {} now", self.descriptors, agent.open_files());
        let zero = ["kernels", "runs", "cpu_shares", "gpus_used", "events_waiting", "endings_waiting"];
        until("an idle agent", secs(15), async || {
            let gauge = gauges(self.metrics.number()).await?;
            let is_idle = zero.iter().all(|name| gauge(name) == 0.0);
            println!("tasks: {} at first, {} now", self.tasks, gauge("tasks"));
            (is_idle && gauge("tasks") <= self.tasks + SPARE_TASKS).then_some(())
        })
        .await;
    }

    /// The engine is this test's own, so nothing means nothing.
    async fn nothing_is_left(&self) {
        for what in [&["ps", "-aq"][..], &["volume", "ls", "-q"]] {
            until(&format!("nothing in docker {what:?}"), secs(20), async || {
                self.engine.docker(what).await.is_empty().then_some(())
            })
            .await;
        }
        if self.docker_killed_amid > 0 {
            // A dockerd that dies in the middle of a container's start or removal forgets the proxies of its ports
            // (20.10 does): they belong to no container, and nobody but it could end them.
            println!("{} ports are published by a dockerd that was killed", self.engine.published_ports());
        } else {
            until("the end of all published ports", secs(10), async || {
                (self.engine.published_ports() == 0).then_some(())
            })
            .await;
        }
        until("the end of all files", secs(10), async || {
            let notes = std::fs::read_dir(self.bed.scratch().join(".agent/kernels")).unwrap().count();
            (notes == 0 && self.bed.scratch_dirs().is_empty()).then_some(())
        })
        .await;
    }
}
