//! The commands that look at a running agent of this machine, and those that drain it.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{Table, presets};
use tokio::time::{Instant, sleep, timeout_at};

use super::away::Absence;
use super::client_options::{DrainArgs, LocalArgs, TopArgs};
use super::{Exit, LocalCommand, LogsArgs, commands, sockets, terminal};
use crate::client::{LocalAgent, LocalError};
use crate::status::{Kernel, Status};

/// Between two looks while something is awaited.
const EVERY: Duration = Duration::from_secs(1);

/// What moves a terminal's cursor to its beginning and clears it.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

impl LocalArgs {
    /// The agent that is meant.
    pub(super) async fn agent(&self) -> Result<LocalAgent, LocalError> {
        let directories = sockets::User::of_this_process().directories();
        LocalAgent::find(self.socket.as_deref(), &directories).await
    }
}

/// Carries one out.
pub(super) async fn perform(command: LocalCommand) -> Result<Exit, LocalError> {
    match command {
        LocalCommand::Status(args) => {
            let status = args.agent().await?.status().await?;
            print(args.json, &status, &node(&status));
        }
        LocalCommand::Ps(args) => {
            let status = args.agent().await?.status().await?;
            if args.json {
                // Kernels only, for whoever counts them.
                say(&serde_json::to_string(&status.kernels).unwrap_or_default());
            } else {
                say(&kernels(&status, None));
            }
        }
        LocalCommand::Top(args) => return top(args).await,
        LocalCommand::Logs(args) => logs(&args).await?,
        LocalCommand::Drain(args) => return drain(args).await,
        LocalCommand::Resume(args) => {
            let status = args.agent().await?.set_drained(false).await?;
            print(args.json, &status, "the node takes kernels again");
        }
    }
    Ok(Exit::Done)
}

fn print(json: bool, status: &Status, text: &str) {
    if json { say(&serde_json::to_string(status).unwrap_or_default()) } else { say(text) }
}

/// Whoever reads may be gone; then there is nobody to print for.
fn say(text: &str) {
    terminal::print(&format!("{}\n", text.trim_end()));
}

