//! Who this machine is: instance id, address, type and region (PROTOCOL section 5).
//!
//! On a machine of Amazon, Azure or Google the cloud's metadata service is asked, briefly; whatever it does
//! not say, and everything elsewhere, comes from the machine itself. Finding out never fails and never takes
//! long: each fact has a fallback. Owns no task.

mod config;
mod discover;
mod facts;
#[cfg(feature = "rooms")]
pub mod fuzz;
mod host;
mod instance_id;
mod memory;
mod metadata;
mod provider;

#[cfg(test)]
mod metadata_server;
#[cfg(test)]
mod tests;

pub use config::{IdentityConfig, MetadataUrls};
pub use discover::{Identity, discover};
pub use instance_id::{BadInstanceId, check_instance_id};
pub use provider::Provider;
