//! Finding the manager, being found by it, and leaving (PROTOCOL sections 1, 4, 10 and 11).

use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use crate::support::docker::{self, image};
use crate::support::manager::{Event, images_told};
use crate::support::msgpack::keys;
use crate::support::ports::Port;
use crate::support::{Agent, Bed, secs, until};

/// Every agent of this test starts before the manager wrote anything.
async fn pairs_when_keys_come_as(order: [&str; 3]) {
    let bed = Bed::without_manager().await;
    let mut agent = bed.spawn_agent(&[]);
    let endpoint = std::net::SocketAddr::from(([127, 0, 0, 1], bed.etcd.port()));
    until("the agent's watch in etcd", secs(5), async || watchers(endpoint).await.filter(|&n| n > 0)).await;
    for key in order {
        assert!(agent.is_alive(), "the agent ended before {key} was written");
        assert!(bed.manager.events().is_empty(), "it reported to a manager that was not there");
        bed.publish(&[key]).await;
    }
    bed.wait_event("instance_started", |event| event.instance == bed.instance, secs(5)).await;
    assert_eq!(agent.call("ping", json!(["there"])).await.unwrap(), "there");
}

/// How many watches etcd serves, from its metrics page.
async fn watchers(endpoint: std::net::SocketAddr) -> Option<u64> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(endpoint).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await.ok()?;
    let line = page.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "))?;
    line.trim().parse().ok()
}

#[tokio::test]
async fn the_manager_key_may_come_last() {
    pairs_when_keys_come_as(["nodes/redis", "nodes/manager/event_addr", "nodes/manager"]).await;
}

#[tokio::test]
async fn the_manager_key_may_come_first() {
    pairs_when_keys_come_as(["nodes/manager", "nodes/manager/event_addr", "nodes/redis"]).await;
}

#[tokio::test]
async fn the_event_address_may_come_last() {
    pairs_when_keys_come_as(["nodes/redis", "nodes/manager", "nodes/manager/event_addr"]).await;
}

#[tokio::test]
async fn presence_is_starting_then_ip_then_running_and_gone_at_the_end() {
    let bed = Bed::start().await;
    let history = bed.etcd.history(&bed.key("nodes/agents"));
    let mut agent = bed.agent(&[]).await;
    let (presence, ip) = (bed.presence_key(), bed.presence_key() + "/ip");
    let put = |key: &str, value: &str| ("PUT".to_owned(), key.to_owned(), value.to_owned());
    let expected = [put(&presence, "starting"), put(&ip, "127.0.0.1"), put(&presence, "running")];
    assert_eq!(history.changes(3).await, expected);
    assert!(agent.stop().await.success());
    let deleted: Vec<String> =
        history.changes(5).await[3..].iter().map(|(kind, key, _)| format!("{kind} {key}")).collect();
    assert_eq!(deleted, [format!("DELETE {presence}"), format!("DELETE {ip}")]);
    assert_eq!(bed.presence().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_started_after_a_kill_takes_its_place_again() {
    let bed = Bed::start().await;
    let mut first = bed.agent(&[]).await;
    first.kill9();
    drop(first);
    let before = bed.manager.all("instance_heartbeat", |_| true).len();
    let second = bed.agent(&[]).await;
    bed.manager.wait("instance_heartbeat", before + 1, |_| true, secs(4)).await;
    let presence = bed.presence_key();
    let expected = [presence.clone(), "running".into(), presence + "/ip", "127.0.0.1".into()];
    assert_eq!(bed.presence().await, expected);
    assert_eq!(second.call("ping", json!(["again"])).await.unwrap(), "again");
}

#[tokio::test]
async fn a_manager_that_moved_is_followed() {
    let mut bed = Bed::start().await;
    let _agent = bed.agent(&[]).await;
    bed.manager.move_away();
    let moved = bed.manager.events().len();
    bed.publish(&["nodes/manager/event_addr"]).await;
    until("an event at the manager's new address", secs(8), async || {
        (bed.manager.events().len() > moved).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_first_heartbeat_comes_before_instance_started() {
    let bed = Bed::start().await;
    let _agent = bed.agent(&[]).await;
    let names: Vec<String> = bed.manager.events().into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["instance_heartbeat", "instance_started"]);
    let started = &bed.manager.events()[1];
    assert_eq!((&started.instance, &started.args), (&bed.instance, &json!([])));
}

fn gap(earlier: &Event, later: &Event) -> Duration {
    later.at.duration_since(earlier.at).unwrap()
}

#[tokio::test]
async fn heartbeats_come_every_three_seconds() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    // Whatever the agent does in between must not delay them.
    let kernel = agent.create_tiny().await;
    let beats =
        bed.manager.wait("instance_heartbeat", 4, |event| event.instance == bed.instance, secs(12)).await;
    kernel.destroy().await;
    for pair in beats.windows(2) {
        let gap = gap(&pair[0], &pair[1]);
        assert!(gap > Duration::from_millis(2300) && gap < Duration::from_millis(3700), "{gap:?} apart");
    }
}

#[tokio::test]
async fn a_heartbeat_says_what_the_manager_schedules_by() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let beat = bed.wait_event("instance_heartbeat", |_| true, secs(1)).await;
    assert_eq!(beat.instance, bed.instance);
    assert_eq!(beat.args.as_array().map(Vec::len), Some(1));
    let info = &beat.args[0];
    for key in ["addr", "cpu_slots", "gpu_slots", "images", "ip", "mem_slots", "region"] {
        assert!(keys(info).contains(&key), "no {key} in {info}");
    }
    assert_eq!(info["ip"], "127.0.0.1");
    assert_eq!(info["region"], "local/unknown");
    assert_eq!(info["addr"], format!("tcp://127.0.0.1:{}", agent.rpc().address().port()));
    let host: Json =
        serde_json::from_str(&docker::docker(&["info", "--format", "{{json .}}"]).await).unwrap();
    assert_eq!(info["cpu_slots"], host["NCPU"]);
    assert!(info["gpu_slots"].is_u64(), "{info}");
    let mib = host["MemTotal"].as_u64().unwrap() >> 20;
    let slots = info["mem_slots"].as_u64().expect("mem_slots is an int");
    assert!(slots.abs_diff(mib) <= 1, "{slots} MiB of {mib}");
    let listed = images_told(&beat.raw[0]);
    for name in [image::python(), image::python_t5(), image::tiny()] {
        let id = docker::inspect(&format!("lablup/kernel-{name}")).await["Id"].as_str().unwrap().to_owned();
        assert!(listed.contains(&(name.clone(), id)), "{name} is not in {listed:?}");
    }
}

#[tokio::test]
async fn a_stop_leaves_kernels_and_says_agent_restart_last() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    assert!(agent.stop().await.success());
    let last = bed.wait_event("instance_terminated", |_| true, secs(1)).await;
    assert_eq!((&last.instance, &last.args), (&bed.instance, &json!(["agent-restart"])));
    assert_eq!(bed.manager.events().last().unwrap().name, "instance_terminated");
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty());
    assert_eq!(docker::inspect(kernel.container()).await["State"]["Running"], true);
    assert_eq!(bed.scratch_dirs(), [kernel.id]);
}

