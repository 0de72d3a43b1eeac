//! What code in a kernel reaches: not the agent, the cluster's services, other kernels or their terminals.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use tokio::net::TcpListener;

use crate::support::docker::{chain_of, docker, inspect, is_chain_there, own_network, remove_old_networks};
use crate::support::machine::Machine;
use crate::support::ports::Port;
use crate::support::services::output;
use crate::support::{Agent, Bed, Kernel, secs, until};

/// An agent with a network of its own, whose kernels' terminals are published for the other machine.
async fn fenced(bed: &Bed, more: &[&str]) -> Agent {
    remove_old_networks();
    let agent = bed.agent(&[&["--kernel-network", "own"], more].concat()).await;
    assert!(agent.output().contains("kernels are fenced in"), "the firewall can't be set up here");
    agent
}

/// Where a kernel's container is on its network: its address and the bridge's.
async fn place(kernel: &Kernel) -> (String, String) {
    let seen = inspect(kernel.container()).await;
    let networks = seen["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(networks.len(), 1, "{networks:?}");
    let (name, network) = networks.iter().next().unwrap();
    assert!(name.starts_with("backendai-"), "{name}");
    let text = |key: &str| network[key].as_str().unwrap().to_owned();
    (text("IPAddress"), text("Gateway"))
}

/// Which of these places take a connection of the kernel's code.
async fn reached(kernel: &Kernel, places: &[(String, u16)]) -> Vec<(String, u16)> {
    let code = format!(
        "import socket, json\nfrom concurrent.futures import ThreadPoolExecutor\n\
         def reached(place):\n    try:\n        socket.create_connection(tuple(place), 1).close()\n        return True\n    except OSError:\n        return False\n\
         places = {}\n\
         with ThreadPoolExecutor(len(places)) as pool:\n    print(json.dumps([p for p, r in zip(places, pool.map(reached, places)) if r]))",
        json!(places)
    );
    let run = kernel.run(&code).await;
    serde_json::from_str(run.stdout().trim()).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Somebody who takes connections at this port of all addresses of this machine.
async fn service() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

const LISTENS: &str = "import socket, sys\n\
    sockets = [socket.create_server(('0.0.0.0', int(port))) for port in PORTS]\nprint('listens')\n\
    while True: sockets[0].accept()";

#[tokio::test]
async fn code_in_a_kernel_reaches_neither_the_host_nor_the_cluster_nor_other_kernels() {
    let bed = Bed::start().await;
    let (elsewhere, metrics, redis) = (Machine::new(), Port::lease(), Port::lease());
    let (agent_port, web) = (bed.rpc().address().port(), 8080);
    // Another worker of the cluster, with Redis and a page of its own.
    let code = LISTENS.replace("PORTS", &format!("[{web}, {agent_port}, {}]", redis.number()));
    let there = elsewhere.python(&code, &bed.outside().join("elsewhere.log"));
    until("the other machine", secs(10), async || there.output().contains("listens").then_some(())).await;
    let at = format!("{}:{}", elsewhere.there(), redis.number());
    bed.etcd.etcdctl(&["put", &bed.key("nodes/redis"), &at]).await;

    let (here, metrics_at) = (elsewhere.here().to_string(), format!("0.0.0.0:{}", metrics.number()));
    let agent = fenced(&bed, &["--kernel-host-override", &here, "--metrics-addr", &metrics_at]).await;
    let (a, b) = (agent.create_python().await, agent.create_python().await);
    let ((_, gateway), (address, _)) = (place(&a).await, place(&b).await);
    let listening = b
        .run("import socket, threading\ntry: terminal = socket.create_server(('0.0.0.0', 2002))\nexcept OSError: pass\nprint('listens')")
        .await;
    assert_eq!(listening.stdout().trim(), "listens");

    let terminal = u16::try_from(b.created["stdin_port"].as_u64().unwrap()).unwrap();
    let (_service, port) = service().await;
    let host = [&gateway, &here]
        .into_iter()
        .flat_map(|host| [agent_port, metrics.number(), port, terminal].map(|port| (host.clone(), port)));
    let others = [2000, 2001, 2002, 1].map(|port| (address.clone(), port));
    let there = elsewhere.there().to_string();
    let cluster = [(there.clone(), agent_port), (there.clone(), redis.number())];
    let open = (there.clone(), web);
    let all: Vec<_> =
        host.chain(others).chain(cluster).chain([("169.254.169.254".to_owned(), 80), open.clone()]).collect();
    // The other machine's page is reached, as the Internet is; nothing else.
    assert_eq!(reached(&a, &all).await, [open]);

    // The manager, which is there, reaches the terminal, and the agent both kernels.
    let call =
        format!("import socket; socket.create_connection(({here:?}, {terminal}), 5); print('reached')");
    let manager = elsewhere.python(&call, &bed.outside().join("manager.log"));
    until("the terminal", secs(10), async || manager.output().contains("reached").then_some(())).await;
    assert_eq!(b.run("print(6 * 7)").await.stdout().trim(), "42");
}

/// Whoever flushes the machine's tables does not open the host for longer than some seconds.
#[tokio::test]
async fn the_fence_is_mended_and_goes_with_the_kernels() {
    let bed = Bed::start().await;
    let mut agent = fenced(&bed, &["--stop-kernels-on-exit"]).await;
    let kernel = agent.create_tiny().await;
    let name = docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", kernel.container()]).await;
    let bridge = name.replace("backendai-", "bai-");
    let rules = async || iptables(&["-S"]).await;
    let is_up = async || {
        let text = rules().await;
        let drops =
            text.lines().filter(|line| line.contains(&format!("-A {bridge}")) && line.contains("DROP"));
        let is_led = text.contains(&format!("-A PREROUTING -i {bridge} -j {bridge}"));
        (drops.count() > 5 && is_led).then_some(())
    };
    is_up().await.expect("the rules are there before the first kernel");
    for flush in [&["-F", &bridge][..], &["-D", "PREROUTING", "-i", &bridge, "-j", &bridge]] {
        iptables(flush).await;
        assert!(is_up().await.is_none());
        until("the rules again", secs(20), is_up).await;
    }
    // The network is found again by the next life, and kept while a kernel is on it.
    agent.kill9();
    let mut agent = fenced(&bed, &["--stop-kernels-on-exit"]).await;
    assert_eq!(
        docker(&["network", "ls", "-q", "--filter", &format!("name={name}")]).await.lines().count(),
        1
    );
    agent.create_tiny().await;
    agent.stop_within(secs(30)).await;
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &format!("name={name}")]).await, "");
    assert!(!rules().await.contains(&bridge), "rules stay");
}

