//! Finding out who this machine is.

use std::net::{IpAddr, Ipv4Addr};

use super::config::IdentityConfig;
use super::provider::Provider;
use super::{facts, host, memory, metadata};
use crate::ids::InstanceId;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name in etcd and in every event: given, the cloud's own, or `i-{hostname}`.
    pub instance_id: InstanceId,
    /// The address at which the manager is to reach this machine, unless the operator says otherwise.
    pub ip: IpAddr,
    /// The machine's type in its cloud, as in `t2.medium`; `unknown` elsewhere.
    pub instance_type: String,
    /// `{provider}/{region}`, as in `amazon/ap-northeast-2`; `local/unknown` if nobody says.
    pub region: String,
}

/// Finds out who this machine is. Takes about `lookup_limit` or three requests' limits at most, and logs which
/// facts are fallbacks.
pub async fn discover(config: IdentityConfig) -> Identity {
    let provider = host::provider(&config).await;
    let hostname = host::hostname();
    let found = match provider {
        Provider::Local => facts::Facts::default(),
        cloud => metadata::ask(cloud, &config).await,
    };

    let ip = match (found.ip, provider) {
        (Some(ip), _) => ip,
        (None, Provider::Local) => host::address(&hostname, &config.cluster, config.lookup_limit).await,
        (None, _) => host::route(&config.cluster, config.lookup_limit).await.unwrap_or(Ipv4Addr::LOCALHOST),
    };
    let region = match (found.region, provider) {
        (Some(region), cloud) => format!("{cloud}/{region}"),
        (None, Provider::Local) => config.region_override.unwrap_or_else(|| "local/unknown".into()),
        (None, cloud) => format!("{cloud}/unknown"),
    };
    let from_cloud = match (found.instance_id, config.memory.filter(|_| provider != Provider::Local)) {
        (Some(id), Some(file)) => {
            memory::keep(&file, provider, &hostname, &id);
            Some(id)
        }
        (None, Some(file)) => memory::recall(&file, provider, &hostname).inspect(|id| {
            tracing::warn!(instance = %id, "the metadata service did not say the instance id; going on with the one it said before");
        }),
        (id, None) => id,
    };
    let identity = Identity {
        instance_id: config
            .instance_id_override
            .or(from_cloud)
            .unwrap_or_else(|| host::instance_id(&hostname)),
        ip: IpAddr::V4(ip),
        instance_type: found.instance_type.unwrap_or_else(|| "unknown".into()),
        region,
    };
    tracing::info!(
        instance = %identity.instance_id,
        ip = %identity.ip,
        instance_type = %identity.instance_type,
        region = %identity.region,
        "this machine is known"
    );
    identity
}
