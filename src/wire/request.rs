//! The methods as types (PROTOCOL section 3): from a call's name and arguments to a [`Request`].
//!
//! Managers of 1.3, 1.4 and 18.12 differ in what they send, and every difference shows in the message at hand. So it ends
//! here: nothing behind a [`Request`] knows which manager asks.

use std::time::Duration;

use bytes::Bytes;

use super::call::Call;
use super::config::{BadConfig, ConfigPatch, KernelConfig};
use super::limits;
use super::params::{self, BadParameters, Bound};
use super::value::{self, Value};
use crate::ids::{BadKernelId, KernelId, RunId};

/// The methods' names.
pub const METHODS: &[&str] = &[
    "ping",
    "create_kernel",
    "destroy_kernel",
    "interrupt_kernel",
    "get_completions",
    "get_logs",
    "restart_kernel",
    "execute",
    "upload_file",
    "list_files",
    "download_file",
    "start_service",
    "ping_kernel",
    "reset",
    "clean_all_kernels",
];

/// A request that fits its method's signature.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Answer the same text.
    Ping(String),
    /// Make a kernel.
    CreateKernel(KernelId, Create),
    /// End a kernel; answers its last statistics.
    DestroyKernel(KernelId),
    /// Interrupt the run that is going on.
    InterruptKernel(KernelId),
    /// Code completions.
    GetCompletions(KernelId, Completions),
    /// The container's log.
    GetLogs(KernelId),
    /// A new container for the same kernel.
    RestartKernel(KernelId, ConfigPatch),
    /// Run code, or go on with a run.
    Execute(KernelId, Execute),
    /// Put a file into the kernel's scratch directory.
    UploadFile(KernelId, Upload),
    /// What a directory of the kernel's holds.
    ListFiles(KernelId, String),
    /// A file or a directory of the kernel's, as a tar.
    DownloadFile(KernelId, String),
    /// Start a service that the kernel's image declares.
    StartService(KernelId, StartService),
    /// The kernel is in use.
    PingKernel(KernelId),
    /// End all kernels.
    Reset,
}

/// The arguments of `create_kernel` besides the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    /// What it is made of.
    pub config: KernelConfig,
    /// By when it is wanted, from the receipt of the call on.
    pub wait: Duration,
}

/// The arguments of `start_service` besides the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct StartService {
    /// The name by which the image declares it.
    pub name: String,
    /// Passed on to the runner.
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// The arguments of `get_completions` besides the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Completions {
    /// The text before the cursor.
    pub text: String,
    /// Passed on to the runner (`line`, `row`, `col`, `post`).
    pub opts: serde_json::Map<String, serde_json::Value>,
}

/// The arguments of `upload_file` besides the kernel.
#[derive(Clone, PartialEq)]
pub struct Upload {
    /// Relative to the scratch directory; not yet checked.
    pub filename: String,
    /// The whole file; where the call had it last, a part of the call's own bytes.
    pub data: Bytes,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({:?}, {} bytes)", self.filename, self.data.len())
    }
}

/// The arguments of `execute` besides the kernel (PROTOCOL section 8).
#[derive(Debug, Clone, PartialEq)]
pub struct Execute {
    /// How the answer is shaped.
    pub version: ApiVersion,
    /// Which run; made up when the caller gave none.
    pub run_id: Option<RunId>,
    /// What to do.
    pub mode: Mode,
    /// After how long the call comes back with what there is, if the run goes on.
    pub flush: Duration,
    /// Whether new output files are put to S3 (section 12, item 31).
    pub upload_output_files: bool,
}

/// After how long an `execute` comes back where the caller does not say (PROTOCOL section 8).
const FLUSH: Duration = Duration::from_secs(2);
/// The longest that an `execute` waits for output. The manager of 18.12 gives up after 30 s and keeps its connection, so
/// that an answer after that would be lost.
const LONGEST_FLUSH: Duration = Duration::from_secs(25);

/// The shapes of an `execute` answer. 2, 3 and 4 are the same (section 12, item 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// Separate `stdout`, `stderr`, `media`, `html`.
    V1,
    /// One `console` list in order.
    V2,
    /// The default of the manager's HTTP routes; also what 1.4.5 calls 4.
    V3,
}

