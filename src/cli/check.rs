//! `check`: whether everything that the agent needs is there and set up well, before it is started. Nothing is changed.
//!
//! One file a topic; each looks by itself and comes back with findings. Topics are looked at at the same time, so that one
//! that hangs costs its own limit only.

mod address;
mod clock;
mod cluster;
mod docker;
mod finding;
mod firewall;
mod images;
mod machine;
mod ports;
mod scratch;
mod walls;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use self::finding::{Finding, Verdict, as_json, as_text};
use super::options::CheckForm;
use super::{Exit, terminal};
use crate::agent::config::Config;
use crate::docker::Docker;

/// Looks at everything and tells.
pub(super) async fn check(config: Config, form: CheckForm) -> Exit {
    let findings = look(config).await;
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    let text = if form.json { format!("{:#}\n", as_json(&findings)) } else { as_text(&findings) };
    terminal::print(&text);
    match worst {
        Verdict::Bad => Exit::Failed,
        Verdict::Doubtful if form.strict => Exit::Failed,
        Verdict::Doubtful | Verdict::Good => Exit::Done,
    }
}

async fn look(config: Config) -> Vec<Finding> {
    let docker = Docker::open(config.docker.clone());
    let manager = cluster::look(&config).shared();
    let topics: Vec<BoxFuture<'_, Vec<Finding>>> = vec![
        async { settings(&config.warnings) }.boxed(),
        docker::look(&docker, &config.docker.address, config.min_free).boxed(),
        images::look(&docker).boxed(),
        machine::look(&docker, &config.limits).boxed(),
        scratch::look(&config.scratch_root, config.min_free, config.scratch_quota).boxed(),
        walls::look(&docker, &config.scratch_root).boxed(),
        async { manager.clone().await.0 }.boxed(),
        async { address::look(&config, manager.clone().await.1).await }.boxed(),
        ports::look(&config).boxed(),
        firewall::look(&docker, config.kernel_network.as_deref()).boxed(),
        async { clock::look(manager.clone().await.1.and_then(|told| told.redis_time)) }.boxed(),
    ];
    join_all(topics).await.into_iter().flatten().collect()
}

/// Values that can't be used have ended the program before.
fn settings(warnings: &[String]) -> Vec<Finding> {
    let doubts = warnings.iter().map(|text| Finding::doubtful("settings", "", text, ""));
    let found: Vec<_> = doubts.collect();
    if found.is_empty() {
        vec![Finding::good("settings", "", "good; `backendai-agent config` shows them")]
    } else {
        found
    }
}
