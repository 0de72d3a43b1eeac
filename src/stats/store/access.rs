//! Who the agent is at Redis, and the way there.

use std::time::SystemTime;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::capped::Capped;
use super::error::StoreError;
use super::private::Private;
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
    /// Asks whether Redis is there and serves this agent, and how far its clock is ahead of this machine's, in seconds; `None`
    /// where it does not say.
    pub async fn look(&self, address: &HostPort) -> Result<Option<f64>, StoreError> {
        let mut connection = self.connect(address).await?;
        // A user who may store statistics may not be allowed to ask for the time.
        let time: redis::RedisResult<(f64, f64)> = redis::cmd("TIME").query_async(&mut connection).await;
        let own =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Ok(time.ok().map(|(seconds, micros)| seconds + micros / 1e6 - own))
    }

    /// Connects to database 0. The limits are the job's, not the library's. A Redis that serves nobody without a password says
    /// so to a short command; it hangs up on one as long as ours.
    pub(super) async fn connect(&self, address: &HostPort) -> Result<MultiplexedConnection, StoreError> {
        let private = match &self.tls {
            Some(files) => {
                let pems = files.read().await.map_err(StoreError::Tls)?;
                Some(Private::new(&address.host, &pems).map_err(StoreError::Certificates)?)
            }
            None => None,
        };
        let failed = |source: redis::RedisError| match source.code() {
            Some("NOAUTH") => StoreError::Password { address: address.clone(), source },
            _ if source.kind() == ErrorKind::AuthenticationFailed => {
                StoreError::Refused { address: address.clone(), source }
            }
            _ => StoreError::Connect { address: address.clone(), source },
        };
        let broken = |error: std::io::Error| failed(error.into());
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        let mut connection = match private {
            // The bound is on what is said, inside: a peer may ask for new keys as often as it likes, and our answer to that
            // is something written.
            Some(private) => self.speak(private.secure(stream).await.map_err(broken)?).await,
            None => self.speak(stream).await,
        }
        .map_err(failed)?;
        redis::cmd("PING").exec_async(&mut connection).await.map_err(failed)?;
        Ok(connection)
    }

    /// Over a connection that ends when the other side floods it.
    async fn speak<S>(&self, stream: S) -> redis::RedisResult<MultiplexedConnection>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let stream = Capped::new(stream, LARGEST_ANSWER);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.settings(), stream, limits).await?;
        // Ends when the connection is dropped or breaks.
        tokio::spawn(driver);
        Ok(connection)
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
