//! Settings by which the agent is known to etcd and Redis, and files that hold secrets in place of options.
//!
//! A secret comes from, the first of these that there is: its option or variable, the file that its `-file` option
//! names, and the credential of its name that systemd hands over (`LoadCredential=etcd-password:/etc/…`).

// The doc comments of fields are the help texts, which a terminal shows as they are.
#![allow(clippy::doc_markdown)]

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;

use super::values::{self, wants};
use crate::cluster::EtcdAccess;
use crate::secret::Secret;
use crate::stats::RedisAccess;
use crate::telemetry::SentryDsn;
use crate::tls::{ClientFiles, TlsFiles};

/// No secret is longer; a file that is was given by mistake.
const LARGEST_SECRET: u64 = 64 << 10;

/// Who the agent is at etcd and Redis, and files with secrets.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access (a secret may also be a systemd credential of its option's name)")]
pub(super) struct AccessOpts {
    /// This agent's user at etcd
    #[arg(long, env = "BACKEND_ETCD_USER", value_name = "NAME")]
    #[arg(value_parser = wants("a text on one line", values::text))]
    pub(super) etcd_user: Option<String>,
    /// The password of that user
    #[arg(long, env = "BACKEND_ETCD_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) etcd_password: Option<Secret>,
    /// A file with the password
    #[arg(long, env = "BACKEND_ETCD_PASSWORD_FILE", value_name = "FILE", value_parser = secret_file)]
    pub(super) etcd_password_file: Option<Secret>,
    /// Speak TLS with etcd, which shows a certificate that these (PEM) vouch for
    #[arg(long, env = "BACKEND_ETCD_CA", value_name = "FILE", value_parser = pem)]
    pub(super) etcd_ca: Option<PathBuf>,
    /// The certificate that the agent shows etcd
    #[arg(long, env = "BACKEND_ETCD_CERT", value_name = "FILE", value_parser = pem)]
    #[arg(requires_all = ["etcd_key", "etcd_ca"])]
    pub(super) etcd_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, env = "BACKEND_ETCD_KEY", value_name = "FILE", value_parser = pem, requires = "etcd_cert")]
    pub(super) etcd_key: Option<PathBuf>,
    /// This agent's user at Redis (6 or newer)
    #[arg(long, env = "BACKEND_REDIS_USER", value_name = "NAME")]
    #[arg(value_parser = wants("a text on one line", values::text))]
    pub(super) redis_user: Option<String>,
    /// The password at Redis
    #[arg(long, env = "BACKEND_REDIS_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) redis_password: Option<Secret>,
    /// A file with the password
    #[arg(long, env = "BACKEND_REDIS_PASSWORD_FILE", value_name = "FILE", value_parser = secret_file)]
    pub(super) redis_password_file: Option<Secret>,
    /// Speak TLS with Redis, which shows a certificate that these (PEM) vouch for
    #[arg(long, env = "BACKEND_REDIS_CA", value_name = "FILE", value_parser = pem)]
    pub(super) redis_ca: Option<PathBuf>,
    /// The certificate that the agent shows Redis
    #[arg(long, env = "BACKEND_REDIS_CERT", value_name = "FILE", value_parser = pem)]
    #[arg(requires_all = ["redis_key", "redis_ca"])]
    pub(super) redis_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, env = "BACKEND_REDIS_KEY", value_name = "FILE", value_parser = pem, requires = "redis_cert")]
    pub(super) redis_key: Option<PathBuf>,
    /// A file with the AWS key, for --aws-access-key-id
    #[arg(long, env = "AWS_ACCESS_KEY_ID_FILE", value_name = "FILE", value_parser = secret_file)]
    pub(super) aws_access_key_id_file: Option<Secret>,
    /// The same for --aws-secret-access-key
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY_FILE", value_name = "FILE", value_parser = secret_file)]
    pub(super) aws_secret_access_key_file: Option<Secret>,
    /// The same for --aws-session-token
    #[arg(long, env = "AWS_SESSION_TOKEN_FILE", value_name = "FILE", value_parser = secret_file)]
    pub(super) aws_session_token_file: Option<Secret>,
    /// A file with the Sentry DSN, for --raven-uri
    #[arg(long, env = "RAVEN_URI_FILE", value_name = "FILE", value_parser = sentry_file)]
    pub(super) raven_uri_file: Option<SentryDsn>,
}

