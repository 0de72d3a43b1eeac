//! The bed, the agent, and what the model believes of every kernel that was ever asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Part, Request};
use crate::support::docker::{self, NAMESPACE_LABEL, image};
use crate::support::msgpack::from_json;
use crate::support::{Agent, Bed, Kernel, kernel, new_id, secs, until};

/// The most kernels at a time.
const MOST: usize = 6;
/// Descriptors that the agent may have open at the end beyond those of its start: connections that idle.
const SPARE_DESCRIPTORS: usize = 10;

/// A kernel that runs, as far as the model knows.
struct Alive {
    id: String,
    container: String,
}

pub(super) struct World {
    // First, so that the agent ends before its bed.
    agent: Agent,
    bed: Bed,
    /// Code runs in it through everything: nothing that happens to the agent may be felt there.
    session: Kernel,
    /// How often it has counted.
    counted: u64,
    /// They run, and no end of theirs may have been told.
    alive: Vec<Alive>,
    /// Every id that the agent was ever asked for.
    all: BTreeSet<String>,
    /// A crash came when their end may have been told but was not noted as told: twice is better than never.
    raced: BTreeSet<String>,
    etcd_paused: bool,
    redis_killed: bool,
    manager_down: bool,
    /// Open descriptors of an agent without kernels.
    descriptors: usize,
    /// The cores of a first kernel on an idle agent.
    cores: Json,
}

fn config() -> Json {
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config
}

async fn start(bed: &Bed) -> Agent {
    // Many kernels on a busy machine: lateness is not what this is about.
    bed.agent(&["--create-deadline", "9", "--reconcile-interval", "2", "--stats-interval", "1"]).await
}

