//! The Backend.AI agent: runs kernels (Docker containers) on a worker machine for a Backend.AI manager.
//!
//! # The map
//!
//! Rooms from the ground up; each may use those above it in this list, and none below (`tests/tidy`).
//!
//! | room | what lives there | look here to change |
//! | --- | --- | --- |
//! | [`ids`] | kernel, container, run and instance ids | what counts as an id |
//! | [`address`] | `host:port` | what counts as an address |
//! | [`secret`] | what is never shown | |
//! | [`tls`] | the files that make a connection private | |
//! | [`units`] | memory, cores, GPUs | how the manager's numbers are read |
//! | [`patience`] | pauses between attempts, and which failures are logged | how patient the agent is |
//! | [`programs`] | the system's own programs, run within a limit | |
//! | [`conditions`] | what the agent's work needs, and what it gives up without | when slots are offered, what `/readyz` lists |
//! | [`nearest`] | the name that was meant | |
//! | [`wire`] | pure codecs: RPC transport, requests, replies, events, runner records | a byte that anybody else sees |
//! | [`figures`] | what is counted and measured, for Prometheus: the table of all series | a metric |
//! | [`zmtp`] | ZeroMQ: its wire protocol over tokio, with limits on all that a peer decides | how a peer is spoken to |
//! | [`docker`] | the engine, each call with a deadline; knows no kernels | how Docker is asked |
//! | [`firewall`] | what kernels' containers may not reach, as rules of the packet filter | a service that kernels don't see |
//! | [`cluster`] | etcd: the manager's settings, our presence, the image catalogue | keys in etcd |
//! | [`resources`] | CPU map, GPUs; an allocation frees itself | who gets which cores |
//! | [`stats`] | cgroups and Docker → a sample; the Redis store | a figure in Redis |
//! | [`scratch`] | scratch directories, uploads, output files, S3, virtual folders | a path on the host |
//! | [`identity`] | instance id, address and region; the clouds | how a machine names itself |
//! | [`events`] | the one queue to the manager | what waits when the manager is away |
//! | [`runner`] | one kernel's REPL: run queue, output, completions | how a run behaves |
//! | [`images`] | the list of kernel images, their labels, updates | which images the manager sees |
//! | [`kernel`] | a kernel's life: create, restart, end, recover, reconcile | when a kernel begins or ends |
//! | [`heartbeat`] | the 3 s beat | what a heartbeat says |
//! | [`rpc`] | the server, the method table, exception names | what a method does |
//! | [`status`] | what a running agent says of itself: the document and its page | `/status` |
//! | [`telemetry`] | log, metrics, health, Sentry, `DogStatsD`; knows no other room | a log line's form |
//! | [`agent`] | the composition root: start and stop as straight lines | the order of the start |
//! | [`dev`] | the etcd, Redis and manager of `backendai-agent dev` | what there is to try the agent with |
//! | [`client`], [`cli`] | the operator's commands and settings | a flag |
//!
//! "PROTOCOL section N" in the comments is `docs/protocol.md`: what the agent speaks. ARCHITECTURE.md tells what holds
//! the rooms together and why.
//!
//! Rooms are private unless `main`, the benches or a test of the wire need them, so that the compiler names what nobody
//! uses. The feature `rooms` opens all of them to `tests/rooms`; whatever is open then has docs.

// What a room offers to its tests alone is unused without them.
#![cfg_attr(not(feature = "rooms"), allow(unused_imports))]
#![cfg_attr(feature = "rooms", warn(unreachable_pub))]

mod address;
mod agent;
pub mod cli;
mod client;
mod cluster;
pub mod conditions;
mod dev;
mod docker;
mod events;
mod figures;
mod firewall;
mod heartbeat;
mod identity;
pub mod ids;
mod images;
mod kernel;
mod nearest;
mod patience;
mod programs;
mod resources;
mod rpc;
mod runner;
mod scratch;
mod secret;
mod stats;
mod status;
pub mod telemetry;
mod tls;
mod units;
pub mod wire;
pub mod zmtp;

/// The rooms that only this crate uses, opened to `tests/rooms` and the benches by the feature `rooms`.
#[cfg(feature = "rooms")]
pub mod rooms {
    macro_rules! open {
        ($($room:ident)*) => {$(
            #[doc = concat!("All that `", stringify!($room), "` offers to other rooms.")]
            pub mod $room {
                pub use crate::$room::*;
            }
        )*};
    }

    open! { address agent client cluster dev docker events figures firewall heartbeat identity images kernel nearest }
    open! { patience programs resources rpc runner scratch secret stats status tls units zmtp }
}
