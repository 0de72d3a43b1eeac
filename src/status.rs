//! What a running agent says of itself: the document behind `/status`, the page, and the operator's commands.
//!
//! Its shape is `docs/status.md`. It holds no secrets: kernels by id and image, no users, no environment, no code, no output.
//! Pure data, written by the agent and read by the client.

use serde::{Deserialize, Serialize};

/// The page, with a place for the nonce of its Content-Security-Policy.
pub const PAGE: &str = include_str!("status/page.html");

/// What [`PAGE`] has where the nonce belongs.
pub const NONCE: &str = "{{nonce}}";

/// The agent at one moment. Times are seconds since 1970; what is not known (yet) is null.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: f64,
    /// When this was written.
    pub now: f64,
    /// Which cluster it belongs to.
    pub namespace: String,
    /// Its name there.
    pub instance: String,
    /// Whether it can do all of its work.
    pub ready: bool,
    /// Whether it offers slots to the manager.
    pub offers_slots: bool,
    /// What its work needs: Docker, etcd, Redis, the manager and so on.
    pub conditions: Vec<Condition>,
    /// The node; null until Docker has answered.
    pub node: Option<Node>,
    /// All kernels, the oldest first.
    pub kernels: Vec<Kernel>,
    /// The newest warnings and errors of the log, the newest last.
    pub warnings: Vec<LogLine>,
}

/// How one need of the agent is met.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Condition {
    /// Which: `docker`, `etcd`, `redis`, `manager`, `events`, `disk` and so on.
    pub name: String,
    /// Whether it is met.
    pub ok: bool,
    /// Since when it is so.
    pub since: u64,
    /// Why it is not met; empty while it is.
    pub reason: String,
}

/// What the machine has, and what of it is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Node {
    /// How many kernels have each core that can be given, in order: `[[0, 1], [1, 0]]`.
    pub cores: Vec<(u32, u32)>,
    /// Bytes that can be given.
    pub memory: u64,
    /// Bytes of all limits together.
    pub memory_given: u64,
    /// Tasks of the whole machine that ran or waited, on average over the last minute.
    pub load: f64,
    /// Bytes of the machine's memory.
    pub host_memory: u64,
    /// Bytes of it that new processes can have.
    pub host_memory_available: u64,
    /// When the machine was started.
    pub booted: f64,
    /// GPUs that can be given, and kernels that have a part of each: `[[0, 1]]`.
    pub gpus: Vec<(u32, u32)>,
    /// Kernel images that the manager is told of.
    pub images: u64,
    /// Images that are being pulled: name, bytes that are here, bytes that are known of.
    pub pulls: Vec<(String, u64, u64)>,
    /// Events that wait for the manager.
    pub events_waiting: u64,
    /// When the last heartbeat arrived there.
    pub last_heartbeat: Option<f64>,
}

/// The newest part of the log of a kernel's container: the answer to `/logs/KERNEL`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Logs {
    /// The text; what was no UTF-8 in it is replaced.
    pub logs: String,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Kernel {
    /// Its id.
    pub id: String,
    /// `creating`, `looking`, `running`, `restarting`, `left-alone`, `ending` or `undoing`.
    pub state: String,
    /// Why it is in that state, where there is more to say.
    pub detail: Option<String>,
    /// The rest is null, empty or 0 unless it runs. Its image without the prefix.
    pub image: Option<String>,
    /// The short id of its container.
    pub container: Option<String>,
    /// When it was created, as far as its file system knows.
    pub created: Option<f64>,
    /// Its cores.
    pub cores: Vec<u32>,
    /// Its GPUs.
    pub gpus: Vec<u32>,
    /// Its memory limit in bytes; 0 for none.
    pub memory_limit: u64,
    /// The run that goes on.
    pub run: Option<Run>,
    /// Callers whose runs wait for their turn.
    pub queue: u64,
    /// For how many seconds nobody has used it; null while somebody does.
    pub idle_for: Option<f64>,
    /// What it has used, once that was measured.
    pub used: Option<Used>,
}

/// A run that goes on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// For how many seconds its code runs; null while it waits for input, or for the runner.
    pub for_seconds: Option<f64>,
    /// Whether it waits for input.
    pub wants_input: bool,
}

/// What a kernel has used; all but the memory and the files since its container began.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Used {
    /// Seconds of processor time.
    pub cpu_seconds: f64,
    /// Bytes of memory now, page cache included.
    pub memory: u64,
    /// Bytes received.
    pub net_rx: u64,
    /// Bytes sent.
    pub net_tx: u64,
    /// Bytes read from disks.
    pub io_read: u64,
    /// Bytes written to disks.
    pub io_write: u64,
    /// Bytes of its files.
    pub scratch: u64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub at: f64,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// What it says, its fields behind it.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of the document is described, and no other.
    #[test]
    fn the_document_is_described() {
        let full = Status {
            node: Some(Node::default()),
            conditions: vec![Condition::default()],
            kernels: vec![Kernel {
                run: Some(Run::default()),
                used: Some(Used::default()),
                ..Kernel::default()
            }],
            warnings: vec![LogLine::default()],
            ..Status::default()
        };
        let mut fields = Vec::new();
        collect("", &serde_json::to_value(&full).unwrap(), &mut fields);
        let described: Vec<&str> = include_str!("../docs/status.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(described, fields);
    }

    fn collect(prefix: &str, value: &serde_json::Value, fields: &mut Vec<String>) {
        for (name, value) in value.as_object().unwrap() {
            let inner = value.as_array().and_then(|list| list.first()).unwrap_or(value);
            fields.push(format!("{prefix}{name}"));
            if inner.is_object() {
                let many = if value.is_array() { "[]" } else { "" };
                collect(&format!("{prefix}{name}{many}."), inner, fields);
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let status = Status { instance: "i-1".to_owned(), node: Some(Node::default()), ..Status::default() };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }

    /// A strict policy: nothing comes from elsewhere, and nothing is put into the page as markup.
    #[test]
    fn the_page_needs_nothing_and_writes_no_markup() {
        assert_eq!(PAGE.matches(NONCE).count(), 2);
        for foreign in
            ["http://", "https://", "src=", "href=", "@import", "url(", "innerHTML", "onclick", "style=\""]
        {
            assert!(!PAGE.replace("http://www.w3.org/2000/svg", "").contains(foreign), "{foreign}");
        }
    }
}
