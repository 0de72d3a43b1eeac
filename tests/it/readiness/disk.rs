//! A scratch disk that is full, without inodes, read-only, gone or hangs, at the start and while kernels run: the agent serves, offers no
//! slots and says why, ends what it is asked to end, tells each end once, and takes sessions again when the disk does.

use std::time::SystemTime;

use serde_json::json;

use crate::support::disk::SmallDisk;
use crate::support::docker::{self, image};
use crate::support::page::Pages;
use crate::support::{Agent, Bed, Kernel, kernel, new_id, secs, until};

/// Where the disk of a story is bad, and how.
struct Story {
    spoil: fn(&SmallDisk),
    mend: fn(&SmallDisk),
    /// What is said of it.
    words: &'static str,
    /// Whether the journal can be written all the same.
    is_noted: bool,
}

const FULL: Story =
    Story { spoil: SmallDisk::fill, mend: SmallDisk::empty, words: "MiB are free below", is_noted: true };
const NO_INODES: Story = Story {
    spoil: SmallDisk::use_up_inodes,
    mend: SmallDisk::empty,
    words: "inodes are free below",
    is_noted: true,
};
const READ_ONLY: Story = Story {
    spoil: |disk| disk.read_only(true),
    mend: |disk| disk.read_only(false),
    words: "on a read-only file system",
    is_noted: true,
};
const AWAY: Story = Story {
    spoil: SmallDisk::detach,
    mend: SmallDisk::attach,
    words: "is the file system of the scratch root mounted?",
    is_noted: false,
};

/// A bed whose scratch root is a disk of its own, and where its agents serve their pages.
struct World {
    // Ends before the bed, whose directory has its image.
    disk: SmallDisk,
    bed: Bed,
    pages: Pages,
}

impl World {
    async fn new() -> Self {
        let bed = Bed::start().await;
        Self { disk: SmallDisk::mount(bed.outside(), &bed.scratch()), bed, pages: Pages::lease() }
    }

    async fn agent(&self) -> Agent {
        self.agent_with(&[]).await
    }

    async fn agent_with(&self, more: &[&str]) -> Agent {
        // On a busy machine a create may well be late.
        let address = self.pages.address();
        let args = ["--metrics-addr", &address, "--create-deadline", "9", "--reconcile-interval", "1"];
        self.bed.agent(&[&args, more].concat()).await
    }

    /// Waits until the journal can bear a bad disk.
    async fn is_prepared(&self) {
        until("the journal's reserve", secs(20), async || {
            let files = std::fs::read_dir(self.bed.scratch().join(".agent/reserve")).unwrap().count();
            (files == 64).then_some(())
        })
        .await;
    }

    /// No slots, the reason, and creates that are refused with it.
    async fn offers_nothing(&self, agent: &Agent, words: &str) {
        let page = self.pages.readyz(&["\nnot ready, no slots\n", "- disk since=", words], secs(20)).await;
        assert!(page.contains("(no slots) "), "{page}");
        self.bed.slots(false, SystemTime::now(), secs(15)).await;
        let id = new_id();
        let error =
            agent.call("create_kernel", json!([id, kernel::config(&image::tiny())])).await.unwrap_err();
        assert_eq!(error.name, "builtins.RuntimeError");
        assert!(
            error.text().contains("makes no kernels at present") && error.text().contains(words),
            "{error:?}"
        );
        assert!(self.bed.manager.all("kernel_creating", |event| event.args[0] == id.as_str()).is_empty());
    }

    async fn offers_all(&self) {
        self.pages.readyz(&["\n\r\nready\n", "+ disk since="], secs(20)).await;
        self.bed.slots(true, SystemTime::now(), secs(15)).await;
    }

    async fn ends(&self, agent: &Agent, kernel: &Kernel) {
        kernel.destroy().await;
        self.bed.wait_end(&kernel.id, secs(10)).await;
        docker::gone(&kernel.id).await;
        self.ended_once(agent, kernel).await;
    }

    async fn ended_once(&self, agent: &Agent, kernel: &Kernel) {
        let ends = self.bed.ends(agent, &kernel.id).await;
        let reasons: Vec<_> = ends.iter().map(|end| end.args[1].clone()).collect();
        assert_eq!(reasons, ["user-requested"], "{}", kernel.id);
    }