#[tokio::test]
async fn a_stop_can_take_the_kernels_down() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--stop-kernels-on-exit"]).await;
    let (one, two) = (agent.create_tiny().await, agent.create_tiny().await);
    assert!(agent.stop().await.success());
    let last = bed.wait_event("instance_terminated", |_| true, secs(1)).await;
    assert_eq!(last.args, json!(["shutdown"]));
    for kernel in [one, two] {
        let ends = bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id.as_str());
        assert_eq!(ends.len(), 1, "{ends:?}");
        assert_eq!(ends[0].args[1], "agent-termination");
        assert!(ends[0].at <= last.at);
        docker::gone(&kernel.id).await;
    }
    assert!(bed.scratch_dirs().is_empty());
}

#[tokio::test]
async fn a_stop_while_waiting_for_the_manager_is_quick() {
    let bed = Bed::without_manager().await;
    let mut agent = bed.spawn_agent(&[]);
    let endpoint = std::net::SocketAddr::from(([127, 0, 0, 1], bed.etcd.port()));
    until("the agent's watch in etcd", secs(5), async || watchers(endpoint).await.filter(|&n| n > 0)).await;
    let asked = SystemTime::now();
    assert!(agent.stop().await.success());
    assert!(asked.elapsed().unwrap() < secs(2));
    assert_eq!(bed.presence().await, Vec::<String>::new());
}

/// Starts an agent that lacks something of this machine: it ends with the reason, and nobody has heard of it.
async fn a_start_in_vain(args: &[&str], reason: &str) {
    let bed = Bed::start().await;
    let history = bed.etcd.history(&bed.key("nodes/agents"));
    let mut agent = bed.spawn_agent(args);
    assert_eq!(agent.wait(secs(5)).await.code(), Some(1), "{}", agent.output());
    let output = agent.output();
    let last = output.lines().last().unwrap_or_default();
    assert!(last.contains("giving up") && last.contains(reason), "{output}");
    // Behind whatever the agent may have written.
    let after = bed.key("nodes/agents/after");
    bed.etcd.etcdctl(&["put", &after, "x"]).await;
    assert_eq!(history.changes(1).await, [("PUT".to_owned(), after, "x".to_owned())]);
    let told: Vec<String> = bed.manager.events().into_iter().map(|event| event.name).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_taken_metrics_port_ends_the_start_before_anybody_hears_of_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let advice = "choose a free address of this machine with --metrics-addr: Address already in use";
    a_start_in_vain(&["--metrics-addr", &addr], &format!("{addr}; {advice}")).await;
}

