//! How to reach the bucket.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use url::Url;

use super::acl::PublicReadConnector;
use crate::secret::Secret;

/// The longest life of a presigned URL that S3 accepts.
const MAX_URL_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Who may read uploaded files (`--s3-acl`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acl {
    /// Who has the presigned URL, until it expires.
    #[default]
    Private,
    /// Anybody, for ever, by a plain URL: the reference's behaviour.
    PublicRead,
}

/// Where output files go. Keys that are absent or empty mean that nothing is uploaded.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// `AWS_REGION`, `ap-northeast-1` by default.
    pub region: String,
    /// `AWS_S3_BUCKET`, `codeonweb` by default.
    pub bucket: String,
    /// `AWS_S3_BUCKET_PATH`, `bucket` by default: what all keys begin with. Slashes at its ends don't matter, and
    /// it may be empty.
    pub prefix: String,
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key: Option<Secret>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Option<Secret>,
    /// `AWS_SESSION_TOKEN`, for temporary keys. Presigned URLs end with the token, however long they were to last.
    pub session_token: Option<Secret>,
    /// `AWS_ENDPOINT_URL`: a server other than Amazon's, addressed as `{endpoint}/{bucket}/{key}`; http is allowed.
    pub endpoint: Option<Url>,
    /// Who may read.
    pub acl: Acl,
    /// How long a presigned URL lasts (`--s3-url-expiry`); more than 7 days are cut to that.
    pub url_expiry: Duration,
}

/// The settings for S3 can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// One key without the other.
    #[error(
        "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set: set both, or neither to upload nothing"
    )]
    HalfTheKeys,
    /// Something is set to nothing.
    #[error("{0} is empty: set it, or unset the AWS keys to upload nothing")]
    Empty(&'static str),
    /// URLs that would have expired at once.
    #[error("--s3-url-expiry must be at least one second")]
    NoExpiry,
    /// The endpoint is no web address.
    #[error("AWS_ENDPOINT_URL must be an http:// or https:// address without a query, not {0}")]
    Endpoint(Url),
    /// The prefix can't begin a key.
    #[error(
        "AWS_S3_BUCKET_PATH {0:?} can't begin an object's key: it holds '.' or '..' as a part, '//' or a control character"
    )]
    Prefix(String),
    /// No TLS implementation was chosen for the process.
    #[error(
        "no rustls crypto provider is installed in this process; the program must do so before it opens the store"
    )]
    NoTls,
    /// The client could not be made.
    #[error("the S3 client can't be made: {0}")]
    Client(#[source] object_store::Error),
}

impl S3Config {
    /// The keys, if there are any.
    pub(super) fn keys(&self) -> Result<Option<(&Secret, &Secret)>, StoreError> {
        let present = |key: &'_ Option<Secret>| key.as_ref().is_some_and(|key| !key.expose().is_empty());
        match (&self.access_key, &self.secret_key) {
            (Some(access), Some(secret)) if present(&self.access_key) && present(&self.secret_key) => {
                Ok(Some((access, secret)))
            }
            _ if present(&self.access_key) || present(&self.secret_key) => Err(StoreError::HalfTheKeys),
            _ => Ok(None),
        }
    }

    /// Everything that can be wrong without asking the server; `url_expiry` is brought into S3's limits.
    pub(super) fn checked(mut self) -> Result<Self, StoreError> {
        for (name, value) in [("AWS_REGION", &self.region), ("AWS_S3_BUCKET", &self.bucket)] {
            if value.is_empty() {
                return Err(StoreError::Empty(name));
            }
        }
        if let Some(endpoint) = &self.endpoint
            && (!matches!(endpoint.scheme(), "http" | "https") || endpoint.query().is_some())
        {
            return Err(StoreError::Endpoint(endpoint.clone()));
        }
        let prefix = self.prefix.trim_matches('/').to_owned();
        if object_store::path::Path::parse(&prefix).is_err() {
            return Err(StoreError::Prefix(self.prefix));
        }
        self.prefix = prefix;
        if self.url_expiry < Duration::from_secs(1) {
            return Err(StoreError::NoExpiry);
        }
        if self.url_expiry > MAX_URL_EXPIRY {
            tracing::warn!(asked = ?self.url_expiry, "S3 signs URLs for at most 7 days; --s3-url-expiry is cut to that");
            self.url_expiry = MAX_URL_EXPIRY;
        }
        Ok(self)
    }