    /// Nothing is left of any kernel, on the disk or for the next agent to tell.
    async fn nothing_is_left(&self, mut agent: Agent, all: &[&Kernel]) {
        until("the end of all notes and files", secs(20), async || {
            let notes = std::fs::read_dir(self.bed.scratch().join(".agent/kernels")).unwrap().count();
            (notes == 0 && self.bed.scratch_dirs().iter().all(|name| name == "lost+found")).then_some(())
        })
        .await;
        agent.kill9();
        let agent = self.agent().await;
        for kernel in all {
            self.ended_once(&agent, kernel).await;
        }
    }
}

/// The disk goes bad while kernels run.
async fn spoiled_while_it_runs(story: Story) {
    let world = World::new().await;
    let mut agent = world.agent().await;
    let (a, b, c) = (agent.create_tiny().await, agent.create_tiny().await, agent.create_tiny().await);
    world.is_prepared().await;
    (story.spoil)(&world.disk);
    world.offers_nothing(&agent, story.words).await;
    world.ends(&agent, &a).await;
    if story.is_noted {
        agent.kill9();
        agent = world.agent().await;
        world.offers_nothing(&agent, story.words).await;
        world.ended_once(&agent, &a).await;
    }
    world.ends(&agent, &b).await;
    (story.mend)(&world.disk);
    world.offers_all().await;
    let d = agent.create_tiny().await;
    for kernel in [&c, &d] {
        world.ends(&agent, kernel).await;
    }
    world.nothing_is_left(agent, &[&a, &b, &c, &d]).await;
}

/// The disk went bad while no agent ran.
async fn spoiled_at_the_start(story: Story) {
    let world = World::new().await;
    let mut agent = world.agent().await;
    let (a, b) = (agent.create_tiny().await, agent.create_tiny().await);
    world.is_prepared().await;
    agent.kill9();
    (story.spoil)(&world.disk);
    let agent = world.agent().await;
    world.offers_nothing(&agent, story.words).await;
    world.ends(&agent, &a).await;
    (story.mend)(&world.disk);
    world.offers_all().await;
    let c = agent.create_tiny().await;
    for kernel in [&b, &c] {
        world.ends(&agent, kernel).await;
    }
    world.nothing_is_left(agent, &[&a, &b, &c]).await;
}

#[tokio::test]
async fn it_fills_up_while_kernels_run() {
    spoiled_while_it_runs(FULL).await;
}

#[tokio::test]
async fn its_inodes_run_out_while_kernels_run() {
    spoiled_while_it_runs(NO_INODES).await;
}

#[tokio::test]
async fn it_becomes_read_only_while_kernels_run() {
    spoiled_while_it_runs(READ_ONLY).await;
}

#[tokio::test]
async fn it_is_taken_away_while_kernels_run() {
    spoiled_while_it_runs(AWAY).await;
}

#[tokio::test]
async fn a_run_that_begins_while_it_is_read_only_outlives_a_kill() {
    let world = World::new().await;
    let mut agent = world.agent().await;
    let kernel = agent.create_python().await.warm().await;
    world.disk.read_only(true);
    let code = "import time\nfor i in range(50): time.sleep(0.1)\nprint('over')";
    let first = kernel.execute("r", "query", code, json!({})).await.unwrap();
    assert_eq!(first["status"], "continued");
    agent.kill9();
    let agent = world.agent().await;
    let mut answer = kernel.execute("r", "continue", "", json!({})).await.expect("the run is known");
    while answer["status"] == "continued" {
        answer = kernel.execute("r", "continue", "", json!({})).await.unwrap();
    }
    assert!(answer["status"] == "finished" && answer["console"].to_string().contains("over"), "{answer}");
    assert_eq!(kernel.run("print('next')").await.stdout(), "next\n");
    world.disk.read_only(false);
    world.ends(&agent, &kernel).await;
}

