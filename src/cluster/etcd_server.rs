//! A private etcd for the tests: own ports, own directory, gone with its guard.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::address::HostPort;

/// A server that can be killed, stopped, started again and robbed of its data. Dropping it ends it.
pub(super) struct EtcdServer {
    data: TempDir,
    address: HostPort,
    peer_port: u16,
    child: Option<Child>,
}

fn free_port(host: &str) -> u16 {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

/// Whether every thread is in state T: the first field after the name, which is in parentheses.
fn all_stopped(tasks: &str) -> bool {
    std::fs::read_dir(tasks).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

impl EtcdServer {
    /// A server that has its address but does not run yet.
    pub(super) fn prepare(host: &str) -> Self {
        let address = HostPort { host: host.to_owned(), port: free_port(host) };
        let peer_port = free_port("127.0.0.1");
        Self { data: TempDir::new().unwrap(), address, peer_port, child: None }
    }

    /// A running server on 127.0.0.1.
    pub(super) async fn start() -> Self {
        let mut server = Self::prepare("127.0.0.1");
        server.run().await;
        server
    }

    pub(super) fn address(&self) -> HostPort {
        self.address.clone()
    }

    /// Starts it, with whatever data there is, and waits until it answers.
    pub(super) async fn run(&mut self) {
        assert!(self.child.is_none());
        let client = format!("http://{}", self.address);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new("etcd")
            .args(["--log-level", "error", "--data-dir"])
            .arg(self.data.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the etcd of Debian's etcd-server package must be installed");
        self.child = Some(child);
        let answers = async {
            loop {
                let mut client = self.client().await;
                let get = client.get("/", None);
                if matches!(tokio::time::timeout(Duration::from_secs(1), get).await, Ok(Ok(_))) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answers).await.expect("etcd did not come up");
    }

    /// A client of the tests' own.
    pub(super) async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([format!("http://{}", self.address)], None).await.unwrap()
    }

    /// Ends it the hard way.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Removes its data; it must not run.
    pub(super) fn lose_data(&self) {
        assert!(self.child.is_none());
        std::fs::remove_dir_all(self.data.path().join("data")).unwrap();
    }

    /// Makes it hang: connections stay open and nothing answers.
    pub(super) async fn hang(&self) {
        self.signal(Signal::STOP);
        // The signal is only on its way when `kill` returns: a thread that still runs may answer one more call.
        let tasks = format!("/proc/{}/task", self.child.as_ref().unwrap().id());
        let stopped = async {
            while !all_stopped(&tasks) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("etcd did not stop");
    }

    /// Ends [`EtcdServer::hang`].
    pub(super) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}
