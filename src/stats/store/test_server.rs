//! A private Redis server for tests.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Commands;
use rustix::process::{Pid, Signal, kill_process};

use crate::address::HostPort;
use crate::ids::KernelId;

/// A `redis-server` on a loopback port of its own; killed when dropped.
pub(in crate::stats) struct RedisServer {
    port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl RedisServer {
    pub(in crate::stats) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { port, dir: tempfile::tempdir().unwrap(), child: None };
        server.up();
        server
    }

    /// Starts it again, on the same port.
    pub(in crate::stats) fn up(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed for this test");
        self.child = Some(child);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As `kill -9` does it.
    pub(in crate::stats) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it where it is, or lets it go on.
    pub(in crate::stats) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    pub(in crate::stats) fn address(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.port }
    }

    pub(in crate::stats) fn connect(&self) -> redis::Connection {
        redis::Client::open(format!("redis://127.0.0.1:{}/0", self.port)).unwrap().get_connection().unwrap()
    }

    /// The hash at `key` and the seconds it has left.
    pub(in crate::stats) fn hash(&self, key: KernelId) -> (BTreeMap<String, String>, i64) {
        let mut connection = self.connect();
        let hash = connection.hgetall(key.to_string()).unwrap();
        (hash, redis::cmd("TTL").arg(key.to_string()).query(&mut connection).unwrap())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
