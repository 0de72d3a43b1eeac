//! The way to a Redis that nobody else can read.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::Pems;

/// What may be wrong with a certificate or a key.
pub(super) type BadPem = Box<dyn Error + Send + Sync>;

/// What the connection to `host` is made private with, out of the files' contents.
pub(super) struct Private {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl Private {
    pub(super) fn new(host: &str, pems: &Pems) -> Result<Self, BadPem> {
        let mut vouching = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pems.ca) {
            vouching.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(vouching);
        let tls = match &pems.client {
            Some((certificates, key)) => {
                let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>()?;
                tls.with_client_auth_cert(certificates, PrivateKeyDer::from_pem_slice(key.expose())?)?
            }
            None => tls.with_no_client_auth(),
        };
        let server = ServerName::try_from(host.to_owned())?;
        Ok(Self { connector: TlsConnector::from(Arc::new(tls)), server })
    }

    /// Makes an open connection private. What the other side says until then is bounded by the library.
    pub(super) async fn secure(self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.server, stream).await
    }
}
