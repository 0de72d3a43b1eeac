//! Which bucket it is, and how its objects are offered. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::secret::Secret;

/// Who may read uploaded files (`--s3-acl`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acl {
    /// Who has the presigned URL, until it expires.
    #[default]
    Private,
    /// Anybody, for ever, by a plain URL: the reference's behaviour.
    PublicRead,
}

/// Where output files go.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket's region; not empty.
    pub region: String,
    /// The bucket; not empty.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: KeyPrefix,
    /// Whose bucket it is.
    pub keys: S3Keys,
    /// A server other than Amazon's, addressed as `{endpoint}/{bucket}/{key}`: http or https, without a query.
    pub endpoint: Option<Url>,
    /// Who may read.
    pub acl: Acl,
    /// How long a presigned URL lasts: from a second to the 7 days that S3 accepts.
    pub url_expiry: Duration,
}

/// The keys to an account.
#[derive(Debug, Clone)]
pub struct S3Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key: Secret,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Secret,
    /// `AWS_SESSION_TOKEN`, of temporary keys. Presigned URLs end with the token, however long they were to last.
    pub session_token: Option<Secret>,
}

/// What keys of objects begin with, without slashes at its ends; may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(String);

/// The text can't begin an object's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a path within the bucket, without '.', '..', '//' and control characters")]
pub struct BadKeyPrefix;

impl FromStr for KeyPrefix {
    type Err = BadKeyPrefix;

    fn from_str(text: &str) -> Result<Self, BadKeyPrefix> {
        let prefix = text.trim_matches('/');
        object_store::path::Path::parse(prefix).map_err(|_| BadKeyPrefix)?;
        Ok(Self(prefix.to_owned()))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyPrefix {
    /// The prefix.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_path_in_the_bucket() {
        for (text, prefix) in [("/a/b/", "a/b"), ("bucket", "bucket"), ("/", ""), ("", "")] {
            assert_eq!(text.parse(), Ok(KeyPrefix(prefix.to_owned())));
        }
        for bad in ["a//b", "a/../b", ".", "a\0"] {
            assert_eq!(bad.parse::<KeyPrefix>(), Err(BadKeyPrefix), "{bad:?}");
        }
    }

    #[test]
    fn no_key_is_shown() {
        let secret = |text: &str| Secret::new(text);
        let token = Some(secret("token2"));
        let keys = S3Keys { access_key: secret("AKID"), secret_key: secret("hunter2"), session_token: token };
        let shown = format!("{keys:?}");
        assert!(!["AKID", "hunter2", "token2"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}
