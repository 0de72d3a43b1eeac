//! `events`: what an agent tells its manager, from the agent itself, or in the manager's place (`--bind`).

use super::away::Absence;
use super::{EventsArgs, Exit, terminal};
use crate::address::HostPort;
use crate::client::{Lines, LocalAgent, LocalError};
use crate::wire::event::{HeardEvent, readable};
use crate::zmtp::{ListenError, Pull};

/// Prints what a running agent tells its manager, until as much came as was asked for; an agent that ends is waited for.
pub(super) async fn follow(args: EventsArgs) -> Result<Exit, LocalError> {
    let agent = args.local.agent().await?;
    let mut lines = agent.lines("/events").await?;
    let mut left = args.count.map(std::num::NonZeroU64::get);
    while left != Some(0) {
        let line = tokio::select! {
            line = lines.next() => line,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let line = match line {
            Ok(Some(line)) => line,
            Err(error) if !error.is_absence() => return Err(error),
            // It has ended, and may be started again.
            Ok(None) | Err(_) => {
                lines = tokio::select! {
                    again = again(&agent) => again?,
                    _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
                };
                continue;
            }
        };
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        if args.no_heartbeats && event["event"] == "instance_heartbeat" {
            continue;
        }
        let line = if args.local.json {
            line
        } else {
            let args = event["args"].as_array().cloned().unwrap_or_default();
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("event"), text("agent"), args.join(" "))
        };
        terminal::print(&format!("{line}\n"));
        left = left.map(|n| n - 1);
    }
    Ok(Exit::Done)
}

/// What an agent tells from now on that was away. While it starts it refuses, which is waited for as well.
async fn again(agent: &LocalAgent) -> Result<Lines, LocalError> {
    let mut absence = Absence::default();
    loop {
        if !absence.wait(terminal::note).await {
            return agent.lines("/events").await;
        }
        if let Ok(lines) = agent.lines("/events").await {
            absence.end(terminal::note);
            return Ok(lines);
        }
    }
}

/// Prints events in the manager's place, until as many came as were asked for, or for ever.
pub(super) async fn listen(args: EventsArgs, at: &HostPort) -> Result<Exit, ListenError> {
    let mut pull = Pull::bind(&at.to_string())?;
    let mut left = args.count.map(std::num::NonZeroU64::get);
    while left != Some(0) {
        let frames = tokio::select! {
            message = pull.recv() => message.frames,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let Some(heard) = HeardEvent::decode(&frames) else {
            terminal::complain(&format!("{} frames that are no event", frames.len()));
            continue;
        };
        if args.no_heartbeats && heard.name == "instance_heartbeat" {
            continue;
        }
        let line = if args.local.json { heard.to_json().to_string() } else { as_text(&heard) };
        terminal::print(&format!("{line}\n"));
        left = left.map(|n| n - 1);
    }
    Ok(Exit::Done)
}

/// An event on one line, for a person.
pub(super) fn as_text(heard: &HeardEvent) -> String {
    let args: Vec<_> = heard.args.iter().map(|a| readable(a).to_string()).collect();
    format!("{} {} {}", heard.name, heard.instance, args.join(" "))
}
