//! A machine with eight GPUs, described by a library with NVML's entry points; an engine that gives GPUs out by NVIDIA's hook.
//!
//! The library and the hook are stand-ins; the agent, its loading of the library, dockerd and the containers are real
//! (PROTOCOL section 9, and section 12, items 12 and 36).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use crate::support::docker::TestImage;
use crate::support::dockerd::Dockerd;
use crate::support::http::get;
use crate::support::ports::Port;
use crate::support::{Agent, Bed, Kernel, kernel, new_id, secs, until};

/// The machine: its library, its engine, and the file that tells which GPUs are gone.
struct Machine {
    /// The tiny image, made for GPUs.
    image: TestImage,
    library: PathBuf,
    gone: PathBuf,
    engine: Dockerd,
    metrics: Port,
}

impl Machine {
    async fn start(bed: &Bed) -> Self {
        let dir = bed.outside().join("gpus");
        let hooks = dir.join("bin");
        std::fs::create_dir_all(&hooks).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gpus/nvml.c");
        let library = dir.join("libnvidia-ml.so.1");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        assert!(cc.status().unwrap().success(), "cc makes the library");
        // dockerd has its driver for GPUs when it finds NVIDIA's hook at its start.
        let hook = hooks.join("nvidia-container-runtime-hook");
        std::fs::write(&hook, "#!/bin/sh\nexit 0\n").unwrap();
        std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
        let image = TestImage::labelled(&["ai.backend.nvidia.enabled=yes"]).await;
        let engine = Dockerd::with_programs(bed.outside(), &hooks, &[image.lang().to_owned()]).await;
        Self { image, library: dir, gone: bed.outside().join("gone"), engine, metrics: Port::lease() }
    }

    async fn agent(&self, bed: &Bed, more: &[&str]) -> Agent {
        let address = format!("127.0.0.1:{}", self.metrics.number());
        let host = self.engine.host();
        let args =
            [&["--docker-host", &host, "--metrics-addr", &address, "--create-deadline", "9"], more].concat();
        let env =
            [("LD_LIBRARY_PATH", self.library.to_str().unwrap()), ("GPUS_GONE", self.gone.to_str().unwrap())];
        let before = bed.manager.all("instance_started", |_| true).len();
        let agent = bed.spawn_agent_in(&env, &args);
        bed.manager.wait("instance_started", before + 1, |_| true, secs(10)).await;
        agent
    }

    fn kernel_with(&self, gpus: f64) -> Json {
        let mut config = kernel::config(self.image.lang());
        config["limits"] = json!({ "mem_slot": 64, "cpu_slot": 1, "gpu_slot": gpus });
        config
    }

    /// The GPUs that Docker was asked for.
    async fn asked_for(&self, kernel: &Kernel) -> Json {
        let text = self.engine.docker(&["inspect", kernel.container()]).await;
        let seen: Json = serde_json::from_str(&text).unwrap();
        seen[0]["HostConfig"]["DeviceRequests"][0]["DeviceIDs"].clone()
    }

    async fn page(&self) -> String {
        until("the figures", secs(10), async || get(self.metrics.number(), "/metrics").await).await.1
    }
}

fn uuids(kernel: &Kernel) -> Json {
    let set = kernel.created["gpu_set"].as_array().unwrap();
    set.iter().map(|gpu| format!("GPU-00000000-0000-0000-0000-00000000000{gpu}")).collect()
}

/// Waits for a heartbeat after `since` that offers so many GPUs.
async fn offers(bed: &Bed, gpus: f64, since: SystemTime) {
    let fits = |beat: &crate::support::manager::Event| {
        beat.at > since && beat.args[0]["gpu_slots"].as_f64() == Some(gpus)
    };
    bed.wait_event("instance_heartbeat", fits, secs(20)).await;
}

#[tokio::test]
async fn gpus_are_given_kept_over_the_agent_s_death_and_free_again() {
    let bed = Bed::start().await;
    let machine = Machine::start(&bed).await;
    let mut agent = machine.agent(&bed, &[]).await;
    offers(&bed, 8.0, SystemTime::UNIX_EPOCH).await;
    let pair = agent.create_with(machine.kernel_with(2.0)).await;
    assert_eq!(pair.created["gpu_set"].as_array().unwrap().len(), 2, "{}", pair.created);
    assert_eq!(machine.asked_for(&pair).await, uuids(&pair));
    let page = machine.page().await;
    assert!(
        page.contains("backendai_agent_gpus 8") && page.contains("backendai_agent_gpu_power_watts"),
        "{page}"
    );

    agent.kill9();
    let agent = machine.agent(&bed, &[]).await;
    let six = agent.create_with(machine.kernel_with(6.0)).await;
    let shared = |kernel: &Kernel| kernel.created["gpu_set"].as_array().unwrap().clone();
    assert!(shared(&six).iter().all(|gpu| !shared(&pair).contains(gpu)), "{} {}", six.created, pair.created);
    let more = agent.call("create_kernel", json!([new_id(), machine.kernel_with(9.0)])).await;
    let refused = more.expect_err("the machine has eight");
    assert!(refused.text().contains("GPU"), "{refused:?}");
    pair.destroy().await;
    bed.wait_end(&pair.id, secs(20)).await;
    let again = agent.create_with(machine.kernel_with(2.0)).await;
    let sorted = |kernel: &Kernel| {
        let mut set: Vec<u64> = shared(kernel).iter().filter_map(Json::as_u64).collect();
        set.sort_unstable();
        set
    };
    assert_eq!(sorted(&again), sorted(&pair), "the two that are free again");
}

#[tokio::test]
async fn a_gpu_that_falls_off_the_bus_leaves_the_slots_and_comes_back() {
    let bed = Bed::start().await;
    let machine = Machine::start(&bed).await;
    let agent = machine.agent(&bed, &["--limit-gpus", "0-3"]).await;
    offers(&bed, 4.0, SystemTime::UNIX_EPOCH).await;
    let fell = SystemTime::now();
    std::fs::write(&machine.gone, "2\n").unwrap();
    offers(&bed, 3.0, fell).await;
    let log = agent.output();
    assert_eq!(log.matches("a GPU is gone, no session gets it until it is back").count(), 1, "{log}");
    let three = agent.create_with(machine.kernel_with(3.0)).await;
    let set = three.created["gpu_set"].as_array().unwrap();
    assert!(!set.contains(&json!(2)) && set.len() == 3, "{}", three.created);
    let gone = async || (!machine.page().await.contains("gpu=\"2\"")).then_some(());
    until("the end of its series", secs(15), gone).await;
    let back = SystemTime::now();
    std::fs::write(&machine.gone, "").unwrap();
    offers(&bed, 4.0, back).await;
    assert_eq!(agent.output().matches("found a GPU gpu=2").count(), 2, "{}", agent.output());
}
