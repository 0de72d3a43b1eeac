//! Who the agent is at Redis, and the way there.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates,
};

use super::error::StoreError;
use crate::address::HostPort;
use crate::secret::Secret;
use crate::tls::TlsFiles;

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
        let client = self.client(address, certificates).map_err(failed)?;
        let limits = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&limits).await.map_err(failed)?;
        redis::cmd("PING").exec_async(&mut connection).await.map_err(failed)?;
        Ok(connection)
    }

    fn client(
        &self,
        address: &HostPort,
        certificates: Option<TlsCertificates>,
    ) -> redis::RedisResult<Client> {
        let HostPort { host, port } = address.clone();
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        let info = |address: ConnectionAddr| {
            Ok::<_, redis::RedisError>(address.into_connection_info()?.set_redis_settings(settings))
        };
        match certificates {
            Some(certificates) => {
                let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                Client::build_with_tls(info(address)?, certificates)
            }
            None => Client::open(info(ConnectionAddr::Tcp(host, port))?),
        }
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
