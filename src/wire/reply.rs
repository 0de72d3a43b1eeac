//! The values that requests are answered with (PROTOCOL sections 3, 6 and 8; law: the manager reads these keys).
//!
//! The order of the keys is the reference's, so that recorded answers compare byte for byte.

use super::request::ApiVersion;
use super::service::PublishedService;
use super::value::{self, Value};
use crate::ids::{ContainerId, KernelId, RunId};

/// The answer of `create_kernel`, and all but two keys of `restart_kernel`'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPlace {
    /// Which kernel.
    pub kernel: KernelId,
    /// The host that the manager connects to for terminals.
    pub host: String,
    /// The published ports.
    pub ports: Ports,
    /// The container it runs in.
    pub container: ContainerId,
    /// The cores it has.
    pub cpu_set: Vec<u32>,
    /// The GPUs it has.
    pub gpu_set: Vec<u32>,
    /// The services that its image declares.
    pub services: Vec<PublishedService>,
}

/// The host ports of a kernel's four sockets (PROTOCOL section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// 2000: what the agent sends to the runner.
    pub repl_in: u16,
    /// 2001: what the runner sends to the agent.
    pub repl_out: u16,
    /// 2002: terminal input, from the manager.
    pub stdin: u16,
    /// 2003: terminal output, to the manager.
    pub stdout: u16,
}

impl KernelPlace {
    fn services(&self) -> Value {
        Value::Array(self.services.iter().map(PublishedService::to_value).collect())
    }

    /// `create_kernel`'s answer: all that any manager reads. 18.12 alone reads `service_ports`, and 1.3 alone the sets.
    #[must_use]
    pub fn created(&self) -> Value {
        value::map([
            ("id", Value::from(self.kernel.to_string())),
            ("kernel_host", self.host.as_str().into()),
            ("repl_in_port", self.ports.repl_in.into()),
            ("repl_out_port", self.ports.repl_out.into()),
            ("stdin_port", self.ports.stdin.into()),
            ("stdout_port", self.ports.stdout.into()),
            ("container_id", self.container.as_str().into()),
            ("cpu_set", value::uints(&self.cpu_set)),
            ("gpu_set", value::uints(&self.gpu_set)),
            ("service_ports", self.services()),
        ])
    }

    /// `restart_kernel`'s answer. The ports are ints; the reference answers texts (the manager stores either).
    #[must_use]
    pub fn restarted(&self) -> Value {
        value::map([
            ("container_id", Value::from(self.container.as_str())),
            ("cpu_set", value::uints(&self.cpu_set)),
            ("gpu_set", value::uints(&self.gpu_set)),
            ("repl_in_port", self.ports.repl_in.into()),
            ("repl_out_port", self.ports.repl_out.into()),
            ("stdin_port", self.ports.stdin.into()),
            ("stdout_port", self.ports.stdout.into()),
            ("service_ports", self.services()),
        ])
    }
}

/// One piece of output, in the order it came.
#[derive(Debug, Clone, PartialEq)]
pub enum ConsoleItem {
    /// Text of standard output.
    Stdout(String),
    /// Text of standard error.
    Stderr(String),
    /// Something to show: its MIME type and its data.
    Media(String, String),
    /// HTML to show.
    Html(String),
    /// A line for the log.
    Log(String),
    /// Completions that nobody asked for by `get_completions`.
    Completion(serde_json::Value),
}

/// Why a call to `execute` came back.
#[derive(Debug, Clone, PartialEq)]
pub enum RunStatus {
    /// The run goes on; ask again with `continue`.
    Continued,
    /// The run is over.
    Finished(ExitCode),
    /// The clean step is over, the build step follows.
    CleanFinished(ExitCode),
    /// The build step is over, the execution step follows.
    BuildFinished(ExitCode),
    /// The run waits for `input`; the map says how (`is_password`).
    WaitingInput(serde_json::Value),
    /// The image's limit of one execution ran out; the kernel is being destroyed.
    ExecTimeout,
}

/// An exit code as the runner gave it, if it gave one.
pub type ExitCode = Option<i64>;

/// A file that the run made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultFile {
    /// The file's path relative to `.output`.
    pub name: String,
    /// Where to fetch it, or `#dummy-upload`.
    pub url: String,
}

/// The answer of `execute`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// The run, so that the caller can go on with it.
    pub run_id: RunId,
    /// Why the call came back.
    pub status: RunStatus,
    /// What came out since the last answer.
    pub output: Vec<ConsoleItem>,
    /// New files; only at the end of a `query` or `batch` run.
    pub files: Vec<ResultFile>,
}

