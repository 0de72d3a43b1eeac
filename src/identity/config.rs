//! Where to look for a machine's identity, and what to take as given.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::HostPort;
use crate::ids::InstanceId;

/// Where to look, and what to take as given.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// `--instance-id`: taken instead of anything found.
    pub instance_id_override: Option<InstanceId>,
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