/// The four modes, each with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Run this source.
    Query(String),
    /// Run a clean command where one is given, a build command, then an execution command.
    Batch {
        /// `None` where nothing is to be sent: runners before 18.12 don't know the step.
        clean: Option<String>,
        /// Empty when there is nothing to build.
        build: String,
        /// Empty when there is nothing to execute.
        exec: String,
    },
    /// Give this text to a run that waits for input.
    Input(String),
    /// Go on waiting for a run's output.
    Continue,
}

/// Why a call is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// No such method.
    #[error("no such method: {0}")]
    UnknownMethod(String),
    /// The arguments do not fit the signature.
    #[error(transparent)]
    Parameters(#[from] BadParameters),
    /// The kernel's id is not one.
    #[error(transparent)]
    KernelId(#[from] BadKernelId),
    /// The config can't be used.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// `api_version` is not 1 to 4.
    #[error("api_version must be 1, 2, 3 or 4, not {0}")]
    ApiVersion(i64),
    /// `mode` is none of the four.
    #[error("mode must be query, batch, input or continue, not {0:?}")]
    Mode(String),
    /// `input` and `continue` go on with a run, and none was named.
    #[error("mode {0} needs the run_id of the run that it goes on with")]
    NoRunId(&'static str),
}

impl Request {
    /// What a call asks for.
    pub fn of(mut call: Call) -> Result<Self, BadRequest> {
        // A file may have 100 MB, and is held once.
        if call.method == "upload_file"
            && call.args.len() == 2
            && call.kwargs.is_empty()
            && let Some(data) = call.file.take()
        {
            let mut p = params::bind(&["kernel_id", "filename"], call.args, call.kwargs)?;
            return upload(&mut p, |_| Ok(data));
        }
        let (method, kwargs) = (std::mem::take(&mut call.method), std::mem::take(&mut call.kwargs));
        Self::parse(&method, call.all_args(), kwargs)
    }

    /// Binds and checks the arguments.
    pub fn parse(method: &str, args: Vec<Value>, kwargs: Vec<(String, Value)>) -> Result<Self, BadRequest> {
        let bind = |names: &[&'static str], args, kwargs| params::bind(names, args, kwargs);
        let only_kernel = |args, kwargs| -> Result<KernelId, BadRequest> {
            Ok(bind(&["kernel_id"], args, kwargs)?.text("kernel_id")?.parse()?)
        };
        match method {
            "ping" => Ok(Self::Ping(bind(&["msg"], args, kwargs)?.text("msg")?)),
            "create_kernel" => {
                let mut p = bind(&["kernel_id", "config"], args, kwargs)?;
                let (kernel, config) = (p.text("kernel_id")?, p.map("config")?);
                let wait = limits::wait(value::get(&config, "limits").unwrap_or(&Value::Nil));
                let config = KernelConfig::from_value(&config)?;
                Ok(Self::CreateKernel(kernel.parse()?, Create { config, wait }))
            }
            "destroy_kernel" => only_kernel(args, kwargs).map(Self::DestroyKernel),
            "interrupt_kernel" => only_kernel(args, kwargs).map(Self::InterruptKernel),
            "get_logs" => only_kernel(args, kwargs).map(Self::GetLogs),
            "get_completions" => completions(args, kwargs),
            "restart_kernel" => {
                let mut p = bind(&["kernel_id", "new_config"], args, kwargs)?;
                let (kernel, config) = (p.text("kernel_id")?, p.map("new_config")?);
                Ok(Self::RestartKernel(kernel.parse()?, ConfigPatch::from_value(&config)?))
            }
            "execute" => execute(args, kwargs),
            "upload_file" => {
                let mut p = bind(&["kernel_id", "filename", "filedata"], args, kwargs)?;
                upload(&mut p, |p| p.bytes("filedata").map(Bytes::from))
            }
            "list_files" => {
                let mut p = bind(&["kernel_id", "path"], args, kwargs)?;
                let (kernel, path) = (p.text("kernel_id")?, p.text("path")?);
                Ok(Self::ListFiles(kernel.parse()?, path))
            }
            "download_file" => {
                let mut p = bind(&["kernel_id", "filepath"], args, kwargs)?;
                let (kernel, path) = (p.text("kernel_id")?, p.text("filepath")?);
                Ok(Self::DownloadFile(kernel.parse()?, path))
            }
            "start_service" => {
                let mut p = bind(&["kernel_id", "service", "opts"], args, kwargs)?;
                let (kernel, name) = (p.text("kernel_id")?, p.text("service")?);
                let options = options(&mut p)?;
                Ok(Self::StartService(kernel.parse()?, StartService { name, options }))
            }
            "ping_kernel" => only_kernel(args, kwargs).map(Self::PingKernel),
            "reset" => bind(&[], args, kwargs).map(|_| Self::Reset).map_err(Into::into),
            // Why is for the log of a manager; the events say that the agent was reset.
            "clean_all_kernels" => {
                bind(&["reason"], args, kwargs)?.text_or_nil("reason")?;
                Ok(Self::Reset)
            }
            other => Err(BadRequest::UnknownMethod(other.to_owned())),
        }
    }
}

fn upload<'n>(
    p: &mut Bound<'n>,
    data: impl FnOnce(&mut Bound<'n>) -> Result<Bytes, BadParameters>,
) -> Result<Request, BadRequest> {
    let kernel = p.text("kernel_id")?;
    let upload = Upload { filename: p.text("filename")?, data: data(p)? };
    Ok(Request::UploadFile(kernel.parse()?, upload))
}

/// Both arities: the reference has `(kernel_id, text, opts)`, manager 1.3.12 sends `(kernel_id, mode, text, opts)`.
fn completions(args: Vec<Value>, kwargs: Vec<(String, Value)>) -> Result<Request, BadRequest> {
    let with_mode = args.len() + kwargs.len() > 3;
    let names: &[&str] =
        if with_mode { &["kernel_id", "mode", "text", "opts"] } else { &["kernel_id", "text", "opts"] };
    let mut p = params::bind(names, args, kwargs)?;
    if with_mode {
        p.text_or_nil("mode")?;
    }
    let kernel = p.text("kernel_id")?;
    let text = p.text_or_nil("text")?.unwrap_or_default();
    let opts = options(&mut p)?;
    Ok(Request::GetCompletions(kernel.parse()?, Completions { text, opts }))
}

/// `opts` for the runner, which speaks JSON.
fn options(p: &mut Bound<'_>) -> Result<serde_json::Map<String, serde_json::Value>, BadParameters> {
    match value::to_json(&p.map_or_nil("opts")?) {
        serde_json::Value::Object(opts) => Ok(opts),
        _ => Err(BadParameters("argument 'opts' must be a map".to_owned())),
    }
}

/// Both arities: the manager of 18.12 says at the end how long it wants to wait for output.
fn execute(args: Vec<Value>, kwargs: Vec<(String, Value)>) -> Result<Request, BadRequest> {
    let names = ["api_version", "kernel_id", "run_id", "mode", "code", "opts", "flush_timeout"];
    let has_flush = args.len() + kwargs.len() > 6;
    let names = if has_flush { &names[..] } else { &names[..6] };
    let mut p = params::bind(names, args, kwargs)?;
    let flush = if has_flush { flush(&p.value("flush_timeout"))? } else { FLUSH };
    let version = p.int("api_version")?;
    let kernel = p.text("kernel_id")?;
    let run_id = p.text_or_nil("run_id")?;
    let mode = p.text("mode")?;
    let code = p.text_or_nil("code")?.unwrap_or_default();
    let opts = p.map_or_nil("opts")?;
    if run_id.as_deref() == Some("") {
        return Err(BadParameters(
            "argument 'run_id' must be nil or a text of at least 1 character".to_owned(),
        )
        .into());
    }
    let option = |name: &str| match value::get(&opts, name) {
        None | Some(Value::Nil) => Ok(String::new()),
        Some(v) => v.as_str().map(str::to_owned).ok_or_else(|| {
            BadParameters(format!("argument 'opts': {name} must be text or nil, not {}", params::kind(v)))
        }),
    };
    let run_id = run_id.map(RunId::new);
    let mode = match mode.as_str() {
        "query" => Mode::Query(code),
        "batch" => {
            let clean = Some(option("clean")?).filter(|command| !command.is_empty());
            Mode::Batch { clean, build: option("build")?, exec: option("exec")? }
        }
        "input" if run_id.is_none() => return Err(BadRequest::NoRunId("input")),
        "input" => Mode::Input(code),
        "continue" if run_id.is_none() => return Err(BadRequest::NoRunId("continue")),
        "continue" => Mode::Continue,
        other => return Err(BadRequest::Mode(other.chars().take(40).collect())),
    };
    let version = match version {
        1 => ApiVersion::V1,
        2 => ApiVersion::V2,
        3 | 4 => ApiVersion::V3,
        other => return Err(BadRequest::ApiVersion(other)),
    };
    let upload_output_files =
        !matches!(value::get(&opts, "upload_output_files"), Some(Value::Boolean(false)));
    Ok(Request::Execute(kernel.parse()?, Execute { version, run_id, mode, flush, upload_output_files }))
}

/// Nil stands for the end of the run, however long that takes; the caller can't wait for that.
fn flush(value: &Value) -> Result<Duration, BadParameters> {
    let seconds = match value {
        Value::Nil => return Ok(LONGEST_FLUSH),
        number => number.as_f64().filter(|seconds| !seconds.is_nan() && *seconds >= 0.0),
    };
    let seconds = seconds.ok_or_else(|| {
        let text = "argument 'flush_timeout' must be a number of seconds or nil, not ";
        BadParameters(text.to_owned() + params::kind(value))
    })?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_FLUSH).min(LONGEST_FLUSH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::RequestHeader;

    const K: &str = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10";

    fn run(args: Vec<Value>) -> Result<Execute, String> {
        match Request::parse("execute", args, vec![]) {
            Ok(Request::Execute(_, e)) => Ok(e),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn execute_takes_nil_where_the_manager_sends_it() {
        let e = run(vec![3.into(), K.into(), Value::Nil, "query".into(), Value::Nil, Value::Nil]).unwrap();
        assert_eq!(
            e,
            Execute {
                version: ApiVersion::V3,
                run_id: None,
                mode: Mode::Query(String::new()),
                flush: FLUSH,
                upload_output_files: true
            }
        );
        let opts =
            value::map([("exec", "ls".into()), ("build", Value::Nil), ("upload_output_files", false.into())]);
        let e = run(vec![1.into(), K.into(), "r".into(), "batch".into(), "".into(), opts]).unwrap();
        assert_eq!(e.mode, Mode::Batch { clean: None, build: String::new(), exec: "ls".into() });
        assert!(!e.upload_output_files);
        let opts = value::map([("clean", "rm -f x".into()), ("build", Value::Nil)]);
        let e = run(vec![4.into(), K.into(), "r".into(), "batch".into(), "".into(), opts]).unwrap();
        let clean = Some("rm -f x".to_owned());
        assert_eq!(e.mode, Mode::Batch { clean, build: String::new(), exec: String::new() });
        assert_eq!(e.version, ApiVersion::V3);
    }

    #[test]
    fn how_long_to_wait_for_output_is_the_seventh_argument() {
        let flush = |last: Value| {
            let args = vec![2.into(), K.into(), "r".into(), "continue".into(), "".into(), Value::Nil, last];
            run(args).map(|e| e.flush)
        };
        assert_eq!(flush(0.2.into()), Ok(Duration::from_millis(200)));
        assert_eq!(flush(2.into()), Ok(Duration::from_secs(2)));
        assert_eq!(flush(0.into()), Ok(Duration::ZERO));
        for end in [Value::Nil, 1e300.into(), f64::INFINITY.into(), 26.into()] {
            assert_eq!(flush(end), Ok(LONGEST_FLUSH));
        }
        let text = "argument 'flush_timeout' must be a number of seconds or nil, not a float";
        for odd in [f64::NAN, -1.0] {
            assert_eq!(flush(odd.into()), Err(text.to_owned()));
        }
        assert_eq!(flush("2".into()), Err(text.replace("a float", "text")));
    }

    #[test]
    fn the_methods_of_later_managers_are_known() {
        let kernel: KernelId = K.parse().unwrap();
        let parse = |m: &str, args| Request::parse(m, args, vec![]);
        let path = || vec![K.into(), "sub".into()];
        assert_eq!(parse("list_files", path()), Ok(Request::ListFiles(kernel, "sub".into())));
        assert_eq!(parse("download_file", path()), Ok(Request::DownloadFile(kernel, "sub".into())));
        assert_eq!(parse("ping_kernel", vec![K.into()]), Ok(Request::PingKernel(kernel)));
        for reason in ["manager-freeze-force-kill".into(), Value::Nil] {
            assert_eq!(parse("clean_all_kernels", vec![reason]), Ok(Request::Reset));
        }
        let start = parse("start_service", vec![K.into(), "jupyter".into(), Value::Nil]);
        let wanted = StartService { name: "jupyter".into(), options: serde_json::Map::new() };
        assert_eq!(start, Ok(Request::StartService(kernel, wanted)));
    }

    #[test]
    fn execute_refuses_what_it_does_not_know() {
        let with = |v: i64, id: &str, run_id: Value, mode: &str| {
            run(vec![v.into(), id.into(), run_id, mode.into(), "".into(), Value::Nil]).unwrap_err()
        };
        assert_eq!(with(5, K, Value::Nil, "query"), "api_version must be 1, 2, 3 or 4, not 5");
        assert!(with(2, "/", Value::Nil, "query").starts_with("kernel_id must be a UUID"));
        assert!(with(2, K, Value::Nil, "continue").contains("needs the run_id"));
        assert!(with(2, K, "".into(), "query").contains("at least 1 character"));
        assert!(with(2, K, "r".into(), "dance").contains("not \"dance\""));
    }

    #[test]
    fn a_file_is_taken_from_wherever_it_stands_and_not_copied() {
        let header = RequestHeader { pid: 1, random: 2, request_id: 3, sent_at: 4.0 };
        let parse = |args: &[Value], kwargs: &[(&str, Value)]| -> Result<bool, String> {
            let kwargs = kwargs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let call = Call { header, method: "upload_file".into(), args: args.to_vec(), file: None, kwargs };
            let frames = call.encode();
            let request = Request::of(Call::decode(&frames).unwrap()).map_err(|error| error.to_string())?;
            let Request::UploadFile(_, upload) = request else { panic!("{request:?}") };
            assert_eq!((&upload.filename[..], &upload.data[..]), ("a", &[7; 100][..]));
            Ok(frames[2].as_ptr_range().contains(&upload.data.as_ptr()))
        };
        let (kernel, name, data) = (Value::from(K), Value::from("a"), || Value::from(vec![7_u8; 100]));
        assert_eq!(parse(&[kernel.clone(), name.clone(), data()], &[]), Ok(true));
        assert_eq!(parse(&[kernel.clone(), name.clone()], &[("filedata", data())]), Ok(false));
        let refused = |args: &[Value]| parse(args, &[]).unwrap_err();
        assert_eq!(refused(&[kernel.clone(), data()]), "missing a required argument: 'filedata'");
        assert_eq!(
            refused(&[kernel.clone(), name.clone(), name.clone(), data()]),
            "too many positional arguments"
        );
        let text = "argument 'filename' must be text, not an integer";
        assert_eq!(refused(&[kernel.clone(), 1.into(), data()]), text);
        assert!(refused(&["/".into(), name.clone(), data()]).starts_with("kernel_id must be a UUID"));
        let pickle = Value::Ext(127, vec![1]);
        assert!(refused(&[kernel, pickle, data()]).contains("msgpack extension type"));
    }

    #[test]
    fn completions_have_two_arities() {
        let opts = || value::map([("line", "imp".into())]);
        let three = Request::parse("get_completions", vec![K.into(), "imp".into(), opts()], vec![]).unwrap();
        let four = vec![K.into(), "query".into(), "imp".into(), opts()];
        assert_eq!(Request::parse("get_completions", four, vec![]).unwrap(), three);
    }

    #[test]
    fn the_methods_of_the_list_are_those_that_are_known() {
        for method in METHODS {
            let parsed = Request::parse(method, vec![], vec![]);
            assert!(!matches!(parsed, Err(BadRequest::UnknownMethod(_))), "{method}");
        }
        let known = include_str!("request.rs").split("match method {").nth(1).unwrap();
        let arms = known.lines().take_while(|line| !line.trim_start().starts_with("other =>"));
        let arms: Vec<&str> = arms.filter(|line| line.starts_with("            \"")).collect();
        assert_eq!(arms.len(), METHODS.len(), "{arms:?}");
    }

    #[test]
    fn names_and_arities_are_checked() {
        let parse = |m: &str, args| Request::parse(m, args, vec![]).unwrap_err();
        assert_eq!(parse("_execute", vec![]), BadRequest::UnknownMethod("_execute".into()));
        assert!(matches!(parse("reset", vec![1.into()]), BadRequest::Parameters(_)));
        assert!(matches!(parse("ping", vec![1.into()]), BadRequest::Parameters(_)));
        assert!(matches!(parse("destroy_kernel", vec!["..".into()]), BadRequest::KernelId(_)));
    }
}