    /// The client for checked settings.
    pub(super) fn client(&self, access: &Secret, secret: &Secret) -> Result<AmazonS3, StoreError> {
        // The HTTP client would panic without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(StoreError::NoTls);
        }
        let plain_http = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
        let options = ClientOptions::new()
            .with_allow_http(plain_http)
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(60));
        let mut builder = AmazonS3Builder::new()
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(access.expose())
            .with_secret_access_key(secret.expose())
            .with_client_options(options)
            // TLS protects the bytes already, and hashing each part would hold a runtime thread for milliseconds.
            .with_unsigned_payload(!plain_http);
        let token = self.session_token.as_ref().filter(|token| !token.expose().is_empty());
        if let Some(token) = token {
            builder = builder.with_token(token.expose());
        }
        builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.as_str().trim_end_matches('/')),
            // Amazon's certificates cover `{bucket}.s3…` only while the bucket's name has no dot.
            None => builder.with_virtual_hosted_style_request(!self.bucket.contains('.')),
        };
        if self.acl == Acl::PublicRead {
            builder = builder.with_http_connector(PublicReadConnector::new(
                &self.region,
                access,
                secret,
                token,
                !plain_http,
            ));
        }
        builder.build().map_err(StoreError::Client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            region: "ap-northeast-1".into(),
            bucket: "codeonweb".into(),
            prefix: "/bucket/".into(),
            access_key: Some(Secret::new("AKIDEXAMPLE")),
            secret_key: Some(Secret::new("hunter2")),
            session_token: Some(Secret::new("token2")),
            endpoint: None,
            acl: Acl::Private,
            url_expiry: Duration::from_secs(60),
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", config());
        assert!(!["AKID", "hunter2", "token2"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }

    #[test]
    fn half_the_keys_is_a_mistake_and_none_is_a_choice() {
        assert!(config().keys().unwrap().is_some());
        let empty = Some(Secret::new(""));
        for (access, secret) in [(None, None), (empty.clone(), None), (empty.clone(), empty.clone())] {
            let config = S3Config { access_key: access, secret_key: secret, ..config() };
            assert!(config.keys().unwrap().is_none());
        }
        let half = S3Config { secret_key: empty, ..config() };
        assert!(matches!(half.keys(), Err(StoreError::HalfTheKeys)));
        let half = S3Config { access_key: None, ..config() };
        assert!(matches!(half.keys(), Err(StoreError::HalfTheKeys)));
    }

    #[test]
    fn settings_are_checked_and_brought_into_limits() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let checked = S3Config { url_expiry: week * 2, ..config() }.checked().unwrap();
        assert_eq!((checked.prefix.as_str(), checked.url_expiry), ("bucket", week));
        assert_eq!(S3Config { prefix: "/".into(), ..config() }.checked().unwrap().prefix, "");
        let refused = |config: S3Config| config.checked().unwrap_err();
        assert!(matches!(refused(S3Config { url_expiry: Duration::ZERO, ..config() }), StoreError::NoExpiry));
        assert!(matches!(refused(S3Config { bucket: String::new(), ..config() }), StoreError::Empty(_)));
        assert!(matches!(refused(S3Config { prefix: "a//b".into(), ..config() }), StoreError::Prefix(_)));
        assert!(matches!(refused(S3Config { prefix: "a/../b".into(), ..config() }), StoreError::Prefix(_)));
        let endpoint = Some("ftp://host".parse().unwrap());
        assert!(matches!(refused(S3Config { endpoint, ..config() }), StoreError::Endpoint(_)));
    }
}
