//! Asking the clouds' metadata services: plain HTTP to one fixed neighbour, each request with a short limit.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};

use super::config::IdentityConfig;
use super::facts::{self, Facts};
use super::provider::Provider;

/// The most that is read of an answer, in bytes; the longest honest one, Azure's, has about 2 KiB.
const LONGEST_BODY: usize = 64 << 10;

/// Why a fact was not got; for the debug log.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the answer has more than {LONGEST_BODY} bytes")]
    Long,
    #[error("the answer is not UTF-8 text")]
    NotText(#[from] std::string::FromUtf8Error),
}

/// What the metadata service of `provider` tells, as far as it does.
pub(super) async fn ask(provider: Provider, config: &IdentityConfig) -> Facts {
    let client = match client() {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%error, "no HTTP client could be made; using fallbacks for the machine's identity");
            return Facts::default();
        }
    };
    let session = Session { client, limit: config.per_request_limit };
    let urls = &config.metadata_base;
    let facts = match provider {
        Provider::Amazon => session.amazon(&urls.amazon).await,
        Provider::Google => session.google(&urls.google).await,
        Provider::Azure => session.azure(&urls.azure).await,
        Provider::Local => Facts::default(),
    };
    let missing = facts.missing();
    if !missing.is_empty() {
        tracing::warn!(
            %provider, missing = missing.join(", "),
            "the metadata service did not tell everything; using fallbacks"
        );
    }
    facts
}

/// A client that speaks with nobody but the address it is given: no proxy, no redirect.
fn client() -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    // The client can't be made without TLS, nor choose a provider by itself. Trusting no authority, this one
    // could not be used for HTTPS, and that is as it should be.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    Ok(builder.tls_backend_preconfigured(tls).build()?)
}

/// Requests to one service.
struct Session {
    /// The HTTP client.
    client: Client,
    /// The time that one request gets.
    limit: Duration,
}

impl Session {
    async fn amazon(&self, base: &str) -> Facts {
        // Machines may be set to answer only requests that carry a token; older services know no tokens.
        let token = self.client.request(Method::PUT, format!("{base}/latest/api/token"));
        let token = self.text(token.header("X-aws-ec2-metadata-token-ttl-seconds", "60")).await;
        let get = async |path: &str| {
            let request = self.client.get(format!("{base}/latest/{path}"));
            self.text(match &token {
                Some(token) => request.header("X-aws-ec2-metadata-token", token),
                None => request,
            })
            .await
        };
        let (instance_id, ip, instance_type, document, zone) = tokio::join!(
            get("meta-data/instance-id"),
            get("meta-data/local-ipv4"),
            get("meta-data/instance-type"),
            get("dynamic/instance-identity/document"),
            get("meta-data/placement/availability-zone"),
        );
        let document_region = document.as_deref().and_then(facts::amazon_document_region);
        Facts {
            instance_id: instance_id.as_deref().and_then(facts::instance_id),
            ip: ip.as_deref().and_then(facts::ip),
            instance_type: instance_type.as_deref().and_then(facts::word),
            region: document_region.or_else(|| zone.as_deref().and_then(facts::amazon_zone_region)),
        }
    }

    async fn google(&self, base: &str) -> Facts {
        let get = async |path: &str| {
            let request = self.client.get(format!("{base}/computeMetadata/v1/instance/{path}"));
            self.text(request.header("Metadata-Flavor", "Google")).await
        };
        let (instance_id, ip, instance_type, zone) =
            tokio::join!(get("id"), get("network-interfaces/0/ip"), get("machine-type"), get("zone"));
        Facts {
            instance_id: instance_id.as_deref().and_then(facts::instance_id),
            ip: ip.as_deref().and_then(facts::ip),
            instance_type: instance_type.as_deref().and_then(facts::word),
            region: zone.as_deref().and_then(facts::google_zone_region),
        }
    }

    async fn azure(&self, base: &str) -> Facts {
        let request = self.client.get(format!("{base}/metadata/instance?api-version=2017-03-01"));
        let document = self.text(request.header("Metadata", "true")).await;
        document.as_deref().map(facts::azure).unwrap_or_default()
    }

    /// The text of a good answer, white space around it removed.
    async fn text(&self, request: RequestBuilder) -> Option<String> {
        let answer = match tokio::time::timeout(self.limit, fetch(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::Late(self.limit)),
        };
        answer.inspect_err(|fault| tracing::debug!(%fault, "the metadata service gave no fact")).ok()
    }
}

async fn fetch(request: RequestBuilder) -> Result<String, Fault> {
    let mut answer = request.send().await?;
    if answer.status() != StatusCode::OK {
        return Err(Fault::Status(answer.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > LONGEST_BODY {
            return Err(Fault::Long);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(body)?.trim().to_owned())
}
