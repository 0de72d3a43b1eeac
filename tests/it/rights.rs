//! Agents with fewer rights than root has: an ordinary user who may ask Docker, and root as the unit for systemd has it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::support::docker::image;
use crate::support::services::output;
use crate::support::{Agent, Bed, kernel, secs, until};

const UNIT: &str = include_str!("../../systemd/backendai-agent.service");

/// What is asked of each: a session's whole life.
async fn a_session_lives(bed: &Bed, agent: &Agent, config: serde_json::Value, uid: u32) {
    let kernel = agent.create_with(config).await.warm().await;
    kernel.upload("lib/up", b"x").await.unwrap();
    let code = "
import os
os.makedirs('locked/deep')
open('locked/deep/file', 'w').write('x')
os.chmod('locked', 0)
open('lib/up', 'w').write('y')
print(os.getuid())
";
    let run = kernel.run(code).await;
    assert_eq!((run.stdout(), run.stderr()), (format!("{uid}\n"), String::new()));
    kernel.call("restart_kernel", json!([kernel.config])).await.unwrap();
    assert_eq!(kernel.run("print(open('lib/up').read())").await.stdout(), "y\n");
    let statistics = kernel.destroy().await;
    assert!(statistics["mem_max_bytes"].as_u64().unwrap() > 0, "{statistics}");
    until("an empty trash", secs(10), async || {
        let left = fs::read_dir(bed.scratch().join(".agent/trash")).unwrap().count();
        (left == 0 && bed.scratch_dirs().is_empty()).then_some(())
    })
    .await;
}

/// Nothing is left that an ordinary user of the machine may not enter.
fn open_up(bed: &Bed) {
    fs::set_permissions(bed.outside(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn an_ordinary_user_of_the_docker_group_serves_sessions_and_says_what_it_can_not_do() {
    const UID: u32 = 12_345;
    let bed = Bed::start().await;
    open_up(&bed);
    chown(bed.scratch(), Some(UID), Some(UID)).unwrap();
    let docker = fs::metadata("/var/run/docker.sock").unwrap().gid();
    let program = format!("setpriv --pdeathsig KILL --reuid={UID} --regid={UID} --groups={docker} --");
    let program: Vec<String> = program.split(' ').map(str::to_owned).collect();
    let mut agent = bed.agent_through(&program, &[]).await;
    let said = agent.output();
    assert_eq!(said.lines().filter(|line| line.contains("this agent is not root")).count(), 1, "{said}");
    let usual = kernel::config(&image::python());
    a_session_lives(&bed, &agent, usual.clone(), UID).await;

    let kernel = agent.create_with(usual).await.warm().await;
    agent.kill9();
    let agent = bed.agent_through(&program, &[]).await;
    assert_eq!(kernel.run("print(1)").await.stdout(), "1\n", "it is taken back");

    // Neither a core nor another process of its user tells what it knows.
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
    let mut look = Command::new("setpriv");
    let line = format!("cat /proc/{}/environ 2>&1 || echo refused", agent.pid());
    let user = [format!("--reuid={UID}"), format!("--regid={UID}"), "--clear-groups".to_owned()];
    look.args(user).args(["sh", "-c", &line]);
    assert!(output(look).await.contains("refused"));
}

#[tokio::test]
async fn the_capabilities_that_the_unit_leaves_are_enough() {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let kept = line.replace("CAP_", "+").replace(' ', ",").to_lowercase();
    let bed = Bed::start().await;
    open_up(&bed);
    let program = format!("setpriv --no-new-privs --bounding-set=-all,{kept} --");
    let program: Vec<String> = program.split(' ').map(str::to_owned).collect();
    let agent = bed.agent_through(&program, &[]).await;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let has = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let count = u64::from_str_radix(has, 16).unwrap().count_ones();
    assert_eq!(count as usize, line.split(' ').count(), "{has}");

    let mut config = kernel::config(&image::python());
    a_session_lives(&bed, &agent, config.clone(), 9001).await;
    let folder = bed.folders().join("local/f");
    fs::create_dir_all(&folder).unwrap();
    config["mounts"] = json!([["data", "local", "f"]]);
    a_session_lives(&bed, &agent, config, 0).await;
}

/// The figure that SECURITY.md quotes, by the tool that counts it.
#[tokio::test]
async fn the_unit_is_as_closed_as_the_documents_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = root.join("systemd/backendai-agent.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=34"]).arg(&unit);
    // Before systemd 250 it asks a running one.
    let Ok(analysed) = command.output().await else { return };
    let said = String::from_utf8_lossy(&analysed.stdout).into_owned();
    let Some((_, level)) = said.split_once("Overall exposure level for backendai-agent.service: ") else {
        return;
    };
    assert!(analysed.status.success(), "{said}");
    let documents = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let figure = level.split(' ').next().unwrap();
    assert!(documents.contains(&format!("**{figure}**")), "SECURITY.md does not quote {figure}");
}
