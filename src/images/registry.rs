//! Which registry images come from, and how this machine proves that it may have them.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::list::PREFIX;
use crate::docker::Credentials;
use crate::secret::Secret;
use crate::wire::lang;

/// Docker Hub's name in a file of credentials.
const HUB: &str = "https://index.docker.io/v1/";

/// Where images are pulled from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `host[:port][/path]`, as it stands in front of a reference; `None` for Docker Hub.
    pub address: Option<String>,
    /// A `config.json` as `docker login` writes it; `None` pulls without credentials.
    pub docker_config: Option<PathBuf>,
}

/// The credentials can't be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file can't be read.
    #[error("could not read the registry's credentials in {path}: {source}; check --docker-config")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what `docker login` writes.
    #[error("{path} is not a config.json of Docker ({source}); write it with `docker login`")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause; it does not show the text.
        #[source]
        source: serde_json::Error,
    },
    /// The entry can't be used.
    #[error("{path} has no usable entry for {registry}: {reason}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The registry's name in it.
        registry: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Registry {
    /// Another registry, with the same file of credentials.
    pub(super) fn at(&self, address: &str) -> Self {
        Self { address: Some(address.to_owned()), docker_config: self.docker_config.clone() }
    }

    /// Its name in a file of credentials.
    pub(super) fn host(&self) -> &str {
        self.address.as_deref().map_or(HUB, host)
    }

    /// Whether the cluster's login is for this registry, `cluster` being what the cluster calls its own. `lablup`, or nothing,
    /// means the usual one of this machine.
    pub(super) fn is_cluster_s(&self, cluster: Option<&str>, usual: &Self) -> bool {
        let theirs = cluster.filter(|address| *address != lang::COMMON).map_or_else(|| usual.host(), host);
        self.host() == theirs
    }

    /// What the registry calls an image.
    pub(super) fn reference(&self, name_tag: &str) -> String {
        match &self.address {
            Some(address) => format!("{address}/{PREFIX}{name_tag}"),
            None => format!("{PREFIX}{name_tag}"),
        }
    }

    /// Read anew for each pull, so that a `docker login` is all that is needed to renew them. `None`: the registry is
    /// asked without.
    pub(super) async fn credentials(&self) -> Result<Option<Credentials>, CredentialsError> {
        let Some(path) = &self.docker_config else { return Ok(None) };
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|source| CredentialsError::Read { path: path.clone(), source })?;
        self.credentials_in(&text, path)
    }

    pub(super) fn credentials_in(
        &self,
        text: &str,
        path: &Path,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let parsed = serde_json::from_str(text);
        let config: ConfigJson =
            parsed.map_err(|source| CredentialsError::Parse { path: path.to_owned(), source })?;
        let host = self.host();
        let unusable =
            |reason| CredentialsError::Entry { path: path.to_owned(), registry: host.to_owned(), reason };
        let Some(entry) = config.auths.iter().find(|(name, _)| is_named(name, host)).map(|(_, entry)| entry)
        else {
            return Ok(None);
        };
        if let Some(token) = &entry.identitytoken {
            return Ok(Some(Credentials::token(host, token.clone())));
        }
        let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.expose().is_empty()) else {
            return Err(unusable(
                "its password is kept by a credential helper; log in with one that is not used",
            ));
        };
        let decoded = BASE64_STANDARD.decode(auth.expose().trim());
        let decoded = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => Ok(Some(Credentials::password(host, user, Secret::new(password)))),
            None => Err(unusable("its `auth` is not base64 of user:password")),
        }
    }
}

/// Whose registry `address/…` is, as Docker reads it: without a dot, a port or `localhost` in front, all of it is a name at
/// Docker Hub.
fn host(address: &str) -> &str {
    let first = address.split('/').next().unwrap_or(address);
    let is_host = first == "localhost" || first.contains(['.', ':']);
    if is_host && !lang::HUBS.contains(&first) { first } else { HUB }
}

/// Old releases of `docker login` wrote a URL.
fn is_named(name: &str, host: &str) -> bool {
    let bare = |text: &str| {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        text.split('/').next().unwrap_or(text).to_owned()
    };
    name == host || bare(name) == bare(host)
}

/// The part of Docker's file that matters here.
#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize)]
struct AuthEntry {
    /// `user:password` in base64.
    #[serde(default, deserialize_with = "secret")]
    auth: Option<Secret>,
    /// In place of a password, from registries that give tokens out.
    #[serde(default, deserialize_with = "secret")]
    identitytoken: Option<Secret>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: Option<&str>, text: &str) -> Result<Option<Credentials>, String> {
        let registry = Registry { address: address.map(str::to_owned), docker_config: None };
        registry.credentials_in(text, Path::new("/c.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn credentials_are_those_of_the_registry() {
        let text = r#"{"auths": {"r:5000": {"auth": "bWU6aHVudGVyOjI="}, "https://index.docker.io/v1/": {"auth": "YTpi"},
            "https://old.example/v1/": {"identitytoken": "tok"}, "helped:1": {}}, "credsStore": "x"}"#;
        let found = read(Some("r:5000/mirror"), text).unwrap().unwrap();
        assert_eq!(found, Credentials::password("r:5000", "me", Secret::new("hunter:2")));
        assert!(!format!("{found:?}").contains("hunter"));
        assert_eq!(read(None, text).unwrap(), Some(Credentials::password(HUB, "a", Secret::new("b"))));
        assert_eq!(
            read(Some("old.example"), text).unwrap(),
            Some(Credentials::token("old.example", Secret::new("tok")))
        );
        assert_eq!(read(Some("other.example"), text), Ok(None));
        assert_eq!(read(Some("team"), text), read(None, text), "a user of Docker Hub's");
        assert!(read(Some("helped:1"), text).unwrap_err().contains("credential helper"));
        assert_eq!(read(None, "{}"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for bad in [
            r#"{"auths": {"r:1": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"r:1": {"auth": "aHVudGVyMg=="}}}"#,
            "hunter2",
        ] {
            let error = read(Some("r:1"), bad).unwrap_err();
            assert!(error.contains("/c.json") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_cluster_s_login_is_for_its_own_registry_and_no_other() {
        let at =
            |address: Option<&str>| Registry { address: address.map(str::to_owned), docker_config: None };
        for (pulled_from, cluster, usual, is_shown) in [
            (None, None, None, true),
            (None, Some("lablup"), None, true),
            (Some("r:5000"), Some("lablup"), Some("r:5000/mirror"), true),
            (Some("team"), Some("lablup"), None, true),
            (Some("r:5000"), Some("r:5000/lablup"), None, true),
            (Some("docker.io/team"), Some("team"), Some("r:5000"), true),
            (Some("r:5000"), Some("lablup"), None, false),
            (Some("r:5000"), None, Some("other:5000"), false),
            (Some("r:5000"), Some("other.example/lablup"), Some("r:5000"), false),
            (None, Some("r:5000/lablup"), None, false),
            (Some("localhost"), Some("localhost:5000"), None, false),
        ] {
            let shown = at(pulled_from).is_cluster_s(cluster, &at(usual));
            assert_eq!(shown, is_shown, "{pulled_from:?} of {cluster:?}, usually {usual:?}");
        }
    }

    #[test]
    fn a_registry_stands_in_front_of_the_name() {
        let registry = Registry { address: Some("r:5000/mirror".into()), docker_config: None };
        assert_eq!(registry.reference("python:3"), "r:5000/mirror/lablup/kernel-python:3");
        assert_eq!(Registry::default().reference("python:3"), "lablup/kernel-python:3");
    }
}
