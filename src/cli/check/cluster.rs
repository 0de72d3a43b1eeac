//! etcd, what the manager says there, and the servers that it names: really spoken to.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::finding::Finding;
use crate::address::HostPort;
use crate::agent::config::Config;
use crate::cluster::{Cluster, ManagerSettings};
use crate::ids::InstanceId;
use crate::kernel::account;
use crate::scratch::folder_hosts;
use crate::stats::RedisAccess;
use crate::zmtp::{Caps, Connection, KeepAlive, Kind};

/// How long each server may take.
const LIMIT: Duration = Duration::from_secs(4);

/// What the manager says in etcd, as far as other topics ask.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Where it takes events.
    pub(super) event_addr: HostPort,
    /// Redis' clock against this machine's, in seconds; positive where Redis is ahead.
    pub(super) redis_time: Option<f64>,
}

pub(super) async fn look(config: &Config) -> (Vec<Finding>, Option<Told>) {
    let mut found = Vec::new();
    for member in &config.cluster.endpoints {
        if let Err(text) = connect(member).await {
            let remedy = "start etcd, open the way to it, or correct --etcd-addr";
            found.push(Finding::bad("etcd", member, text, remedy));
        }
    }
    if found.len() == config.cluster.endpoints.len() {
        return (found, None);
    }
    let members: Vec<_> = config.cluster.endpoints.iter().map(ToString::to_string).collect();
    let (at, namespace) = (members.join(", "), &config.cluster.namespace);
    let Some(cluster) = Reading::start(config).answering().await else {
        found.push(Finding::bad(
            "etcd",
            at,
            format!("did not answer within {} s", LIMIT.as_secs()),
            "check that etcd serves there: etcdctl endpoint health",
        ));
        return (found, None);
    };
    found.push(Finding::good("etcd", at, "answers"));
    let (settings, gaps) = cluster.settings().await;
    let Some(settings) = settings else {
        let text = format!("no manager in namespace {namespace} ({gaps})");
        let remedy = "start the manager, or correct --namespace; the agent waits for it";
        found.push(Finding::doubtful("manager", format!("/sorna/{namespace}/"), text, remedy));
        return (found, None);
    };
    found.push(Finding::good("manager", &settings.manager_id, format!("is in namespace {namespace}")));
    let redis = redis(&config.redis, &settings.redis).await;
    found.push(match &redis {
        Ok(_) => Finding::good("Redis", &settings.redis, "answers"),
        Err(text) => Finding::doubtful(
            "Redis",
            &settings.redis,
            text,
            "statistics wait: start Redis, or correct nodes/redis in etcd",
        ),
    });
    found.push(match events(&settings.event_addr).await {
        Ok(()) => Finding::good("events", &settings.event_addr, "the manager takes them"),
        Err(text) => Finding::bad("events", &settings.event_addr, text, "start the manager, or correct nodes/manager/event_addr in etcd; without it the manager hears of no kernel's end"),
    });
    found.extend(folders(settings.volume_mount, config.kernels.uid).await);
    let told = Told { event_addr: settings.event_addr, redis_time: redis.ok().flatten() };
    (found, Some(told))
}

/// For which virtual folders kernels run as the agent's user.
async fn folders(mount: PathBuf, uid: u32) -> Option<Finding> {
    let at = mount.display().to_string();
    let looking = tokio::task::spawn_blocking(move || folder_hosts(&mount));
    match timeout(LIMIT, looking).await {
        Ok(Ok(Ok(hosts))) => Some(Finding::doubtful(
            "folder hosts",
            at,
            account::advice(&hosts, uid)?,
            "docs/protocol.md, section 7",
        )),
        // Without folders nobody needs another user.
        Ok(_) => None,
        Err(_) => Some(Finding::doubtful(
            "folder hosts",
            at,
            "their file system does not answer",
            "look at the mounts",
        )),
    }
}

/// Reads etcd as the agent does, and says nothing there.
struct Reading {
    cluster: Cluster,
    end: CancellationToken,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Reading {
    fn start(config: &Config) -> Self {
        let end = CancellationToken::new();
        // The id names keys that are only read.
        let instance = InstanceId::new("check".to_owned());
        let cluster = Cluster::start(config.cluster.clone(), &instance, &end, &TaskTracker::new());
        Self { cluster, end }
    }

    /// Itself once etcd has answered.
    async fn answering(self) -> Option<Self> {
        let mut status = self.cluster.status();
        let answers = timeout(LIMIT, status.wait_for(|status| status.etcd_reachable)).await;
        matches!(answers, Ok(Ok(_))).then_some(())?;
        Some(self)
    }

    /// The manager's settings, or what is missing of them.
    async fn settings(&self) -> (Option<ManagerSettings>, String) {
        let mut settings = self.cluster.settings();
        let complete = timeout(Duration::from_secs(1), settings.wait_for(Option::is_some)).await;
        if let Ok(Ok(settings)) = complete {
            return (settings.clone(), String::new());
        }
        let status = self.cluster.status();
        let gaps = status.borrow().gaps.to_string();
        (None, gaps)
    }
}

async fn connect(server: &HostPort) -> Result<TcpStream, String> {
    match timeout(LIMIT, TcpStream::connect((server.host.as_str(), server.port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Speaks to Redis as the agent does; answers how far its clock is ahead, where it says.
async fn redis(access: &RedisAccess, server: &HostPort) -> Result<Option<f64>, String> {
    match timeout(LIMIT, access.look(server)).await {
        Ok(Ok(ahead)) => Ok(ahead),
        Ok(Err(error)) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(format!("{error}{cause}"))
        }
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Greets the manager's socket, and sends nothing.
async fn events(server: &HostPort) -> Result<(), String> {
    let greeted = Connection::open(server.to_string(), Kind::Push, Caps::commands(), KeepAlive::default());
    match timeout(LIMIT, greeted).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(trouble)) => Err(trouble.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