#[tokio::test]
async fn a_taken_rpc_port_ends_the_start_before_anybody_hears_of_it() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    a_start_in_vain(&["--agent-port", &port], &format!(":{port}")).await;
}

#[tokio::test]
async fn notes_that_cannot_be_opened_end_the_start_before_anybody_hears_of_it() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(".agent")).unwrap();
    std::fs::write(root.path().join(".agent/kernels"), "not a directory").unwrap();
    a_start_in_vain(
        &["--scratch-root", root.path().to_str().unwrap()],
        "must be a directory that belongs to the agent",
    )
    .await;
}

/// Starts a second agent beside `first`, on a port of its own: it ends with the pid of the first, and nobody hears of it.
async fn a_second_start_in_vain(bed: &Bed, first: &Agent, args: &[&str], reason: &str) {
    let history = bed.etcd.history(&bed.key("nodes/agents"));
    let before = bed.key("nodes/agents/before");
    bed.etcd.etcdctl(&["put", &before, reason]).await;
    let put = |key: &str| ("PUT".to_owned(), key.to_owned(), reason.to_owned());
    let known = until("the mark", secs(5), async || {
        let changes = history.changes(1).await;
        changes.iter().position(|change| *change == put(&before))
    })
    .await;
    let port = Port::lease();
    let port = port.number().to_string();
    let mut second = bed.spawn_agent(&[&["--agent-port", &port], args].concat());
    assert_eq!(second.wait(secs(5)).await.code(), Some(1), "{}", second.output());
    let output = second.output();
    let last = output.lines().last().unwrap_or_default();
    let holder = format!("another agent (pid {}) ", first.pid());
    assert!(last.contains("giving up") && last.contains(&holder) && last.contains(reason), "{output}");
    // Behind whatever the second may have written.
    let after = bed.key("nodes/agents/after");
    bed.etcd.etcdctl(&["put", &after, reason]).await;
    assert_eq!(history.changes(known + 2).await[known + 1..], [put(&after)]);
    assert!(bed.manager.all("instance_terminated", |_| true).is_empty());
}

#[tokio::test]
async fn two_agents_with_one_scratch_root_or_one_name_are_refused() {
    let bed = Bed::start().await;
    let mut first = bed.agent(&[]).await;
    let kernel = first.create_python().await.warm().await;
    a_second_start_in_vain(&bed, &first, &[], "works in the scratch root").await;
    a_second_start_in_vain(&bed, &first, &["--instance-id", "i-other"], "in the scratch root").await;
    let root = bed.outside().join("other");
    std::fs::create_dir(&root).unwrap();
    let other_root = ["--scratch-root", root.to_str().unwrap()];
    let name = format!("is {}/{} ", bed.namespace, bed.instance);
    a_second_start_in_vain(&bed, &first, &other_root, &name).await;
    assert_eq!(kernel.run("print(1)").await.stdout(), "1\n");
    first.kill9();
    // What it had is free again, whichever of the two is started next.
    let _second = bed.agent(&other_root).await;
}

#[tokio::test]
async fn a_missing_scratch_root_ends_the_start_with_a_clear_text() {
    let bed = Bed::start().await;
    let missing = bed.outside().join("missing").display().to_string();
    let mut agent = bed.spawn_agent_as(&[
        "--scratch-root".to_owned(),
        missing.clone(),
        "--etcd-addr".to_owned(),
        format!("localhost:{}", bed.etcd.port()),
        "--namespace".to_owned(),
        bed.namespace.clone(),
    ]);
    assert_eq!(agent.wait(secs(5)).await.code(), Some(2), "{}", agent.output());
    let output = agent.output();
    assert!(output.contains(&missing) && output.contains("--scratch-root"), "{output}");
    assert!(!output.contains("panicked"), "{output}");
    assert_eq!(bed.presence().await, Vec::<String>::new());
}

#[tokio::test]
async fn every_bad_setting_is_reported_at_once() {
    let bed = Bed::start().await;
    let missing = bed.outside().join("missing").display().to_string();
    let bad = [
        ("--agent-port", "99999"),
        ("--etcd-addr", "no-port-here"),
        ("--idle-timeout", "soonish"),
        ("--scratch-root", &missing),
    ];
    let args: Vec<String> = bad.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]).collect();
    let mut agent = bed.spawn_agent_as(&args);
    assert_eq!(agent.wait(secs(5)).await.code(), Some(2), "{}", agent.output());
    let output = agent.output();
    for (flag, value) in bad {
        assert!(output.contains(flag) && output.contains(value), "{flag} {value} is not named in:\n{output}");
    }
}
