//! Networks of containers on one bridge of the machine.

use std::collections::BTreeMap;

use bollard::models;
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::engine::missing_is_none;
use super::{Docker, DockerError, names};
use crate::address::Network;

/// Whether containers reach each other.
const ICC: &str = "com.docker.network.bridge.enable_icc";
/// The name of the bridge as the machine knows it.
const BRIDGE: &str = "com.docker.network.bridge.name";

/// A network to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// The name of its bridge on the machine; 15 characters at most.
    pub bridge: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A network as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeNetwork {
    /// The name of its bridge on the machine.
    pub bridge: String,
    /// The addresses of its containers, and of the bridge.
    pub subnets: Vec<Network>,
    /// Whether its containers reach each other.
    pub is_open: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Docker {
    /// The addresses that containers on bridges of the engine's machine may have. Networks of other drivers are left
    /// out: theirs may be those of the machine's neighbours.
    pub async fn bridge_subnets(&self) -> Result<Vec<Network>, DockerError> {
        let filters = std::collections::HashMap::from([("driver", vec!["bridge"])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self
            .connection
            .call("list networks".to_owned(), self.deadlines.list, |engine| {
                let options = options.clone();
                async move { engine.list_networks(Some(options)).await }
            })
            .await?;
        let mut subnets: Vec<Network> = found.into_iter().flat_map(|network| subnets(network.ipam)).collect();
        subnets.sort_unstable();
        Ok(subnets)
    }

    /// Looks at one network; `None` if there is none of that name.
    pub async fn network(&self, name: &str) -> Result<Option<BridgeNetwork>, DockerError> {
        let step = names::checked_name(format!("look at network {name}"), name)?;
        let found = self
            .connection
            .call(step, self.deadlines.quick, |engine| async move {
                missing_is_none(engine.inspect_network(name, None).await)
            })
            .await?;
        Ok(found.map(from_inspection))
    }

    /// The network of that name, made if there is none. Containers on a new one don't reach each other.
    pub async fn ensure_network(&self, spec: &NetworkSpec) -> Result<BridgeNetwork, DockerError> {
        if let Some(found) = self.network(&spec.name).await? {
            return Ok(found);
        }
        let step = format!("make network {}", spec.name);
        let body = body(spec);
        let made = self
            .connection
            .call(step.clone(), self.deadlines.create, |engine| {
                let body = body.clone();
                async move { engine.create_network(body).await.map(drop) }
            })
            .await;
        // Another caller may have made it meanwhile; the engine refuses a second one with the same bridge.
        match (self.network(&spec.name).await?, made) {
            (Some(found), _) => Ok(found),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => {
                Err(DockerError::Failed { step, message: "it is not there after it was made".to_owned() })
            }
        }
    }

    /// Removes a network that has no container. One that is gone is fine.
    pub async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        let step = names::checked_name(format!("remove network {name}"), name)?;
        self.connection
            .call(step, self.deadlines.remove, |engine| async move {
                missing_is_none(engine.remove_network(name).await).map(drop)
            })
            .await
    }
}

fn body(spec: &NetworkSpec) -> models::NetworkCreateRequest {
    let options = [(ICC, "false"), (BRIDGE, &spec.bridge)];
    models::NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        // Addresses of a second family would need a fence of their own.
        enable_ipv6: Some(false),
        options: Some(options.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        ..models::NetworkCreateRequest::default()
    }
}

pub(super) fn from_inspection(answer: models::NetworkInspect) -> BridgeNetwork {
    let mut options = answer.options.unwrap_or_default();
    let id: String = answer.id.unwrap_or_default().chars().take(12).collect();
    BridgeNetwork {
        bridge: options.remove(BRIDGE).unwrap_or_else(|| format!("br-{id}")),
        subnets: subnets(answer.ipam),
        is_open: options.get(ICC).is_none_or(|value| value == "true"),
        labels: answer.labels.unwrap_or_default().into_iter().collect(),
    }
}

fn subnets(ipam: Option<models::Ipam>) -> Vec<Network> {
    let configs = ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    configs.into_iter().filter_map(|config| config.subnet?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_network_is_made_so_that_its_containers_are_apart() {
        let spec = NetworkSpec {
            name: "kernels".into(),
            bridge: "kernels0".into(),
            labels: [("owner".into(), "me".into())].into(),
        };
        let body = serde_json::to_value(body(&spec)).unwrap();
        assert_eq!(body["Options"][ICC], "false");
        assert_eq!(body["Options"][BRIDGE], "kernels0");
        assert_eq!(body["Labels"], json!({"owner": "me"}));
        assert_eq!((&body["Driver"], &body["EnableIPv6"]), (&json!("bridge"), &json!(false)));
    }

    #[test]
    fn an_inspection_is_read_also_where_the_bridge_has_no_name_of_its_own() {
        let seen = |text| from_inspection(serde_json::from_value(text).unwrap());
        let ours = seen(json!({"Id": "0123456789abcdef", "Options": {ICC: "false", BRIDGE: "kernels0"},
            "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "nonsense"}, {}]}, "Labels": {"a": "b"}}));
        assert_eq!((ours.bridge.as_str(), ours.is_open), ("kernels0", false));
        assert_eq!(ours.subnets, ["172.18.0.0/16".parse().unwrap()]);
        let plain = seen(json!({"Id": "0123456789abcdef"}));
        assert_eq!((plain.bridge.as_str(), plain.is_open), ("br-0123456789ab", true));
    }
}
