//! Cores and memory handed out and taken back (PROTOCOL section 9).

use serde_json::{Value as Json, json};

use crate::support::docker::{self, TestImage, image};
use crate::support::{Bed, Kernel, kernel, new_id, secs};

fn with_cpus(slots: &Json) -> Json {
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config["limits"]["cpu_slot"] = slots.clone();
    config
}

fn cpu_set(kernel: &Kernel) -> Vec<u64> {
    kernel.created["cpu_set"].as_array().unwrap().iter().map(|cpu| cpu.as_u64().unwrap()).collect()
}

async fn cores_of_this_machine() -> usize {
    docker::docker(&["info", "--format", "{{.NCPU}}"]).await.parse().unwrap()
}

#[tokio::test]
async fn kernels_get_the_least_shared_cores_and_give_them_back() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    if cores_of_this_machine().await < 2 {
        // Nothing to choose between.
        return;
    }
    let one = agent.create_with(with_cpus(&json!(1))).await;
    let two = agent.create_with(with_cpus(&json!(1.0))).await;
    assert_ne!(cpu_set(&one), cpu_set(&two), "the second core was free");
    one.destroy().await;
    docker::gone(&one.id).await;
    let three = agent.create_with(with_cpus(&json!(1))).await;
    assert_ne!(cpu_set(&three), cpu_set(&two), "the freed core has fewer shares");
}

#[tokio::test]
async fn more_cores_than_there_are_is_all_of_a_node() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_with(with_cpus(&json!(1000))).await;
    let set = cpu_set(&kernel);
    assert!(!set.is_empty() && set.len() <= cores_of_this_machine().await, "{set:?}");
    let container = docker::inspect(kernel.container()).await;
    let listed: Vec<String> = set.iter().map(u64::to_string).collect();
    assert_eq!(container["HostConfig"]["CpusetCpus"], listed.join(","));
    let environment = container["Config"]["Env"].as_array().unwrap();
    assert!(environment.contains(&json!(format!("NPROC={}", set.len()))), "{environment:?}");
}

#[tokio::test]
async fn a_fraction_of_a_core_is_one_core_and_a_quota() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_with(with_cpus(&json!(0.5))).await;
    assert_eq!(cpu_set(&kernel).len(), 1);
    let host = docker::inspect(kernel.container()).await["HostConfig"].clone();
    let nanos = host["NanoCpus"].as_i64().unwrap();
    let (period, quota) = (host["CpuPeriod"].as_i64().unwrap(), host["CpuQuota"].as_i64().unwrap());
    assert!(nanos == 500_000_000 || (period > 0 && quota * 2 == period), "{nanos} {quota}/{period}");
}

#[tokio::test]
async fn shared_memory_grows_with_the_limit_and_what_can_not_be_is_refused() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let with_mem = |mib: Json| {
        let mut config = with_cpus(&json!(1));
        config["limits"]["mem_slot"] = mib;
        config
    };
    let kernel = agent.create_with(with_mem(json!(256))).await;
    let host = docker::inspect(kernel.container()).await["HostConfig"].clone();
    assert_eq!((host["Memory"].as_i64(), host["ShmSize"].as_i64()), (Some(256 << 20), Some(128 << 20)));
    let shm = docker::docker(&["exec", kernel.container(), "/bin/busybox", "df", "-k", "/dev/shm"]).await;
    assert!(shm.contains(&format!(" {} ", 128 << 10)), "{shm}");
    for (mib, words) in [(5_u64, "can't have less than 6 MiB"), (1 << 40, "but this machine has")] {
        let answer = agent.call("create_kernel", json!([new_id(), with_mem(json!(mib))])).await;
        let refusal = answer.unwrap_err();
        assert!(refusal.text().contains(words), "{refusal:?}");
    }
}

#[tokio::test]
async fn what_an_image_declares_is_an_upper_limit() {
    let image = TestImage::labelled(&["io.sorna.maxmem=96m", "io.sorna.maxcores=1"]).await;
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut config = with_cpus(&json!(64));
    config["lang"] = json!(image.lang());
    config["limits"]["mem_slot"] = json!(512);
    let kernel = agent.create_with(config).await;
    assert_eq!(cpu_set(&kernel).len(), 1);
    let host = docker::inspect(kernel.container()).await["HostConfig"].clone();
    assert_eq!(host["Memory"].as_i64(), Some(96 << 20));
    assert_eq!(host["MemorySwap"], host["Memory"], "no swap beyond the limit");
}

#[tokio::test]
async fn what_the_operator_keeps_is_neither_told_nor_given() {
    let cores = cores_of_this_machine().await;
    if cores < 2 {
        // Nothing would be left.
        return;
    }
    let bytes: u64 = docker::docker(&["info", "--format", "{{.MemTotal}}"]).await.parse().unwrap();
    let bed = Bed::start().await;
    let agent = bed.agent(&["--reserved-cpus", "0", "--reserved-memory", "512", "--shm-size", "80"]).await;
    let beat = bed.wait_event("instance_heartbeat", |_| true, secs(5)).await.args[0].clone();
    assert_eq!(beat["cpu_slots"], json!(cores - 1));
    assert_eq!(beat["mem_slots"], json!((bytes >> 20) - 512));
    let kernel = agent.create_with(with_cpus(&json!(1000))).await;
    assert!(!cpu_set(&kernel).contains(&0), "{:?}", cpu_set(&kernel));
    let host = docker::inspect(kernel.container()).await["HostConfig"].clone();
    assert_eq!(host["ShmSize"].as_i64(), Some(80 << 20));
}

#[tokio::test]
async fn an_operator_who_keeps_everything_is_told_so() {
    let bed = Bed::start().await;
    let mut agent = bed.spawn_agent(&["--limit-cpus", "60000"]);
    assert!(!agent.wait(secs(10)).await.success());
    let output = agent.output();
    assert!(output.contains("--reserved-cpus and --limit-cpus leave none of the cores"), "{output}");
    assert!(bed.presence().await.is_empty(), "etcd is as it was");
}

#[tokio::test]
async fn no_core_at_all_is_one_core() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_with(with_cpus(&json!(0))).await;
    assert_eq!(cpu_set(&kernel).len(), 1);
    kernel.destroy().await;
    docker::gone(&kernel.id).await;
}