impl AccessOpts {
    /// Whether only one of etcd's user and password is given.
    pub(super) fn is_half(&self) -> bool {
        let has_password = self.etcd_password.is_some() || self.etcd_password_file.is_some();
        self.etcd_user.is_some() != has_password
    }

    /// Who the agent is at etcd, and at Redis.
    pub(super) fn access(self) -> (EtcdAccess, RedisAccess) {
        let etcd = EtcdAccess {
            user: self.etcd_user.zip(self.etcd_password.or(self.etcd_password_file)),
            tls: tls(self.etcd_ca, self.etcd_cert.zip(self.etcd_key)),
        };
        let redis = RedisAccess {
            user: self.redis_user,
            password: self.redis_password.or(self.redis_password_file),
            tls: tls(self.redis_ca, self.redis_cert.zip(self.redis_key)),
        };
        (etcd, redis)
    }
}

fn tls(ca: Option<PathBuf>, client: Option<(PathBuf, PathBuf)>) -> Option<TlsFiles> {
    let client = client.map(|(cert, key)| ClientFiles { cert, key });
    ca.map(|ca| TlsFiles { ca, client })
}

/// The options that name a file which systemd may hand over: those of secrets, and the certificates and keys. Its
/// credential has the option's name without `-file`.
const CREDENTIALS: [&str; 13] = [
    "etcd-password-file",
    "etcd-ca",
    "etcd-cert",
    "etcd-key",
    "redis-password-file",
    "redis-ca",
    "redis-cert",
    "redis-key",
    "aws-access-key-id-file",
    "aws-secret-access-key-file",
    "aws-session-token-file",
    "raven-uri-file",
    "docker-config",
];

/// The arguments that name the credentials in `directory` (`$CREDENTIALS_DIRECTORY`), but for options that are set: among
/// `args`, or by their variables, as `is_set` tells by an option's name.
pub(super) fn credentials(
    directory: &Path,
    args: &[OsString],
    is_set: impl Fn(&str) -> bool,
) -> Vec<OsString> {
    let is_given = |option: &str| {
        let flag = format!("--{option}");
        args.iter().any(|arg| arg.to_str().is_some_and(|arg| arg.split('=').next() == Some(&flag)))
    };
    let mut found = Vec::new();
    for option in CREDENTIALS {
        let name = option.strip_suffix("-file").unwrap_or(option);
        let path = directory.join(name);
        if path.is_file() && ![option, name].iter().any(|option| is_given(option) || is_set(option)) {
            let mut argument = OsString::from(format!("--{option}="));
            argument.push(path);
            found.push(argument);
        }
    }
    found
}

/// The secret in a file, without the end of its line.
fn secret_file(text: &str) -> Result<Secret, String> {
    let found = contents(text)?;
    values::secret(&found).ok_or_else(|| "the file must hold the secret on one line".to_owned())
}

fn sentry_file(text: &str) -> Result<SentryDsn, String> {
    contents(text)?.parse().map_err(|error: crate::telemetry::BadSentryDsn| error.to_string())
}

fn contents(path: &str) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {error}");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > LARGEST_SECRET {
        return Err("is no file that could hold one secret".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A file in PEM form; read again for each connection.
fn pem(text: &str) -> Result<PathBuf, String> {
    let path =
        std::path::absolute(OsStr::new(text)).map_err(|error| format!("cannot be made absolute: {error}"))?;
    let found = std::fs::read_to_string(&path).map_err(|error| format!("can't be read: {error}"))?;
    if found.contains("-----BEGIN ") { Ok(path) } else { Err("is no file in PEM form".to_owned()) }
}

#[cfg(test)]
mod tests;