async fn top(args: TopArgs) -> Result<Exit, LocalError> {
    let agent = args.local.agent().await?;
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let (mut before, mut left) = (None, args.count.map(std::num::NonZeroU64::get));
    let mut absence = Absence::default();
    loop {
        let status = match agent.status().await {
            Ok(status) => status,
            // It was there, and may come back.
            Err(error) if before.is_some() && error.is_absence() => {
                tokio::select! {
                    goes_on = absence.wait(terminal::note) => if !goes_on { return Err(error) },
                    _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        absence.end(terminal::note);
        let text = format!("{clear}{}\n{}", headline(&status), kernels(&status, before.as_ref()));
        print(args.local.json, &status, &text);
        left = left.map(|n| n - 1);
        if left == Some(0) {
            return Ok(Exit::Done);
        }
        before = Some(status);
        tokio::select! {
            () = sleep(args.every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

async fn logs(args: &LogsArgs) -> Result<(), LocalError> {
    let text = args.local.agent().await?.logs(args.kernel, args.timeout).await?;
    commands::show_logs(args.local.json, &text, args.tail);
    Ok(())
}

async fn drain(args: DrainArgs) -> Result<Exit, LocalError> {
    let agent = args.local.agent().await?;
    let mut status = agent.set_drained(true).await?;
    if args.end {
        status = agent.end_all().await?;
    }
    let limit = args.timeout.and_then(|limit| Instant::now().checked_add(limit));
    let mut told = usize::MAX;
    while args.wait && !status.kernels.is_empty() {
        if std::mem::replace(&mut told, status.kernels.len()) != told {
            terminal::note(&format!("waiting for {} to end", counted(told, "kernel")));
        }
        let next = async {
            sleep(EVERY).await;
            agent.status().await
        };
        status = match limit {
            None => next.await?,
            Some(limit) => {
                let Ok(next) = timeout_at(limit, next).await else {
                    print(args.local.json, &status, &left(&status));
                    return Ok(Exit::Failed);
                };
                next?
            }
        };
    }
    print(args.local.json, &status, &left(&status));
    Ok(Exit::Done)
}

fn left(status: &Status) -> String {
    let count = status.kernels.len();
    format!("drained; {} {} left", counted(count, "kernel"), if count == 1 { "is" } else { "are" })
}

fn headline(status: &Status) -> String {
    let state = match (status.ready, status.offers_slots) {
        (true, _) => "ready",
        (false, true) => "not ready",
        (false, false) => "not ready, offers no slots",
    };
    let unmet: Vec<&str> = status.conditions.iter().filter(|c| !c.ok).map(|c| c.reason.as_str()).collect();
    let why = if unmet.is_empty() { String::new() } else { format!(" ({})", unmet.join("; ")) };
    format!("{}: {state}{why}, up {}", status.instance, span(status.now - status.started))
}

fn node(status: &Status) -> String {
    let mut text = format!(
        "{}\nnamespace {}, version {}, pid {}\n",
        headline(status),
        status.namespace,
        status.version,
        status.pid
    );
    if let Some(node) = &status.node {
        let busy = node.cores.iter().filter(|(_, kernels)| *kernels > 0).count();
        let shares: u32 = node.cores.iter().map(|(_, kernels)| kernels).sum();
        let beat =
            node.last_heartbeat.map_or_else(|| "not yet".to_owned(), |at| span(status.now - at) + " ago");
        // Writing into a text does not fail.
        let _ = writeln!(
            text,
            "cores {busy} of {} given, {shares} times; memory {} of {} given; {}; {} images",
            node.cores.len(),
            bytes(node.memory_given),
            bytes(node.memory),
            counted(status.kernels.len(), "kernel"),
            node.images
        );
        let _ = writeln!(
            text,
            "machine: load {:.2}, {} of {} memory available, up {}",
            node.load,
            bytes(node.host_memory_available),
            bytes(node.host_memory),
            span(status.now - node.booted)
        );
        let _ = writeln!(text, "{} events wait for the manager; last heartbeat {beat}", node.events_waiting);
        for (image, here, all) in &node.pulls {
            let _ = writeln!(text, "pulling {image}: {} of {}", bytes(*here), bytes(*all));
        }
    }
    let mut table = plain(["NEED", "STATE", "SINCE", "WHY"]);
    for need in &status.conditions {
        #[allow(clippy::cast_precision_loss)] // seconds since 1970
        let since = span(status.now - need.since as f64);
        table.add_row([
            need.name.clone(),
            if need.ok { "good" } else { "not met" }.to_owned(),
            since,
            need.reason.clone(),
        ]);
    }
    let _ = writeln!(text, "\n{table}");
    for line in &status.warnings {
        let _ = writeln!(text, "{} ago {} {}", span(status.now - line.at), line.level, line.text);
    }
    text
}

/// The kernels, with the cores that each was busy since `before`, if that is given.
fn kernels(status: &Status, before: Option<&Status>) -> String {
    let mut table =
        plain(["KERNEL", "IMAGE", "STATE", "AGE", "CORES", "BUSY", "MEMORY", "LIMIT", "DOES", "QUEUE"]);
    for kernel in &status.kernels {
        let list: Vec<String> = kernel.cores.iter().map(ToString::to_string).collect();
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let detail = kernel.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        table.add_row([
            kernel.id.clone(),
            known(kernel.image.clone()),
            format!("{}{detail}", kernel.state),
            known(kernel.created.map(|created| span(status.now - created))),
            list.join(","),
            known(before.and_then(|before| busy(status, kernel, before))),
            known(kernel.used.map(|used| bytes(used.memory))),
            if kernel.memory_limit == 0 { "-".to_owned() } else { bytes(kernel.memory_limit) },
            does(kernel),
            kernel.queue.to_string(),
        ]);
    }
    table.to_string()
}

fn busy(status: &Status, kernel: &Kernel, before: &Status) -> Option<String> {
    let earlier = before.kernels.iter().find(|other| other.id == kernel.id)?.used?.cpu_seconds;
    let passed = status.now - before.now;
    (passed > 0.0).then_some(format!("{:.2}", (kernel.used?.cpu_seconds - earlier).max(0.0) / passed))
}

fn does(kernel: &Kernel) -> String {
    match (&kernel.run, kernel.idle_for) {
        (Some(run), _) if run.wants_input => format!("run {} waits for input", run.id),
        (Some(run), _) => match run.for_seconds {
            Some(seconds) => format!("run {} for {}", run.id, span(seconds)),
            None => format!("run {}", run.id),
        },
        (None, Some(idle)) => format!("idle for {}", span(idle)),
        (None, None) => "-".to_owned(),
    }
}

fn plain<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table
}

/// `90 s`, `12 min`, `3 h`, `4 d`.
fn span(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // a float becomes the nearest number that there is
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// `1 kernel`, `2 kernels`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len() - 1).find(|unit| n >> (10 * (unit + 1)) < 10).unwrap_or(UNITS.len() - 1);
    format!("{} {}", n >> (10 * unit), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Condition, Node, Run, Used};

    fn status(seconds: f64) -> Status {
        let kernel = Kernel {
            id: "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10".to_owned(),
            state: "running".to_owned(),
            image: Some("python:3.6-debian".to_owned()),
            created: Some(1000.0),
            cores: vec![0, 1],
            memory_limit: 512 << 20,
            run: Some(Run { id: "r-1".to_owned(), for_seconds: Some(7.0), wants_input: false }),
            used: Some(Used { cpu_seconds: seconds, memory: 100 << 20, ..Used::default() }),
            ..Kernel::default()
        };
        let reason = "Docker does not answer".to_owned();
        Status {
            instance: "i-1".to_owned(),
            started: 1000.0,
            now: 4600.0 + seconds,
            conditions: vec![Condition { name: "docker".to_owned(), ok: false, since: 4500, reason }],
            node: Some(Node {
                cores: vec![(0, 1), (1, 1)],
                memory: 2 << 30,
                memory_given: 512 << 20,
                ..Node::default()
            }),
            kernels: vec![
                kernel,
                Kernel { id: "new".to_owned(), state: "creating".to_owned(), ..Kernel::default() },
            ],
            ..Status::default()
        }
    }

    #[test]
    fn kernels_are_shown_with_what_they_do() {
        let text = kernels(&status(2.0), Some(&status(1.0)));
        let row: Vec<&str> =
            text.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|s| !s.is_empty()).collect();
        let expected = [
            "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10",
            "python:3.6-debian",
            "running",
            "60 min",
            "0,1",
            "1.00",
            "100 MiB",
            "512 MiB",
            "run r-1 for 7 s",
            "0",
        ];
        assert_eq!(row, expected, "{text}");
        assert!(text.lines().nth(2).unwrap().contains("creating"), "{text}");
    }

    #[test]
    fn the_node_says_why_it_is_not_ready() {
        let text = node(&status(0.0));
        assert!(
            text.starts_with("i-1: not ready, offers no slots (Docker does not answer), up 60 min\n"),
            "{text}"
        );
        assert!(
            text.contains("cores 2 of 2 given, 2 times; memory 512 MiB of 2048 MiB given; 2 kernels"),
            "{text}"
        );
        assert!(text.contains("100 s"), "{text}");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(
            [0, 1023, 10 << 10, 5 << 30, 20 << 40].map(bytes),
            ["0 B", "1023 B", "10 KiB", "5120 MiB", "20 TiB"]
        );
        assert_eq!([0.4, 119.0, 120.0, 7200.0, 1e6].map(span), ["0 s", "119 s", "2 min", "2 h", "11 d"]);
    }
}
