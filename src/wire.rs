//! Pure codecs for everything that crosses a process boundary: the RPC transport, events and runner records.
//!
//! Nothing here does I/O or looks at a clock. Each file cites where its facts come from: the section of
//! `docs/protocol.md`, and whether the manager relies on it (law) or the Python agent just does it (reference).
//!
//! - [`value`]: msgpack values, packed and unpacked with limits
//! - [`header`], [`call`], [`answer`]: the transport of `aiozmq.rpc`, both directions
//! - [`params`], [`request`]: from positional and keyword arguments to a typed request
//! - [`config`], [`limits`], [`lang`]: what a kernel is made of, as each series of managers says it
//! - [`reply`], [`service`]: the maps that requests are answered with
//! - [`event`]: what is pushed to the manager
//! - [`sample`]: a kernel's statistics, for Redis, answers and events
//! - [`record`], [`command`]: what a kernel's runner sends and is sent

pub mod answer;
pub mod call;
pub mod command;
pub mod config;
pub mod event;
#[cfg(feature = "rooms")]
pub mod fuzz;
pub mod header;
pub mod lang;
pub mod limits;
pub mod params;
pub mod record;
pub mod reply;
pub mod request;
pub mod sample;
pub mod service;
pub mod value;

pub use value::Value;