/// Nothing else is written to it: the agent notices by itself, loses nobody, and goes on when the disk does.
#[tokio::test]
async fn it_hangs_while_nothing_happens() {
    let world = World::new().await;
    let agent = world.agent().await;
    let (a, b) = (agent.create_tiny().await, agent.create_tiny().await);
    world.offers_all().await;
    {
        let _frozen = world.disk.freeze();
        let begun = std::time::Instant::now();
        world.offers_nothing(&agent, "does not answer").await;
        println!("noticed within {:?}", begun.elapsed());
        a.destroy().await;
        world.bed.wait_end(&a.id, secs(15)).await;
    }
    world.offers_all().await;
    world.ended_once(&agent, &a).await;
    let c = agent.create_tiny().await;
    for kernel in [&b, &c] {
        world.ends(&agent, kernel).await;
    }
    world.nothing_is_left(agent, &[&a, &b, &c]).await;
}

/// What the journal knows is not there, nor are the kernels' files: nothing is done about any kernel before they are.
#[tokio::test]
async fn it_is_not_mounted_yet_at_the_start() {
    let world = World::new().await;
    let mut agent = world.agent().await;
    let (a, b) = (agent.create_tiny().await, agent.create_tiny().await);
    world.is_prepared().await;
    agent.kill9();
    world.disk.detach();
    let mut agent = world.agent().await;
    until("a word about it", secs(20), async || {
        agent.output().contains("is its file system mounted?").then_some(())
    })
    .await;
    world.disk.attach();
    until("what there was before", secs(30), async || agent.output().contains("taken=2").then_some(())).await;
    world.offers_all().await;
    world.ends(&agent, &a).await;
    agent.kill9();
    let agent = world.agent().await;
    world.ended_once(&agent, &a).await;
    world.ends(&agent, &b).await;
    world.nothing_is_left(agent, &[&a, &b]).await;
}

/// The agent gives up waiting, does what it can without, is killed, and finds at last what it could not know.
#[tokio::test]
async fn it_is_mounted_long_after_the_start() {
    let world = World::new().await;
    let mut agent = world.agent().await;
    let destroyed = agent.create_tiny().await;
    let (dies, removed, lives) =
        (agent.create_tiny().await, agent.create_tiny().await, agent.create_python().await);
    world.is_prepared().await;
    agent.kill9();
    world.disk.detach();
    docker::docker(&["kill", dies.container()]).await;
    docker::docker(&["rm", "--force", removed.container()]).await;
    let wait = ["--scratch-wait", "1"];
    let without = async || {
        let agent = world.agent_with(&wait).await;
        world.offers_nothing(&agent, "is its file system mounted?").await;
        agent
    };
    let mut agent = without().await;
    world.ends(&agent, &destroyed).await;
    assert_eq!(world.bed.wait_end(&dies.id, secs(20)).await.args[1], "self-terminated");
    agent.kill9();
    let agent = without().await;
    let error = lives.execute("r", "query", "print(1)", json!({})).await.unwrap_err();
    assert!(error.text().contains("has no scratch directory"), "{error:?}");

    world.disk.attach();
    assert_eq!(world.bed.wait_end(&removed.id, secs(30)).await.args[1], "self-terminated");
    world.offers_all().await;
    assert_eq!(lives.run("print('usable')").await.stdout(), "usable\n");
    world.ends(&agent, &lives).await;
    world.nothing_is_left(agent, &[&destroyed, &lives]).await;
    for kernel in [&dies, &removed] {
        let ends = world.bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id.as_str());
        assert_eq!(ends.len(), 1, "{}", kernel.id);
    }
}

#[tokio::test]
async fn it_is_full_at_the_start() {
    spoiled_at_the_start(FULL).await;
}

#[tokio::test]
async fn it_has_no_inodes_at_the_start() {
    spoiled_at_the_start(NO_INODES).await;
}

#[tokio::test]
async fn it_is_read_only_at_the_start() {
    spoiled_at_the_start(READ_ONLY).await;
}

#[tokio::test]
async fn the_first_start_of_all_is_on_a_full_disk() {
    let world = World::new().await;
    world.disk.use_up_inodes();
    let agent = world.agent().await;
    world.offers_nothing(&agent, "No space left on device").await;
    world.disk.empty();
    world.offers_all().await;
    let kernel = agent.create_tiny().await;
    world.ends(&agent, &kernel).await;
    world.nothing_is_left(agent, &[&kernel]).await;
}
