//! `check`: whether everything that the agent needs can be reached, a line each, nothing changed.

use std::time::Duration;

use comfy_table::Table;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Exit, paths};
use crate::agent::config::Config;
use crate::docker::{Docker, DockerConfig};

/// How long each thing may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Checks one thing after the other and prints a table.
pub(super) async fn check(config: Config) -> Exit {
    let mut table = Table::new();
    table.set_header(["what", "where", "result"]);
    let mut is_good = true;
    let mut row = |what: &str, at: String, result: Result<String, String>| {
        is_good &= result.is_ok();
        let text = match result {
            Ok(text) => text,
            Err(text) => format!("FAILED: {text}"),
        };
        table.add_row([what, &at, &text]);
    };
    let settings = if config.warnings.is_empty() { "good".to_owned() } else { config.warnings.join("\n") };
    row("settings", String::new(), Ok(settings));
    let root = paths::usable_root(&config.scratch_root).map_or_else(|| Ok("is usable".to_owned()), Err);
    row("scratch root", config.scratch_root.display().to_string(), root);
    row("Docker", config.docker.address.to_string(), docker(config.docker).await);
    for member in &config.cluster.endpoints {
        row("etcd", member.to_string(), connects(&member.host, member.port).await);
    }
    let port = timeout(LIMIT, tokio::net::TcpListener::bind(("0.0.0.0", config.agent_port))).await;
    let port = match port {
        Ok(Ok(_)) => Ok("free".to_owned()),
        Ok(Err(error)) => Err(format!("{error}; is another agent running?")),
        Err(_) => Err("did not answer".to_owned()),
    };
    row("RPC port", config.agent_port.to_string(), port);
    println!("{table}");
    if is_good { Exit::Done } else { Exit::Failed }
}

async fn docker(config: DockerConfig) -> Result<String, String> {
    let docker = Docker::open(config);
    let info = docker.info().await.map_err(|e| e.to_string())?;
    let images = docker.images().await.map_err(|e| e.to_string())?;
    let is_kernel = |tag: &String| tag.starts_with(crate::images::PREFIX);
    let kernels = images.iter().flat_map(|i| &i.tags).filter(|t| is_kernel(t)).count();
    Ok(format!("version {}, {} cores, {kernels} kernel images", info.server_version, info.cpus))
}

async fn connects(host: &str, port: u16) -> Result<String, String> {
    match timeout(LIMIT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok("takes connections".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
