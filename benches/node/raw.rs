//! The floor: the same container from Docker alone, and the same runner spoken to without an agent.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use backendai_agent::wire::command::Command;
use backendai_agent::wire::record::Record;
use backendai_agent::zmtp::{Caps, Connection, KeepAlive, Kind, frame};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::support::{docker, secs, until};

/// A container that no agent knows.
pub(crate) struct RawKernel {
    docker: Docker,
    id: String,
    host: String,
}

/// A runner without an agent.
pub(crate) struct RawRunner {
    input: Connection,
    output: Connection,
}

/// A program that sends back what it gets, on one thread of its own.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    /// Where Linux tells what the thread has used.
    usage: String,
    /// Ends it when dropped.
    _stop: oneshot::Sender<()>,
}

impl RawKernel {
    /// Creates, starts and inspects a container made as `model` was, without its name and labels. How long Docker took.
    pub(crate) async fn like(model: &Json) -> (Self, Duration) {
        let docker = Docker::connect_with_unix_defaults().unwrap();
        let mut body = model["Config"].clone();
        body["HostConfig"] = model["HostConfig"].clone();
        body["HostConfig"]["PortBindings"] = unbound(&model["HostConfig"]["PortBindings"]);
        body["Labels"] = json!({});
        let body: ContainerCreateBody = serde_json::from_value(body).unwrap();
        let begun = Instant::now();
        let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
        docker.start_container(&id, None).await.unwrap();
        let inspected = docker.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap();
        let took = begun.elapsed();
        let networks = inspected.network_settings.unwrap().networks.unwrap();
        let host = networks.into_values().find_map(|network| network.ip_address).unwrap();
        (Self { docker, id, host }, took)
    }

    /// Waits until the runner listens and speaks. How long that took.
    pub(crate) async fn runner(&self) -> (RawRunner, Duration) {
        let begun = Instant::now();
        let mut runner = RawRunner::at(&self.host).await;
        runner.run("1+1").await;
        (runner, begun.elapsed())
    }

    /// Kills and removes it. How long Docker took.
    pub(crate) async fn remove(self) -> Duration {
        let begun = Instant::now();
        self.docker.kill_container(&self.id, None).await.unwrap();
        let force = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        self.docker.remove_container(&self.id, Some(force)).await.unwrap();
        begun.elapsed()
    }
}

impl RawRunner {
    /// Connects to the runner at this address, once it listens.
    pub(crate) async fn at(host: &str) -> Self {
        let input = greet(host, 2000, Kind::Push).await;
        let output = greet(host, 2001, Kind::Pull).await;
        Self { input, output }
    }

    /// Sends code and waits for its end. How many bytes it printed.
    pub(crate) async fn run(&mut self, code: &str) -> usize {
        self.input.put(frame::message(&Command::Code(code.to_owned()).encode()));
        self.input.flush().await.unwrap();
        let mut bytes = 0;
        loop {
            let message = tokio::time::timeout(secs(60), self.output.recv()).await.unwrap().unwrap();
            match Record::decode(&message.frames) {
                Ok(Record::Finished(_)) => return bytes,
                _ => bytes += message.frames.iter().map(bytes::Bytes::len).sum::<usize>(),
            }
        }
    }
}

impl Echo {
    /// About as long as a ping.
    pub(crate) const MESSAGE: usize = 64;

    pub(crate) fn start() -> Self {
        let (started, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let thread = rustix::thread::gettid().as_raw_nonzero();
                let usage = format!("/proc/self/task/{thread}/schedstat");
                started.send((listener.local_addr().unwrap(), usage)).unwrap();
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(send_back(stream));
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        let (address, usage) = address.recv().unwrap();
        Self { address, usage, _stop: stop }
    }

    /// Processor time so far.
    pub(crate) fn processor(&self) -> Duration {
        let text = std::fs::read_to_string(&self.usage).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }
}

async fn send_back(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut message = [0; Echo::MESSAGE];
    while let Ok(count @ 1..) = stream.read(&mut message).await {
        if stream.write_all(&message[..count]).await.is_err() {
            return;
        }
    }
}

async fn greet(host: &str, port: u16, own: Kind) -> Connection {
    until("a runner that listens", secs(30), async || {
        let stream = TcpStream::connect((host, port)).await.ok()?;
        Connection::greet(stream, own, Caps::calls(64 << 20), KeepAlive::default()).await.ok()
    })
    .await
}

/// The same ports, at any free number of the host.
fn unbound(bindings: &Json) -> Json {
    let mut bindings = bindings.clone();
    for binding in
        bindings.as_object_mut().into_iter().flatten().filter_map(|(_, b)| b.as_array_mut()).flatten()
    {
        binding["HostPort"] = json!("");
    }
    bindings
}

/// What Docker knows of an agent's kernel, to make others like it.
pub(crate) async fn model(container: &str) -> Json {
    docker::inspect(container).await
}
