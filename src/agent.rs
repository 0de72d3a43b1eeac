//! The composition root: what is started in which order, and stopped in which (PROTOCOL section 10).
//!
//! A life has three types, one after the other. [`Agent::bind`] takes everything that can fail on this machine, before
//! anybody else is told that there is an agent. [`Agent::pair`] waits for Docker and the manager, which are there in
//! the end, and starts the parts; it can be stopped but not fail. [`Running::run`] lasts until the agent is told to
//! stop, and then stops the parts in order (`agent/stop.rs`). Each part gets its own settings by value and handles of the parts
//! it needs; no part knows this one.

mod board;
mod callers;
pub mod config;
mod drain;
mod fence;
mod halt;
mod lock;
mod machine;
mod measure;
mod pair;
mod parts;
mod privacy;
pub mod reach;
mod rights;
mod running;
mod site;
mod socket;
mod stop;
mod systemd;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::board::Board;
use self::callers::Callers;
use self::config::{Changeable, Config};
use self::drain::Drain;
pub use self::halt::{Stop, WITH_KERNELS};
pub use self::lock::{Holder, LockError};
pub use self::running::Running;
use self::site::Shown;
use self::socket::Socket;
use crate::conditions::Need;
use crate::identity::{self, Identity, IdentityConfig};
use crate::kernel::labels::Owner;
use crate::kernel::notes::NotesDir;
use crate::rpc;
use crate::scratch::{DiskWatch, OutputStore, ScratchRoot};
use crate::telemetry::{Door, Meters, Telemetry};

