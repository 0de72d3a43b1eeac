//! Who this machine is: instance id, address, type and region (PROTOCOL section 5).
//!
//! On a machine of Amazon, Azure or Google the cloud's metadata service is asked, briefly; whatever it does
//! not say, and everything elsewhere, comes from the machine itself. Finding out never fails and never takes
//! long: each fact has a fallback. Owns no task.

mod facts;
mod host;
mod memory;
mod metadata;

#[cfg(test)]
mod metadata_server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::address::HostPort;
use crate::ids::InstanceId;

/// The longest instance id that is taken, in bytes.
const LONGEST_ID: usize = 128;

/// Where to look, and what to take as given.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// `--instance-id`: taken instead of anything found. Check it with [`check_instance_id`] first.
    pub instance_id_override: Option<String>,
    /// `BACKEND_REGION`: the region of a machine outside the three clouds; theirs know their own.
    pub region_override: Option<String>,
    /// The file that names the firmware, and with it Amazon's and Google's machines.
    pub dmi_bios_version: PathBuf,
    /// The DHCP client's leases, by which a machine of Azure is known.
    pub azure_lease_file: PathBuf,
    /// The clouds' metadata services.
    pub metadata_base: MetadataUrls,
    /// The time that one request to a metadata service gets, its body included.
    pub per_request_limit: Duration,
    /// The time that looking up this machine's own name gets.
    pub lookup_limit: Duration,
    /// Servers of the cluster, etcd's. The address that leads to them is this machine's where its name has none that others
    /// could reach.
    pub cluster: Vec<HostPort>,
    /// Where a cloud's instance id is kept for a start at which the cloud does not say; `None` keeps it nowhere.
    pub memory: Option<PathBuf>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            instance_id_override: None,
            region_override: None,
            dmi_bios_version: "/sys/devices/virtual/dmi/id/bios_version".into(),
            azure_lease_file: "/var/lib/dhcp/dhclient.eth0.leases".into(),
            metadata_base: MetadataUrls::default(),
            per_request_limit: Duration::from_millis(200),
            lookup_limit: Duration::from_secs(2),
            cluster: Vec::new(),
            memory: None,
        }
    }
}

/// The beginnings of the metadata services' URLs, up to the host or port and without a slash at the end.
#[derive(Debug, Clone)]
pub struct MetadataUrls {
    /// Amazon's, as in `http://169.254.169.254`.
    pub amazon: String,
    /// Google's, as in `http://metadata.google.internal`.
    pub google: String,
    /// Azure's, as in `http://169.254.169.254`.
    pub azure: String,
}

impl Default for MetadataUrls {
    fn default() -> Self {
        Self {
            amazon: "http://169.254.169.254".into(),
            google: "http://metadata.google.internal".into(),
            azure: "http://169.254.169.254".into(),
        }
    }
}

/// Whose machine this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon EC2.
    Amazon,
    /// Microsoft Azure.
    Azure,
    /// Google Compute Engine.
    Google,
    /// Anybody else's.
    Local,
}

impl fmt::Display for Provider {
    /// As in the first part of the region's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amazon => "amazon",
            Self::Azure => "azure",
            Self::Google => "google",
            Self::Local => "local",
        })
    }
}

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
    /// Whose machine this is.
    pub provider: Provider,
}

/// Text that can't be an instance id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInstanceId {
    /// There is no text.
    #[error("the instance id is empty; give a name such as i-worker1")]
    Empty,
    /// The id is part of keys in etcd, where a slash separates, and of log lines.
    #[error(
        "the instance id {given:?} holds {found:?}; give a name without slashes, spaces or control characters"
    )]
    Character {
        /// The text, cut at 64 characters.
        given: String,
        /// The first character of it that is not allowed.
        found: char,
    },
    /// Nobody means such a text as a name.
    #[error("the instance id has {length} bytes; give a name of at most {LONGEST_ID}")]
    Long {
        /// Its length in bytes.
        length: usize,
    },
}

/// Takes a text as an instance id if it can be part of a key in etcd and of an event.
pub fn check_instance_id(text: &str) -> Result<InstanceId, BadInstanceId> {
    if text.is_empty() {
        return Err(BadInstanceId::Empty);
    }
    if let Some(found) = text.chars().find(|c| is_unfit(*c)) {
        return Err(BadInstanceId::Character { given: text.chars().take(64).collect(), found });
    }
    if text.len() > LONGEST_ID {
        return Err(BadInstanceId::Long { length: text.len() });
    }
    Ok(InstanceId::new(text))
}

fn is_unfit(c: char) -> bool {
    c == '/' || c.is_whitespace() || c.is_control()
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
            .map(InstanceId::new)
            .or(from_cloud)
            .unwrap_or_else(|| host::instance_id(&hostname)),
        ip: IpAddr::V4(ip),
        instance_type: found.instance_type.unwrap_or_else(|| "unknown".into()),
        region,
        provider,
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