impl World {
    pub(super) async fn new() -> Self {
        let bed = Bed::start().await;
        let agent = start(&bed).await;
        let descriptors = agent.open_files();
        let first = agent.create_tiny().await;
        first.destroy().await;
        let cores = first.created["cpu_set"].clone();
        let session = agent.create_python().await.warm().await;
        session.run("n = 0").await;
        let all = BTreeSet::from([first.id, session.id.clone()]);
        let (alive, raced) = (Vec::new(), BTreeSet::new());
        let (etcd_paused, redis_killed, manager_down) = (false, false, false);
        Self {
            agent,
            bed,
            session,
            counted: 0,
            alive,
            all,
            raced,
            etcd_paused,
            redis_killed,
            manager_down,
            descriptors,
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

    fn take(&mut self, target: usize) -> Option<Alive> {
        (!self.alive.is_empty()).then(|| self.alive.swap_remove(target % self.alive.len()))
    }

    pub(super) async fn create(&mut self) {
        if self.alive.len() >= MOST {
            return;
        }
        let created = self.agent.create_with(config()).await;
        self.all.insert(created.id.clone());
        self.alive.push(Alive { container: created.container().to_owned(), id: created.id });
    }

    /// One more run of the session; what it knows shows that none was lost, and none was done twice.
    pub(super) async fn execute(&mut self) {
        self.counted += 1;
        let run = self.session.run("n += 1\nprint(n)").await;
        assert_eq!(run.stdout(), format!("{}\n", self.counted));
    }

    pub(super) async fn create_and_destroy(&mut self, millis: u64) {
        let id = new_id();
        self.all.insert(id.clone());
        let created = self.agent.call("create_kernel", json!([id, config()]));
        let destroyed = async {
            // A destroy before the create would be about another kernel of the same id.
            let note = self.bed.scratch().join(".agent/kernels").join(format!("{id}.json"));
            until("the kernel's note", secs(9), async || note.exists().then_some(())).await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            self.agent.call("destroy_kernel", json!([id])).await
        };
        // The create works or not, depending on who was first.
        let (_, destroyed) = tokio::join!(created, destroyed);
        destroyed.expect("destroy_kernel");
    }

    pub(super) async fn destroy(&mut self, target: usize) {
        let Some(doomed) = self.take(target) else { return };
        self.agent.call("destroy_kernel", json!([doomed.id])).await.expect("destroy_kernel");
    }

    pub(super) async fn restart(&mut self, target: usize) {
        let Some(mut kernel) = self.take(target) else { return };
        let answer = self.agent.call("restart_kernel", json!([kernel.id, {}])).await.expect("restart_kernel");
        answer["container_id"].as_str().unwrap().clone_into(&mut kernel.container);
        self.alive.push(kernel);
    }

    pub(super) async fn restart_and_destroy(&mut self, target: usize) {
        let Some(kernel) = self.take(target) else { return };
        let restarted = self.agent.call("restart_kernel", json!([kernel.id, {}]));
        let destroyed = self.agent.call("destroy_kernel", json!([kernel.id]));
        // Whoever comes first; the destroy always works.
        let (_, destroyed) = tokio::join!(restarted, destroyed);
        destroyed.expect("destroy_kernel");
    }

    pub(super) async fn end_container(&mut self, target: usize, command: &[&str]) {
        let Some(kernel) = self.take(target) else { return };
        docker::docker(&[command, &[kernel.container.as_str()]].concat()).await;
    }

    /// Within 5 s, whatever is away.
    pub(super) async fn stop_agent(&mut self) {
        assert!(self.agent.stop().await.success());
        self.new_agent().await;
    }

    pub(super) async fn kill_agent(&mut self) {
        self.agent.kill9();
        self.note_races();
        self.new_agent().await;
    }

    /// Ends that were in the journal and not marked as told when the agent was killed: while the manager listened
    /// their events may have left.
    fn note_races(&mut self) {
        if self.manager_down {
            return;
        }
        for entry in std::fs::read_dir(self.bed.scratch().join(".agent/endings")).unwrap() {
            let path = entry.unwrap().path();
            let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let ending = serde_json::from_slice::<Json>(&std::fs::read(&path).unwrap());
            if ending.is_ok_and(|ending| ending["told_at"].is_null()) {
                self.raced.insert(id);
            }
        }
    }

    pub(super) async fn kill_agent_amid(&mut self, request: Request, target: usize, millis: u64) {
        let (method, id, args) = match request {
            Request::Create => {
                let id = new_id();
                ("create_kernel", id.clone(), json!([id, config()]))
            }
            Request::Destroy | Request::Restart => {
                let Some(kernel) = self.take(target) else { return };
                match request {
                    Request::Restart => ("restart_kernel", kernel.id.clone(), json!([kernel.id, {}])),
                    _ => ("destroy_kernel", kernel.id.clone(), json!([kernel.id])),
                }
            }
        };
        self.all.insert(id);
        let mut line = self.agent.rpc().connect().await;
        line.request(method, &from_json(&args), &from_json(&json!({}))).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.kill_agent().await;
    }

    /// An agent can't start without etcd and the manager.
    async fn new_agent(&mut self) {
        if self.etcd_paused {
            self.toggle(Part::Etcd).await;
        }
        if self.manager_down {
            self.toggle(Part::Manager).await;
        }
        self.agent = start(&self.bed).await;
    }

    pub(super) async fn pause_agent(&mut self, millis: u64) {
        self.agent.pause();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.agent.resume();
    }

    pub(super) async fn toggle(&mut self, part: Part) {
        match part {
            Part::Etcd if self.etcd_paused => self.bed.etcd.resume(),
            Part::Etcd => self.bed.etcd.pause(),
            Part::Redis if self.redis_killed => self.bed.redis.restart().await,
            Part::Redis => self.bed.redis.kill(),
            Part::Manager if self.manager_down => self.bed.manager.up(),
            Part::Manager => {
                // An event that was handed to a connection which then breaks is gone: that is ZeroMQ's bargain.
                self.all_ends_told().await;
                self.bed.manager.down();
            }
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

    /// Makes sure of the end of every kernel that is not alive, and waits until all were told.
    async fn all_ends_told(&self) {
        let mut alive: Vec<&str> = self.alive.iter().map(|kernel| kernel.id.as_str()).collect();
        alive.push(&self.session.id);
        for id in self.all.iter().filter(|id| !alive.contains(&id.as_str()) && self.ends(id) == 0) {
            self.agent.call("destroy_kernel", json!([id])).await.expect("destroy_kernel");
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
            let last = self.agent.call("destroy_kernel", json!([kernel.id])).await.expect("destroy_kernel");
            assert!(last.is_object(), "no statistics of {}", kernel.id);
            let end = self.bed.wait_end(&kernel.id, secs(10)).await;
            assert_eq!(end.args[1], "user-requested");
        }
        // A second destroy of each is not told again.
        for id in &self.all {
            self.agent.call("destroy_kernel", json!([id])).await.expect("destroy_kernel");
        }
        self.nothing_is_left().await;
        self.bed.ends(&self.agent, "").await;
        let counts: Vec<(&String, usize)> = self.all.iter().map(|id| (id, self.ends(id))).collect();
        let wrong = counts.iter().filter(|(id, n)| *n != 1 && !(*n == 2 && self.raced.contains(*id)));
        let wrong: Vec<_> = wrong.collect();
        for (id, _) in counts.iter().filter(|(_, n)| *n == 2) {
            let ends = self.bed.manager.all("kernel_terminated", |event| event.args[0] == id.as_str());
            println!("{id}: {:?}", ends.iter().map(|end| (end.at, end.args[1].clone())).collect::<Vec<_>>());
        }
        let twice = counts.iter().filter(|(_, n)| *n == 2).count();
        println!(
            "{} kernels; {} ends met a crash, {twice} of them were told twice",
            counts.len(),
            self.raced.len()
        );
        assert!(wrong.is_empty(), "not told once: {wrong:?}");
        let last = self.agent.create_tiny().await;
        assert_eq!(last.created["cpu_set"], self.cores, "cores are still taken");
        last.destroy().await;
        let (agent, most) = (&self.agent, self.descriptors + SPARE_DESCRIPTORS);
        until("the end of open descriptors", secs(10), async || (agent.open_files() <= most).then_some(()))
            .await;
        println!("descriptors: {} at first, {} now", self.descriptors, agent.open_files());
    }

    async fn nothing_is_left(&self) {
        let label = format!("label={NAMESPACE_LABEL}={}", self.bed.namespace);
        until("the end of all containers", secs(15), async || {
            docker::docker(&["ps", "-aq", "--filter", &label]).await.is_empty().then_some(())
        })
        .await;
        until("the end of all files", secs(10), async || {
            let notes = std::fs::read_dir(self.bed.scratch().join(".agent/kernels")).unwrap().count();
            (notes == 0 && self.bed.scratch_dirs().is_empty()).then_some(())
        })
        .await;
    }
}