async fn iptables(args: &[&str]) -> String {
    let mut command = tokio::process::Command::new("iptables");
    command.args(["--wait", "-t", "mangle"]).args(args);
    output(command).await
}

/// The packet filter may forget which connections stand, by a command or because there are too many. From the kernel's side a
/// connection that it forgot looks like one that the kernel begins, which the fence is against.
#[tokio::test]
async fn a_run_outlives_that_the_packet_filter_forgets_its_connection() {
    let bed = Bed::start().await;
    let agent = fenced(&bed, &[]).await;
    let kernel = agent.create_python().await.warm().await;
    let (container, _) = place(&kernel).await;
    let code = "import time\nopen('/home/work/begun', 'w').close()\nfor i in range(40):\n    print(f'{i} ', end='')\n    time.sleep(0.1)";
    let run = async { kernel.run(code).await };
    let forget = async {
        let begun = bed.home(&kernel.id).join("begun");
        until("the run's begin", secs(9), async || begun.exists().then_some(())).await;
        let mut command = tokio::process::Command::new("conntrack");
        command.args(["-D", "--proto", "tcp", "--orig-dst", &container]);
        let forgotten = output(command).await;
        assert!(forgotten.lines().count() >= 2, "{forgotten}");
        std::time::Instant::now()
    };
    let (run, forgotten) = tokio::join!(run, forget);
    let numbers: Vec<usize> = run.stdout().split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    let took = forgotten.elapsed();
    assert!(took < secs(40), "{took:?}");
}

/// A network that somebody has removed is made again by the next create.
#[tokio::test]
async fn a_network_that_is_gone_is_made_again() {
    let bed = Bed::start().await;
    let agent = fenced(&bed, &[]).await;
    let network = |kernel: &Kernel| {
        let container = kernel.container().to_owned();
        async move { docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &container]).await }
    };
    let first = agent.create_tiny().await;
    let name = network(&first).await;
    first.call("destroy_kernel", json!([])).await.unwrap();
    docker(&["network", "rm", &name]).await;
    assert_eq!(network(&agent.create_tiny().await).await, name);
}

/// A test that kills its agent, or whose agent's network somebody takes away, leaves nothing of it on the machine.
#[tokio::test]
async fn nothing_of_the_network_is_left_behind_by_a_test() {
    for is_network_taken in [false, true] {
        let bed = Bed::start().await;
        let mut agent = fenced(&bed, &[]).await;
        let kernel = agent.create_tiny().await;
        let network = own_network(&bed.namespace, &bed.instance);
        let seen = docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", kernel.container()]).await;
        assert_eq!(seen, network);
        assert!(is_chain_there(&chain_of(&network)), "the agent's rules are called otherwise");
        agent.kill9();
        if is_network_taken {
            docker(&["rm", "-fv", kernel.container()]).await;
            docker(&["network", "rm", &network]).await;
        }
        drop((kernel, agent, bed));
        assert!(!is_chain_there(&chain_of(&network)));
        let name = format!("name={network}");
        assert_eq!(docker(&["network", "ls", "-q", "--filter", &name]).await, "");
    }
}

/// Where the tools of the firewall are missing the agent says so once, and serves.
#[tokio::test]
async fn without_the_tools_the_agent_serves_and_says_what_is_open() {
    let bed = Bed::start().await;
    // Of all programs only the one that starts the agent.
    let path = bed.outside().join("bin");
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::symlink("/usr/bin/setpriv", path.join("setpriv")).unwrap();
    let path = path.display().to_string();
    let agent = bed.spawn_agent_in(&[("PATH", &path)], &["--kernel-network", "own"]);
    bed.wait_event("instance_started", |_| true, secs(10)).await;
    let log = agent.output();
    assert_eq!(log.matches("install the package iptables").count(), 1, "{log}");
    agent.create_tiny().await;
}

/// An address that is for no kernel by the operator's choice of a network stays as Docker has it.
#[tokio::test]
async fn a_named_network_is_left_as_it_is_and_warned_of() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--kernel-network", "bridge"]).await;
    let kernel = agent.create_tiny().await;
    let seen = inspect(kernel.container()).await;
    let ip: IpAddr =
        seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap().parse().unwrap();
    assert!(!ip.is_unspecified());
    let log = agent.output();
    assert_eq!(log.lines().filter(|line| line.contains("without --kernel-network")).count(), 1, "{log}");
    let label = format!("label=ai.backend.namespace={}", bed.namespace);
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &label]).await, "");
}
