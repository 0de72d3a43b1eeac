//! `check`: whether everything that the agent needs can be reached, a line each, nothing changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::Table;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Exit, paths};
use crate::agent::config::Config;
use crate::docker::{Docker, DockerConfig};
use crate::scratch::{MinFree, space_of};
use crate::units::Memory;

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
    let (root, min_free) = (config.scratch_root, config.min_free);
    let usable = paths::usable_root(&root).map_or_else(|| room(&root, min_free), Err);
    row("scratch root", root.display().to_string(), usable);
    let address = config.docker.address.to_string();
    match docker(config.docker).await {
        Ok((text, data_root)) => {
            row("Docker", address, Ok(text));
            if data_root.is_dir() {
                row("Docker's disk", data_root.display().to_string(), room(&data_root, min_free));
            }
        }
        Err(text) => row("Docker", address, Err(text)),
    }
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

/// What is free there, if that is enough for new kernels.
fn room(path: &Path, min_free: MinFree) -> Result<String, String> {
    let space = space_of(path).map_err(|error| error.to_string())?;
    match min_free.lacks(space, false, path) {
        Some(lacks) => Err(lacks),
        None => Ok(format!("is usable, {} MiB are free", Memory::from_bytes(space.free_bytes).mib())),
    }
}

/// What it says, and where its files are.
async fn docker(config: DockerConfig) -> Result<(String, PathBuf), String> {
    let docker = Docker::open(config);
    let info = docker.info().await.map_err(|e| e.to_string())?;
    let images = docker.images().await.map_err(|e| e.to_string())?;
    let is_kernel = |tag: &String| tag.starts_with(crate::images::PREFIX);
    let kernels = images.iter().flat_map(|i| &i.tags).filter(|t| is_kernel(t)).count();
    let text = format!("version {}, {} cores, {kernels} kernel images", info.server_version, info.cpus);
    Ok((text, info.data_root.into()))
}

async fn connects(host: &str, port: u16) -> Result<String, String> {
    match timeout(LIMIT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok("takes connections".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
