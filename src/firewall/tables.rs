//! The packet filter, through Docker's own tool for it.

use std::io;
use std::process::Output;
use std::time::Duration;

use super::rules::Fence;
use crate::programs::{self, ProgramError};

/// How long one call may take; another program may hold the tables' lock for a while.
const LIMIT: Duration = Duration::from_secs(10);

/// The interfaces of the agent's own network namespace. `/sys/class/net` has those of whoever mounted it.
const INTERFACES: &str = "/proc/self/net/dev";

/// Why the rules are not there.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no such program.
    #[error("could not run {program}; install the package iptables, which Docker needs as well")]
    NoTool {
        /// The program.
        program: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error(
        "{program} could not {step}: {text}; the agent needs CAP_NET_ADMIN for that, as root has it, and the kernel modules of iptables"
    )]
    Refused {
        /// The program.
        program: &'static str,
        /// What it was to do.
        step: &'static str,
        /// Its own words.
        text: String,
    },
    /// It did not end.
    #[error("{program} did not end within {} s; look for a program that holds the lock of the tables (/run/xtables.lock)", LIMIT.as_secs())]
    Late {
        /// The program.
        program: &'static str,
    },
    /// The bridge is nowhere to be seen.
    #[error(
        "this agent does not see the bridge {bridge}: it runs in another network namespace than Docker, or on another \
         machine; run it in the host's network"
    )]
    NotHere {
        /// The bridge.
        bridge: String,
    },
}

/// The packet filter, and what was put there.
#[derive(Debug, Default)]
pub struct Tables {
    /// What was put up last, and how the tool shows it.
    up: Option<(Fence, String)>,
}

impl Tables {
    /// Makes the rules be there; whether they were not. May be called as often as one likes.
    pub async fn put_up(&mut self, fence: &Fence) -> Result<bool, FirewallError> {
        let bridge = &fence.bridge;
        let interfaces = tokio::fs::read_to_string(INTERFACES).await.unwrap_or_default();
        if !is_among(&interfaces, bridge) {
            return Err(FirewallError::NotHere { bridge: bridge.clone() });
        }
        let is_same = match &self.up {
            Some((up, as_shown)) if up == fence => shown(bridge).await.as_ref() == Some(as_shown),
            _ => false,
        };
        let leads_there = is_jump_there(bridge).await?;
        if is_same && leads_there {
            return Ok(false);
        }
        let program = "iptables-restore";
        let filled = run(program, &["--noflush", "--wait"], fence.chain()).await?;
        succeeded(program, "fill the chain of kernels", &filled)?;
        if !leads_there {
            let jump = iptables(&["-I"], &Fence::jump(bridge)).await?;
            succeeded("iptables", "lead packets of kernels into their chain", &jump)?;
        }
        self.up = shown(bridge).await.map(|shown| (fence.clone(), shown));
        Ok(true)
    }

    /// Takes the rules of a bridge away, as far as there are any.
    pub async fn take_down(bridge: &str) -> Result<(), FirewallError> {
        while is_jump_there(bridge).await? {
            let done = iptables(&["-D"], &Fence::jump(bridge)).await?;
            succeeded("iptables", "take the jump into the chain of kernels away", &done)?;
        }
        for what in ["-F", "-X"] {
            // There may be none.
            iptables(&[what], &[bridge]).await?;
        }
        Ok(())
    }
}

/// Whether one of the interfaces has this name.
fn is_among(interfaces: &str, bridge: &str) -> bool {
    interfaces.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| name.trim() == bridge)
}

async fn is_jump_there(bridge: &str) -> Result<bool, FirewallError> {
    Ok(iptables(&["-C"], &Fence::jump(bridge)).await?.status.success())
}

/// The chain as the tool shows it.
async fn shown(bridge: &str) -> Option<String> {
    let shown = iptables(&["-S"], &[bridge]).await.ok()?;
    shown.status.success().then(|| String::from_utf8_lossy(&shown.stdout).into_owned())
}

async fn iptables(what: &[&str], rest: &[&str]) -> Result<Output, FirewallError> {
    run("iptables", &[&["--wait", "-t", "mangle"], what, rest].concat(), String::new()).await
}

async fn run(program: &'static str, args: &[&str], input: String) -> Result<Output, FirewallError> {
    programs::run(program, args, &input, LIMIT).await.map_err(|error| match error {
        ProgramError::NotRun { program, source } => FirewallError::NoTool { program, source },
        ProgramError::Late { program, .. } => FirewallError::Late { program },
    })
}

fn succeeded(program: &'static str, step: &'static str, output: &Output) -> Result<(), FirewallError> {
    if output.status.success() {
        return Ok(());
    }
    Err(FirewallError::Refused { program, step, text: programs::complaint(output) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_known_by_its_whole_name() {
        let interfaces = "Inter-|   Receive  |  Transmit\n face |bytes    packets|bytes\n    lo: 0 0 0\nbai-12345678:98 1 2\n";
        for (bridge, is_there) in [("bai-12345678", true), ("lo", true), ("bai-1", false), ("face", false)] {
            assert_eq!(is_among(interfaces, bridge), is_there, "{bridge}");
        }
    }
}
