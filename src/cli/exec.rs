//! `exec`: a run from its first call to its end, its output as it comes.

use std::collections::VecDeque;
use std::io::Write;

use super::terminal::{say, standard_input};
use super::{ExecArgs, ExecMode, Exit};
use crate::client::{CallError, Client};
use crate::ids::RunId;
use crate::wire::Value;
use crate::wire::value;

/// Follows the run until it is finished.
pub(super) async fn exec(client: &Client, json: bool, args: ExecArgs) -> Result<Exit, CallError> {
    let code = match args.code.as_deref() {
        Some("-") => match standard_input() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("backendai-agent: could not read standard input: {error}");
                return Ok(Exit::Failed);
            }
        },
        other => other.unwrap_or_default().to_owned(),
    };
    let run = args.run_id.clone().unwrap_or_else(RunId::random);
    let mut inputs: VecDeque<String> = args.inputs.clone().into();
    let opts = value::map([
        ("build", value::opt(args.build.as_deref())),
        ("exec", value::opt(args.exec.as_deref())),
    ]);
    let first = match args.mode {
        ExecMode::Query => "query",
        ExecMode::Batch => "batch",
    };
    let (mut mode, mut text) = (first, code);
    loop {
        let call = vec![
            args.api_version.into(),
            args.kernel.to_string().into(),
            run.as_str().into(),
            mode.into(),
            text.into(),
            opts.clone(),
        ];
        let answer = client.call("execute", call).await?;
        if json {
            say(true, &answer, "");
        } else {
            print_output(&answer);
        }
        match value::get(&answer, "status").and_then(Value::as_str) {
            Some("continued") => {
                note(json, "… still running, going on");
                (mode, text) = ("continue", String::new());
            }
            Some("build-finished") => {
                note(json, &format!("[build finished, exit code {}]", exit_code(&answer)));
                (mode, text) = ("continue", String::new());
            }
            Some("waiting-input") => {
                let input = next_input(&mut inputs);
                note(json, &format!("[input: {input}]"));
                (mode, text) = ("input", input);
            }
            Some(status) => {
                note(json, &format!("[{status}, exit code {}]", exit_code(&answer)));
                let code = value::get(&answer, "exitCode").and_then(Value::as_i64);
                return Ok(if status == "finished" { by_code(code) } else { Exit::Failed });
            }
            None => {
                note(json, "[cut off: the kernel was restarted or destroyed]");
                return Ok(Exit::Failed);
            }
        }
    }
}

fn by_code(code: Option<i64>) -> Exit {
    match code.map(u8::try_from) {
        None | Some(Ok(0)) => Exit::Done,
        Some(Ok(code)) => Exit::Code(code),
        Some(Err(_)) => Exit::Failed,
    }
}

fn exit_code(answer: &Value) -> String {
    value::get(answer, "exitCode").map_or_else(String::new, ToString::to_string)
}

/// What was given on the command line, then what a person types.
fn next_input(inputs: &mut VecDeque<String>) -> String {
    inputs.pop_front().unwrap_or_else(|| {
        let mut line = String::new();
        // An empty line when standard input has ended: the code gets an answer either way.
        let _ = std::io::stdin().read_line(&mut line);
        line.trim_end_matches('\n').to_owned()
    })
}

fn note(json: bool, text: &str) {
    if !json {
        eprintln!("{text}");
    }
}

fn print_output(answer: &Value) {
    let text = |key: &str| value::get(answer, key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Whoever reads may be gone; then there is nobody to print for.
    let _ = write!(std::io::stdout(), "{}", text("stdout"));
    let _ = write!(std::io::stderr(), "{}", text("stderr"));
    for item in value::get(answer, "console").and_then(Value::as_array).into_iter().flatten() {
        let Some([kind, data]) = item.as_array().map(Vec::as_slice) else { continue };
        let _ = match (kind.as_str(), data.as_str()) {
            (Some("stdout"), Some(text)) => write!(std::io::stdout(), "{text}"),
            (Some("stderr"), Some(text)) => write!(std::io::stderr(), "{text}"),
            (Some(kind), _) => writeln!(std::io::stdout(), "[{kind}] {data}"),
            _ => Ok(()),
        };
    }
    for file in value::get(answer, "files").and_then(Value::as_array).into_iter().flatten() {
        let part = |key| value::get(file, key).and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(std::io::stdout(), "[file {} {}]", part("name"), part("url"));
    }
    let _ = std::io::stdout().flush();
}
