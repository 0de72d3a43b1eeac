//! What systemd hears of an agent that it started as `Type=notify`.

use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::timeout;

use crate::support::{Agent, Bed, docker, secs};

/// systemd's end of `NOTIFY_SOCKET`; the real one would restart the agents of whoever runs the tests.
struct Systemd {
    socket: UnixDatagram,
    /// What it has heard, statement by statement.
    heard: Vec<String>,
}

impl Systemd {
    /// Starts an agent and does not wait for anything.
    fn start(bed: &Bed, watchdog: Duration, args: &[&str]) -> (Self, Agent) {
        let path = bed.outside().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let usec = watchdog.as_micros().to_string();
        let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", &usec)];
        let agent = bed.spawn_agent_in(&env, args);
        (Self { socket, heard: Vec::new() }, agent)
    }

    /// Waits until it hears this; what came before stays in `heard`.
    async fn hears(&mut self, statement: &str) {
        let listening = async {
            loop {
                let mut datagram = [0; 4096];
                let length = self.socket.recv(&mut datagram).await.unwrap();
                let text = std::str::from_utf8(&datagram[..length]).unwrap();
                self.heard.extend(text.lines().map(str::to_owned));
                if text.lines().any(|line| line.starts_with(statement)) {
                    return;
                }
            }
        };
        let heard = timeout(secs(5), listening).await;
        assert!(heard.is_ok(), "{statement} was not heard: {:?}", self.heard);
    }

    /// Everything but the signs of life, so far.
    fn heard(&self) -> Vec<&str> {
        self.heard.iter().map(String::as_str).filter(|line| *line != "WATCHDOG=1").collect()
    }
}

#[tokio::test]
async fn it_is_ready_before_there_is_a_manager_and_says_what_it_waits_for() {
    let bed = Bed::without_manager().await;
    let (mut systemd, mut agent) = Systemd::start(&bed, secs(1), &[]);
    systemd.hears("READY=1").await;
    assert_eq!(systemd.heard(), ["READY=1"]);
    systemd.hears("STATUS=waiting for the manager (missing: ").await;
    bed.publish(&["nodes/redis", "nodes/manager/event_addr", "nodes/manager"]).await;
    systemd.hears("STATUS=serving").await;
    systemd.hears("WATCHDOG=1").await;
    systemd.hears("WATCHDOG=1").await;
    assert!(agent.stop().await.success());
    systemd.hears("STOPPING=1").await;
    assert_eq!(systemd.heard().last(), Some(&"STATUS=stopping"));
    assert!(systemd.heard().iter().all(|line| !line.starts_with("EXTEND")), "{:?}", systemd.heard);
}

#[tokio::test]
async fn it_says_that_it_waits_for_docker_or_etcd() {
    let bed = Bed::start().await;
    let (mut systemd, mut agent) = Systemd::start(&bed, secs(60), &["--docker-host", "unix:///nowhere.sock"]);
    systemd.hears("STATUS=waiting for Docker").await;
    assert!(agent.stop().await.success());
    drop(agent);
    std::fs::remove_file(bed.outside().join("notify")).unwrap();
    bed.etcd.pause().await;
    let (mut systemd, mut agent) = Systemd::start(&bed, secs(60), &[]);
    systemd.hears("STATUS=waiting for etcd").await;
    assert_eq!(systemd.heard()[0], "READY=1");
    bed.etcd.resume();
    systemd.hears("STATUS=serving").await;
    assert!(agent.stop().await.success());
}

#[tokio::test]
async fn a_start_in_vain_is_never_ready() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let bed = Bed::start().await;
    let (mut systemd, mut agent) = Systemd::start(&bed, secs(60), &["--agent-port", &port]);
    assert_eq!(agent.wait(secs(5)).await.code(), Some(1));
    // Whatever it said would be there by now.
    let path = bed.outside().join("notify");
    let last = UnixDatagram::unbound().unwrap();
    last.send_to(b"LAST=1\n", &path).await.unwrap();
    systemd.hears("LAST=1").await;
    assert_eq!(systemd.heard(), ["LAST=1"]);
}

#[tokio::test]
async fn it_asks_for_the_time_that_the_ends_of_kernels_take() {
    let bed = Bed::start().await;
    let (mut systemd, mut agent) = Systemd::start(&bed, secs(60), &["--stop-kernels-on-exit"]);
    systemd.hears("STATUS=serving").await;
    let kernel = agent.create_tiny().await;
    assert!(agent.stop().await.success());
    systemd.hears("EXTEND_TIMEOUT_USEC=50000000").await;
    docker::gone(&kernel.id).await;
}
