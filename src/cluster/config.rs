//! How to reach the cluster.

use std::time::Duration;

use crate::address::HostPort;
use crate::secret::Secret;
use crate::tls::TlsFiles;

/// How to reach the cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The etcd servers, of one etcd cluster; the next is used when one fails. A name is looked up at every
    /// new connection, and all its addresses are tried.
    pub endpoints: Vec<HostPort>,
    /// Keys live below `/sorna/{namespace}/`.
    pub namespace: String,
    /// Who the agent is there.
    pub access: EtcdAccess,
    /// The time that one call gets, connecting included.
    pub call_deadline: Duration,
    /// How often the state is read though nothing was heard of; how fast a hung server is noticed (this and
    /// one deadline), and how often at most the same presence is written.
    pub check_every: Duration,
}

impl ClusterConfig {
    /// A configuration with the usual limits: 3 s for a call, a check every 5 s.
    #[must_use]
    pub fn new(endpoints: Vec<HostPort>, namespace: impl Into<String>) -> Self {
        Self {
            endpoints,
            namespace: namespace.into(),
            access: EtcdAccess::default(),
            call_deadline: Duration::from_secs(3),
            check_every: Duration::from_secs(5),
        }
    }
}

/// Who the agent is at etcd. The default is nobody, over connections that everybody on the way can read.
#[derive(Debug, Clone, Default)]
pub struct EtcdAccess {
    /// Its name and password, where etcd has users.
    pub user: Option<(String, Secret)>,
    /// What makes the connections private.
    pub tls: Option<TlsFiles>,
}