/// Why the agent could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The scratch root can't be used.
    #[error(transparent)]
    Scratch(#[from] crate::scratch::ScratchError),
    /// Another agent has this one's scratch root or name.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// There is no way to the bucket of output files.
    #[error(transparent)]
    Bucket(#[from] crate::scratch::BucketError),
    /// The RPC port.
    #[error(transparent)]
    Listen(#[from] crate::zmtp::ListenError),
    /// The address for monitoring is taken, not ours, or not allowed.
    #[error("cannot serve metrics at {addr}; choose a free address of this machine with --metrics-addr")]
    Metrics {
        /// The address asked for.
        addr: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The operator's settings keep all of the machine from kernels.
    #[error(transparent)]
    Resources(#[from] crate::resources::NothingLeft),
    /// Not at the start: something that must never end did.
    #[error("a part of the agent broke, see above; kernels run on, start the agent again")]
    Broken,
}

/// An agent that has all that it needs of this machine, and that nobody else has heard of.
pub struct Agent {
    config: Config,
    /// What can be set anew; its first value is the config's.
    changes: watch::Receiver<Changeable>,
    identity: Identity,
    /// Whose kernels are this agent's.
    owner: Owner,
    scratch: ScratchRoot,
    notes: NotesDir,
    outputs: OutputStore,
    /// Where the manager calls.
    server: rpc::Server,
    /// How the agent's needs are met; served from now on, where it is served.
    board: Board,
    /// Watches the disks once Docker has said where its own is.
    disks: DiskWatch,
    /// What whoever looks is shown.
    shown: Arc<Shown>,
    /// Who may.
    callers: Callers,
    /// Where the node's figures go.
    meters: Meters,
    life: Life,
}

/// What ends with the agent.
struct Life {
    /// Ends whatever has no order of its own; cancelled at the end of the stop, or when a start is given up.
    end: CancellationToken,
    /// The tasks that end by it.
    tracker: TaskTracker,
    /// Keep other agents out, to the last moment.
    _locks: (Option<File>, Option<Arc<UnixListener>>),
    /// The local socket's file.
    _socket: Option<Socket>,
    /// Cancels `end`.
    _given_up: DropGuard,
}

/// Runs the agent until `stop`, then stops it in order; what can be set anew is as the newest of `changes` says. An error is
/// one of the start.
pub async fn run(
    config: Config,
    changes: watch::Receiver<Changeable>,
    telemetry: &Telemetry,
    stop: Stop,
) -> Result<(), StartError> {
    let binding = Box::pin(Agent::bind(config, changes, telemetry));
    let Some(agent) = stop.asked.run_until_cancelled(binding).await else { return Ok(()) };
    let agent = agent?;
    systemd::ready(agent.board.conditions(), &stop.asked, &agent.life.end, &agent.life.tracker);
    match agent.pair(&stop.asked).await? {
        Some(running) => running.run(stop).await,
        None => Ok(()),
    }
}

impl Agent {
    /// Takes everything that can fail on this machine: directories, locks, sockets, the settings of clients. Whatever
    /// fails, neither etcd nor the manager has been told of this agent, and a supervisor may try again as often as it
    /// likes.
    pub async fn bind(
        config: Config,
        changes: watch::Receiver<Changeable>,
        telemetry: &Telemetry,
    ) -> Result<Self, StartError> {
        tracing::info!(version = env!("BACKENDAI_VERSION"), namespace = config.cluster.namespace, "starting");
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        // The first of all: whoever watches a start sees it from its beginning, whatever it waits for.
        let (end, tracker) = (CancellationToken::new(), TaskTracker::new());
        let given_up = end.clone().drop_guard();
        let board = Board::default();
        board.starting("starting");
        let early = measure::measure_needs(telemetry.meters(), board.conditions());
        tracker.spawn(end.clone().run_until_cancelled_owned(early));
        let (namespace, conditions) = (config.cluster.namespace.clone(), board.conditions());
        let shown = Shown::new(namespace, conditions, telemetry.recent(), end.clone(), tracker.clone());
        let serve = |door| telemetry.serve(door, board.conditions(), shown.clone(), end.clone(), &tracker);
        if let Some(addr) = config.metrics_addr {
            let bound = TcpListener::bind(addr).await;
            serve(Door::Port(bound.map_err(|source| StartError::Metrics { addr, source })?));
        }
        let scratch = ScratchRoot::open(&config.scratch_root)?;
        let root_lock = lock::root(scratch.path(), &scratch.agent_dir())?;
        let (looked, min_free, quota) = (scratch.clone(), config.min_free, config.scratch_quota);
        let watched = tokio::task::spawn_blocking(move || {
            privacy::keep(&looked);
            rights::advise();
            if let Some(quota) = quota {
                looked.limit_kernels(quota);
            }
            DiskWatch::new(looked, min_free)
        })
        .await;
        let disks = watched.map_err(|_| StartError::Broken)?;
        board.set(Need::Disk, disks.trouble().borrow().clone());
        let outputs = OutputStore::new(config.s3.clone())?;
        let memory = Some(scratch.agent_dir().join("identity.json"));
        let identity = identity::discover(IdentityConfig { memory, ..config.identity.clone() }).await;
        let owner =
            Owner { namespace: config.cluster.namespace.clone(), instance: identity.instance_id.clone() };
        let socket = config.socket.path(&owner.namespace, &owner.instance);
        // It outlives a kill of the agent, and is on another file system than the scratch root as a rule.
        let shelter = socket.as_deref().and_then(Path::parent).map(Path::to_owned);
        let notes = NotesDir::new(scratch.agent_dir(), shelter);
        let name_lock = lock::name(&owner).await?.map(Arc::new);
        let callers =
            Callers::new(parts::map_watch(&changes, &tracker, &end, |changes| changes.trusted_peers.clone()));
        let at = SocketAddr::new(config.rpc_listen, config.agent_port).to_string();
        let server = rpc::Server::bind(&at, parts::rpc_limits(config.rpc), callers.admission())?;

        let drain = Drain::open(&scratch.agent_dir(), board.clone());
        shown.is_named(identity.instance_id.clone(), drain);
        let socket = socket.and_then(|path| socket::listen(&path, Some(&config.socket_group))).map(
            |(socket, listener)| {
                serve(Door::Socket(listener));
                socket
            },
        );
        if let Some(listener) = name_lock.clone() {
            let end = end.clone();
            tracker.spawn(async move { end.run_until_cancelled(lock::let_callers_go(&listener)).await });
        }
        let life =
            Life { end, tracker, _locks: (root_lock, name_lock), _socket: socket, _given_up: given_up };
        Ok(Self {
            config,
            changes,
            identity,
            owner,
            scratch,
            notes,
            outputs,
            server,
            board,
            disks,
            shown,
            callers,
            meters: telemetry.meters(),
            life,
        })
    }
}
