//! The way to the bucket.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};

use super::acl::PublicReadConnector;
use super::config::{Acl, S3Config};

/// There is no way to the bucket.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No TLS implementation was chosen for the process.
    #[error(
        "no rustls crypto provider is installed in this process; the program must do so before it opens the store"
    )]
    NoTls,
    /// The client could not be made.
    #[error("the S3 client can't be made")]
    Client(#[source] object_store::Error),
}

/// The client for these settings.
pub(super) fn client(config: &S3Config) -> Result<AmazonS3, BucketError> {
    // The HTTP client would panic without one.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(BucketError::NoTls);
    }
    let keys = &config.keys;
    let plain_http = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
    let options = ClientOptions::new()
        .with_allow_http(plain_http)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(60));
    let mut builder = AmazonS3Builder::new()
        .with_region(&config.region)
        .with_bucket_name(&config.bucket)
        .with_access_key_id(keys.access_key.expose())
        .with_secret_access_key(keys.secret_key.expose())
        .with_client_options(options)
        // TLS protects the bytes already, and hashing each part would hold a runtime thread for milliseconds.
        .with_unsigned_payload(!plain_http);
    if let Some(token) = &keys.session_token {
        builder = builder.with_token(token.expose());
    }
    builder = match &config.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.as_str().trim_end_matches('/')),
        // Amazon's certificates cover `{bucket}.s3…` only while the bucket's name has no dot.
        None => builder.with_virtual_hosted_style_request(!config.bucket.contains('.')),
    };
    if config.acl == Acl::PublicRead {
        builder = builder.with_http_connector(PublicReadConnector::new(&config.region, keys, !plain_http));
    }
    builder.build().map_err(BucketError::Client)
}
