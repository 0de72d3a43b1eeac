//! Finding out who the machine is, against metadata services of every temper.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::metadata_server::{MetadataServer, Reply};
use super::*;
use crate::ids::InstanceId;

/// A machine of `provider` whose metadata services are all at `base`.
fn config(dir: &Path, provider: Provider, base: &str) -> IdentityConfig {
    let bios = dir.join("bios_version");
    let leases = dir.join("leases");
    match provider {
        Provider::Amazon => std::fs::write(&bios, "4.2.Amazon\n").unwrap(),
        Provider::Google => std::fs::write(&bios, "Google\n").unwrap(),
        Provider::Azure => {
            std::fs::write(&leases, "lease {\n  option unknown-245 a8:3f:81:10;\n}\n").unwrap();
        }
        Provider::Local => std::fs::write(&bios, "SeaBIOS\n").unwrap(),
    }
    IdentityConfig {
        dmi_bios_version: bios,
        azure_lease_file: leases,
        metadata_base: MetadataUrls { amazon: base.into(), google: base.into(), azure: base.into() },
        // Long enough that a laden machine's test server answers in it.
        per_request_limit: Duration::from_secs(5),
        ..IdentityConfig::default()
    }
}

async fn identity(provider: Provider, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Identity {
    let server = MetadataServer::start(answer).await;
    let dir = TempDir::new().unwrap();
    discover(config(dir.path(), provider, &server.base)).await
}

fn amazon(request: &str) -> Reply {
    match request.split_whitespace().nth(1).unwrap() {
        "/latest/meta-data/instance-id" => Reply::text("i-0123456789abcdef0"),
        "/latest/meta-data/local-ipv4" => Reply::text("172.31.5.6\n"),
        "/latest/meta-data/instance-type" => Reply::text("t2.medium"),
        "/latest/meta-data/placement/availability-zone" => Reply::text("ap-northeast-2c"),
        _ => Reply::Status(404),
    }
}

fn expected(id: &str, ip: &str, instance_type: &str, region: &str) -> Identity {
    Identity {
        instance_id: InstanceId::new(id),
        ip: ip.parse().unwrap(),
        instance_type: instance_type.into(),
        region: region.into(),
    }
}

fn fallback(provider: Provider) -> Identity {
    let id = format!("i-{}", host::hostname());
    expected(&id, "127.0.0.1", "unknown", &format!("{provider}/unknown"))
}

#[tokio::test]
async fn amazon_without_tokens_and_without_the_document() {
    let wanted = expected("i-0123456789abcdef0", "172.31.5.6", "t2.medium", "amazon/ap-northeast-2");
    assert_eq!(identity(Provider::Amazon, amazon).await, wanted);
}

#[tokio::test]
async fn amazon_with_tokens_required() {
    let found = identity(Provider::Amazon, |request| {
        if request.starts_with("put /latest/api/token ") {
            assert!(request.contains("x-aws-ec2-metadata-token-ttl-seconds: 60\r\n"));
            Reply::text("secret==")
        } else if !request.contains("x-aws-ec2-metadata-token: secret==\r\n") {
            Reply::Status(401)
        } else if request.starts_with("get /latest/dynamic/instance-identity/document ") {
            Reply::text(r#"{"region": "us-west-2", "instanceId": "other"}"#)
        } else {
            amazon(request)
        }
    })
    .await;
    let wanted = expected("i-0123456789abcdef0", "172.31.5.6", "t2.medium", "amazon/us-west-2");
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn google() {
    let found = identity(Provider::Google, |request| {
        assert!(request.contains("metadata-flavor: google\r\n"));
        match request.split_whitespace().nth(1).unwrap().strip_prefix("/computemetadata/v1/instance/") {
            Some("id") => Reply::text("4520031799277581759"),
            Some("network-interfaces/0/ip") => Reply::text("10.128.0.2"),
            Some("machine-type") => Reply::text("projects/1234/machineTypes/n1-standard-1"),
            Some("zone") => Reply::text("projects/1234/zones/us-central1-a"),
            _ => Reply::Status(404),
        }
    })
    .await;
    let wanted = expected("4520031799277581759", "10.128.0.2", "n1-standard-1", "google/us-central1");
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn azure() {
    let found = identity(Provider::Azure, |request| {
        assert!(request.starts_with("get /metadata/instance?api-version=2017-03-01 "), "{request}");
        assert!(request.contains("metadata: true\r\n"));
        Reply::text(
            r#"{"compute": {"location": "westus", "vmId": "5d33a910", "vmSize": "Standard_A1"},
                "network": {"interface": [{"ipv4": {"ipaddress": [{"ipaddress": "10.1.0.4"}]}}]}}"#,
        )
    })
    .await;
    assert_eq!(found, expected("5d33a910", "10.1.0.4", "Standard_A1", "azure/westus"));
}

#[tokio::test]
async fn a_service_that_answers_nonsense_gives_the_fallbacks() {
    for provider in [Provider::Amazon, Provider::Google, Provider::Azure] {
        for reply in [
            Reply::Status(404),
            Reply::Status(500),
            Reply::Status(302),
            Reply::Body(Vec::new()),
            Reply::Body(vec![0xff, 0xfe, 0x00]),
            Reply::text("<html><body>Sign in / Log in</body></html>"),
            Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
            Reply::Raw(b""),
        ] {
            assert_eq!(identity(provider, move |_| reply.clone()).await, fallback(provider));
        }
    }
}

#[tokio::test]
async fn a_service_that_hangs_or_floods_gives_the_fallbacks_in_time() {
    for provider in [Provider::Amazon, Provider::Google, Provider::Azure] {
        for reply in [Reply::Hang, Reply::HangInBody, Reply::Huge] {
            let server = MetadataServer::start(move |_| reply.clone()).await;
            let dir = TempDir::new().unwrap();
            let config = IdentityConfig {
                per_request_limit: Duration::from_millis(200),
                ..config(dir.path(), provider, &server.base)
            };
            let started = Instant::now();
            assert_eq!(discover(config).await, fallback(provider));
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
            assert!(!server.requests().is_empty());
        }
    }
}

#[tokio::test]
async fn a_flood_is_cut_off_by_its_size_and_not_only_by_the_clock() {
    let started = Instant::now();
    let server = MetadataServer::start(|_| Reply::Huge).await;
    let dir = TempDir::new().unwrap();
    let config = IdentityConfig {
        per_request_limit: Duration::from_secs(60),
        ..config(dir.path(), Provider::Azure, &server.base)
    };
    assert_eq!(discover(config).await, fallback(Provider::Azure));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_service_that_is_absent_gives_the_fallbacks() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let found = discover(config(dir.path(), Provider::Google, &format!("http://{gone}"))).await;
    assert_eq!(found, fallback(Provider::Google));
}

#[tokio::test]
async fn elsewhere_the_machine_and_the_operator_say() {
    let dir = TempDir::new().unwrap();
    let server = MetadataServer::start(|_| Reply::text("i-wrong")).await;
    let local = config(dir.path(), Provider::Local, &server.base);
    let found = discover(local.clone()).await;
    assert_eq!((&*found.region, &*found.instance_type), ("local/unknown", "unknown"));
    assert_eq!(found.instance_id.as_str(), format!("i-{}", host::hostname()));
    assert!(found.ip.is_ipv4());

    let told = IdentityConfig {
        instance_id_override: Some(InstanceId::new("i-told")),
        region_override: Some("lab/rack7".into()),
        ..local
    };
    let found = discover(told).await;
    assert_eq!((found.instance_id.as_str(), &*found.region), ("i-told", "lab/rack7"));
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_given_id_goes_before_the_clouds_own() {
    let server = MetadataServer::start(amazon).await;
    let dir = TempDir::new().unwrap();
    let config = IdentityConfig {
        instance_id_override: Some(InstanceId::new("i-told")),
        ..config(dir.path(), Provider::Amazon, &server.base)
    };
    let found = discover(config).await;
    assert_eq!((found.instance_id.as_str(), &*found.region), ("i-told", "amazon/ap-northeast-2"));
}

#[test]
fn unfit_instance_ids_are_refused_with_the_reason() {
    assert_eq!(check_instance_id("i-node_1.lan"), Ok(InstanceId::new("i-node_1.lan")));
    for (text, reason) in [
        ("", "empty"),
        ("a/b", "'/'"),
        ("a b", "' '"),
        ("a\n", "'\\n'"),
        ("a\u{7}", "control"),
        (&*"x".repeat(200), "200 bytes"),
    ] {
        let error = check_instance_id(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

#[tokio::test]
async fn the_id_is_remembered_for_a_start_at_which_the_cloud_does_not_say_it() {
    let dir = TempDir::new().unwrap();
    let memory = dir.path().join("identity.json");
    let found = async |answers: bool, provider: Provider| {
        let server = MetadataServer::start(
            move |request: &str| {
                if answers { amazon(request) } else { Reply::Status(500) }
            },
        )
        .await;
        let config =
            IdentityConfig { memory: Some(memory.clone()), ..config(dir.path(), provider, &server.base) };
        discover(config).await.instance_id
    };
    let (known, unknown) = (InstanceId::new("i-0123456789abcdef0"), fallback(Provider::Amazon).instance_id);
    assert_eq!(found(false, Provider::Amazon).await, unknown, "nothing is known yet");
    assert_eq!(found(true, Provider::Amazon).await, known);
    assert_eq!(found(false, Provider::Amazon).await, known);
    let copied = std::fs::read_to_string(&memory).unwrap().replace(&host::hostname(), "another-machine");
    std::fs::write(&memory, copied).unwrap();
    assert_eq!(found(false, Provider::Amazon).await, unknown, "a copy of another machine's disk");
    std::fs::write(&memory, "{damaged").unwrap();
    assert_eq!(found(false, Provider::Amazon).await, unknown);
}
