//! Which files make a connection to a server private, and say who this agent is there.

use std::io;
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// Files in PEM form. Read for each connection, so that renewed ones are taken up without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of those who vouch for the server.
    pub ca: PathBuf,
    /// Who this agent is, where the server wants to know.
    pub client: Option<ClientFiles>,
}

/// Who this agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// Its certificate, and those that lead to it.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What the files held.
#[derive(Debug)]
pub struct Pems {
    /// The certificates of those who vouch for the server.
    pub ca: Vec<u8>,
    /// Certificate and key of this agent.
    pub client: Option<(Vec<u8>, Secret<Vec<u8>>)>,
}

/// A file that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{path} can't be read; check that it is there and that the agent's user may read it")]
pub struct TlsFileError {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl TlsFiles {
    /// Reads them.
    pub async fn read(&self) -> Result<Pems, TlsFileError> {
        let client = match &self.client {
            Some(ClientFiles { cert, key }) => Some((read(cert).await?, Secret::new(read(key).await?))),
            None => None,
        };
        Ok(Pems { ca: read(&self.ca).await?, client })
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    tokio::fs::read(path).await.map_err(|source| TlsFileError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_named_and_no_key_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let client = ClientFiles { cert: at("cert"), key: at("key") };
        let files = TlsFiles { ca: at("ca"), client: Some(client) };
        for name in ["cert", "key", "ca"] {
            let error = files.read().await.unwrap_err();
            assert!(error.path.ends_with(name), "{error}");
            std::fs::write(at(name), format!("secret {name}")).unwrap();
        }
        let read = files.read().await.unwrap();
        assert_eq!(read.ca, b"secret ca");
        let (cert, key) = read.client.as_ref().unwrap();
        assert_eq!((cert.as_slice(), key.expose().as_slice()), (&b"secret cert"[..], &b"secret key"[..]));
        assert!(!format!("{key:?}").contains("secret key"));
    }
}
