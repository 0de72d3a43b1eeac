//! Callers from addresses that may not call.

use std::net::SocketAddr;

use backendai_agent::zmtp::{Caps, Connection, KeepAlive, Kind};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::docker::docker;
use crate::support::elsewhere::{Elsewhere, is_heard};
use crate::support::ports::Port;
use crate::support::vitals::gauges;
use crate::support::{Bed, secs, until};

#[tokio::test]
async fn strangers_are_refused_unread_and_named_once_with_what_to_set() {
    let bed = Bed::start().await;
    let metrics = Port::lease();
    let at = format!("127.0.0.1:{}", metrics.number());
    let agent = bed.agent(&["--metrics-addr", &at]).await;
    let stranger = Elsewhere::new();
    for _ in 0..20 {
        assert!(!is_heard(stranger.connect(agent.rpc().address()).await).await);
    }
    assert_eq!(agent.call("ping", json!(["the others"])).await.unwrap(), "the others");
    let log = agent.output();
    let told: Vec<_> = log.lines().filter(|line| line.contains("refused a caller")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&stranger.ip().to_string()) && told[0].contains("--trusted-peers"), "{told:?}");
    let counted = "the count on the metrics page";
    until(counted, secs(10), async || {
        (gauges(metrics.number()).await?("rpc_refused_callers_total") >= 20.0).then_some(())
    })
    .await;
}

/// The manager's host is the one that etcd names at the moment.
#[tokio::test]
async fn the_manager_is_followed_when_it_moves() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let [first, second] = [Elsewhere::new(), Elsewhere::new()];
    let rpc = agent.rpc().address();
    let moves_to = async |host: &Elsewhere| {
        let address = format!("{}:5002", host.ip());
        bed.etcd.etcdctl(&["put", &bed.key("nodes/manager/event_addr"), &address]).await;
        until("the manager to be heard", secs(10), async || {
            is_heard(host.connect(rpc).await).await.then_some(())
        })
        .await;
    };
    moves_to(&first).await;
    assert!(!is_heard(second.connect(rpc).await).await);
    moves_to(&second).await;
    assert!(!is_heard(first.connect(rpc).await).await, "where the manager was once");
    // A manager that has left its keys is still the one that may call.
    bed.etcd.etcdctl(&["del", "--prefix", &bed.key("nodes/manager")]).await;
    assert!(is_heard(second.connect(rpc).await).await);
}

#[tokio::test]
async fn trusted_networks_may_call_and_containers_never() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--trusted-peers", "10.255.255.0/24,0.0.0.0/0"]).await;
    let rpc = agent.rpc().address();
    assert!(is_heard(Elsewhere::new().connect(rpc).await).await);
    let gateway =
        docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]).await;
    let kernel = agent.create_python().await;
    let run = kernel.run(&kernel_that_calls(SocketAddr::new(gateway.parse().unwrap(), rpc.port()))).await;
    assert_eq!(run.stdout().trim(), "connected, heard b''", "{}", run.stderr());
    assert!(agent.output().contains("it calls from a Docker network of this machine"));
}

fn kernel_that_calls(to: SocketAddr) -> String {
    format!(
        "import socket\n\
         s = socket.create_connection(({:?}, {}), 5)\n\
         try:\n    s.sendall(b'\\xff' + bytes(8) + b'\\x7f\\x03\\x01NULL' + bytes(48))\n    heard = s.recv(64)\n\
         except ConnectionError: heard = b''\n\
         print('connected, heard', heard)",
        to.ip().to_string(),
        to.port()
    )
}

/// A caller from elsewhere that is trusted is served like any other.
#[tokio::test]
async fn the_port_may_be_one_address_s_alone() {
    let bed = Bed::start().await;
    let here = Elsewhere::new();
    let agent = bed.spawn_agent(&["--rpc-listen", &here.ip().to_string()]);
    let at = SocketAddr::new(here.ip(), agent.rpc().address().port());
    let opens = async || {
        let keep = KeepAlive::default();
        Connection::open(at.to_string(), Kind::Dealer, Caps::calls(1 << 20), keep).await.ok()
    };
    until("the agent at its one address", secs(10), opens).await;
    assert!(TcpStream::connect(agent.rpc().address()).await.is_err(), "it listens on loopback, too");
}