impl RunResult {
    /// The map, shaped for the caller's API version.
    #[must_use]
    pub fn into_value(self, version: ApiVersion) -> Value {
        let (status, exit_code, options) = match &self.status {
            RunStatus::Continued => ("continued", Value::Nil, Value::Nil),
            RunStatus::Finished(code) => ("finished", value::opt(*code), Value::Nil),
            RunStatus::CleanFinished(code) => ("clean-finished", value::opt(*code), Value::Nil),
            RunStatus::BuildFinished(code) => ("build-finished", value::opt(*code), Value::Nil),
            RunStatus::WaitingInput(options) => ("waiting-input", Value::Nil, value::from_json(options)),
            RunStatus::ExecTimeout => ("exec-timeout", Value::Nil, Value::Nil),
        };
        let mut pairs = vec![
            ("runId", Value::from(self.run_id.as_str())),
            ("status", status.into()),
            ("exitCode", exit_code),
            ("options", options),
        ];
        match version {
            ApiVersion::V1 => pairs.extend(separate(self.output)),
            ApiVersion::V2 | ApiVersion::V3 => {
                pairs.push(("console", Value::Array(self.output.into_iter().map(console_item).collect())));
            }
        }
        let files = self
            .files
            .iter()
            .map(|f| value::map([("name", f.name.as_str().into()), ("url", f.url.as_str().into())]));
        pairs.push(("files", Value::Array(files.collect())));
        value::map(pairs)
    }
}

fn pair(kind: &str, data: Value) -> Value {
    Value::Array(vec![kind.into(), data])
}

fn console_item(item: ConsoleItem) -> Value {
    match item {
        ConsoleItem::Stdout(text) => pair("stdout", text.into()),
        ConsoleItem::Stderr(text) => pair("stderr", text.into()),
        ConsoleItem::Media(mime, data) => pair("media", pair(&mime, data.into())),
        ConsoleItem::Html(text) => pair("html", text.into()),
        ConsoleItem::Log(text) => pair("log", text.into()),
        ConsoleItem::Completion(json) => pair("completion", value::from_json(&json)),
    }
}

/// API version 1 has no place for logs and completions; the reference drops them too.
fn separate(output: Vec<ConsoleItem>) -> [(&'static str, Value); 4] {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let (mut media, mut html) = (Vec::new(), Vec::new());
    for item in output {
        match item {
            ConsoleItem::Stdout(text) => stdout.push_str(&text),
            ConsoleItem::Stderr(text) => stderr.push_str(&text),
            ConsoleItem::Media(mime, data) => media.push(pair(&mime, data.into())),
            ConsoleItem::Html(text) => html.push(Value::from(text)),
            ConsoleItem::Log(_) | ConsoleItem::Completion(_) => {}
        }
    }
    [
        ("stdout", stdout.into()),
        ("stderr", stderr.into()),
        ("media", Value::Array(media)),
        ("html", Value::Array(html)),
    ]
}

/// `get_completions`' answer.
#[must_use]
pub fn completions(found: &serde_json::Value) -> Value {
    value::map([("status", "finished".into()), ("completions", value::from_json(found))])
}

/// `interrupt_kernel`'s answer.
#[must_use]
pub fn interrupted() -> Value {
    value::map([("status", "finished".into())])
}

/// `get_logs`' answer.
#[must_use]
pub fn logs(text: &str) -> Value {
    value::map([("logs", text.into())])
}

/// `list_files`' answer: the listing as a text of JSON, and what could not be listed.
#[must_use]
pub fn files(listing: &Listing) -> Value {
    let mut pairs =
        vec![("files", Value::from(listing.files.as_str())), ("errors", listing.errors.as_str().into())];
    if let Some(abspath) = &listing.abspath {
        pairs.push(("abspath", abspath.as_str().into()));
    }
    value::map(pairs)
}

/// What `list_files` found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// A JSON list and a line break; empty where nothing could be listed.
    pub files: String,
    /// Why not all was listed; empty where all was.
    pub errors: String,
    /// The real path and a line break, with a slash behind a directory's; `None` where there is none.
    pub abspath: Option<String>,
}

/// `start_service`'s answer where the runner was not asked, or did not say anything.
#[must_use]
pub fn service_failed(error: &str) -> Value {
    value::map([("status", "failed".into()), ("error", error.into())])
}

/// `start_service`'s answer, as the runner gave it.
#[must_use]
pub fn service(answer: &serde_json::Value) -> Value {
    if answer.get("status").is_some_and(serde_json::Value::is_string) {
        return value::from_json(answer);
    }
    service_failed("the kernel's runner gave no answer that can be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(output: Vec<ConsoleItem>) -> RunResult {
        RunResult { run_id: RunId::new("r"), status: RunStatus::Finished(Some(0)), output, files: vec![] }
    }

    #[test]
    fn version_2_keeps_the_order_and_version_1_sorts_by_kind() {
        let run = result(vec![
            ConsoleItem::Stdout("a".into()),
            ConsoleItem::Media("image/png".into(), "xx".into()),
            ConsoleItem::Stdout("b".into()),
            ConsoleItem::Log("l".into()),
        ]);
        let v2 = run.clone().into_value(ApiVersion::V2);
        assert_eq!(v2, run.clone().into_value(ApiVersion::V3));
        let console = value::get(&v2, "console").unwrap().to_string();
        assert_eq!(
            console,
            r#"[["stdout", "a"], ["media", ["image/png", "xx"]], ["stdout", "b"], ["log", "l"]]"#
        );
        let v1 = run.clone().into_value(ApiVersion::V1);
        assert_eq!(value::get(&v1, "stdout"), Some(&"ab".into()));
        assert_eq!(value::get(&v1, "console"), None);
        let keys: Vec<_> = v1.as_map().unwrap().iter().map(|(k, _)| k.as_str().unwrap()).collect();
        assert_eq!(
            keys,
            ["runId", "status", "exitCode", "options", "stdout", "stderr", "media", "html", "files"]
        );
    }
}
