//! A Docker engine without containers: what an agent asks of one is answered from memory, at once. What is measured beside it is
//! the agent's own, to which it is an engine like any other.
//!
//! Each of its containers has an address of its own on the loopback interface, where a runner listens that does at once what it
//! is asked to ([`runner`]).

mod containers;
mod engine;
mod runner;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

pub(crate) use self::runner::{Flood, Runner};
use crate::support::kernel::config;
use crate::support::{Agent, Bed};

/// The one image that there is, without what kernel images' names begin with.
const LANG: &str = "stub:bench";

/// A running engine; its containers go when it is dropped.
pub(crate) struct Stub {
    socket: PathBuf,
    acceptor: JoinHandle<()>,
}

impl Stub {
    /// An engine without containers, with its socket in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("stub.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let containers = Arc::default();
        let acceptor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(engine::serve(stream, Arc::clone(&containers)));
            }
        });
        Self { socket, acceptor }
    }

    /// As `--docker-host` has it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// An agent of this engine that serves.
    pub(crate) async fn agent(&self, bed: &Bed) -> Agent {
        bed.agent(&["--docker-host", &self.host()]).await
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// What a kernel of the engine is created with.
pub(crate) fn stub_config() -> Json {
    let mut config = config(LANG);
    config["limits"]["mem_slot"] = json!(64);
    config
}
