//! Output files put to S3 or something that speaks like it (PROTOCOL section 8, and section 12, item 31).
//!
//! Each file becomes the object `{prefix}/{kernel id}/{relative path}`, private unless asked otherwise, and its user
//! gets a presigned GET. A file that can't be uploaded in time is left out of the answer and logged; it never fails
//! the run. One node uploads at most [`store::PARALLEL_FILES`] files at a time, in parts, so that memory stays
//! bounded whatever kernels produce. An upload in parts that ends early is aborted in the background (`upload`),
//! so that no invisible parts are billed; after a crash of the agent only a lifecycle rule of the bucket can do that.

mod acl;
mod client;
mod config;
mod object;
mod store;
mod upload;

pub use client::BucketError;
pub use config::{Acl, BadKeyPrefix, KeyPrefix, S3Config, S3Keys};
pub use store::OutputStore;

#[cfg(test)]
mod tests;
