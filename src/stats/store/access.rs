//! Who the agent is at Redis, and the way there.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates,
};
use tokio::net::TcpStream;

use super::capped::Capped;
use super::error::StoreError;
use crate::address::HostPort;
use crate::secret::Secret;
use crate::tls::TlsFiles;

/// The most bytes that Redis answers to one pipeline: two short words a kernel, errors included.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Who the agent is at Redis. The default is nobody, over connections that everybody on the way can read.
#[derive(Debug, Clone, Default)]
pub struct RedisAccess {
    /// Its name, where Redis has users (from 6 on).
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// What makes the connections private.
    pub tls: Option<TlsFiles>,
}

impl RedisAccess {
    /// Connects to database 0. The limits are the job's, not the library's. A Redis that serves nobody without a password says
    /// so to a short command; it hangs up on one as long as ours.
    pub(super) async fn connect(&self, address: &HostPort) -> Result<MultiplexedConnection, StoreError> {
        let certificates = match &self.tls {
            Some(files) => Some(certificates(files).await?),
            None => None,
        };
        let failed = |source: redis::RedisError| match source.code() {
            Some("NOAUTH") => StoreError::Password { address: address.clone(), source },
            _ => StoreError::Connect { address: address.clone(), source },
        };
        let limits = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection = match certificates {
            Some(certificates) => {
                let client = self.client(address, certificates).map_err(failed)?;
                client.get_multiplexed_async_connection_with_config(&limits).await.map_err(failed)?
            }
            None => self.connect_openly(address, limits).await.map_err(failed)?,
        };
        redis::cmd("PING").exec_async(&mut connection).await.map_err(failed)?;
        Ok(connection)
    }

    /// Over a connection that everybody on the way can read, and that ends when the other side floods it.
    async fn connect_openly(
        &self,
        HostPort { host, port }: &HostPort,
        limits: AsyncConnectionConfig,
    ) -> redis::RedisResult<MultiplexedConnection> {
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let stream = Capped::new(stream, LARGEST_ANSWER);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.settings(), stream, limits).await?;
        // Ends when the connection is dropped or breaks.
        tokio::spawn(driver);
        Ok(connection)
    }

    /// For connections that a certificate vouches for.
    fn client(&self, address: &HostPort, certificates: TlsCertificates) -> redis::RedisResult<Client> {
        let HostPort { host, port } = address.clone();
        let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        let info = address.into_connection_info()?.set_redis_settings(self.settings());
        Client::build_with_tls(info, certificates)
    }

    pub(super) fn settings(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        settings
    }
}

async fn certificates(files: &TlsFiles) -> Result<TlsCertificates, StoreError> {
    let pems = files.read().await.map_err(StoreError::Tls)?;
    let client = |(cert, key): (Vec<u8>, Secret<Vec<u8>>)| ClientTlsConfig {
        client_cert: cert,
        client_key: key.expose().clone(),
    };
    Ok(TlsCertificates { client_tls: pems.client.map(client), root_cert: Some(pems.ca) })
}
