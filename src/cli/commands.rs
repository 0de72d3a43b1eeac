//! The commands that talk to an agent, over the same wire types that it answers with.

use std::time::Instant;

use super::terminal::{self, say};
use super::{ClientCommand, CreateArgs, Exit, LogsArgs, RestartArgs, UploadArgs, exec};
use crate::client::{CallError, Client};
use crate::ids::KernelId;
use crate::units::Memory;
use crate::wire::Value;
use crate::wire::config::{KernelConfig, Mount};
use crate::wire::limits::Limits;
use crate::wire::value;

/// What an agent says of a kernel that it does not have.
const NOT_RUNNING: &str = "is not running on this agent";

/// Carries one out and prints its answer.
pub(super) async fn perform(client: &Client, json: bool, command: ClientCommand) -> Result<Exit, CallError> {
    let id = |kernel: KernelId| Value::from(kernel.to_string());
    let answer = match command {
        ClientCommand::Ping(args) => {
            for _ in 0..args.count.get() {
                let begun = Instant::now();
                let answer = client.call("ping", vec![args.message.as_str().into()]).await?;
                let text = answer.as_str().unwrap_or_default();
                say(json, &answer, &format!("{text} ({:.1} ms)", begun.elapsed().as_secs_f64() * 1000.0));
            }
            return Ok(Exit::Done);
        }
        ClientCommand::Create(args) => return create(client, json, args).await,
        ClientCommand::Attach(args) => return exec::attach(client, json, args).await,
        ClientCommand::Exec(args) => return exec::exec(client, json, args).await,
        ClientCommand::Upload(args) => return upload(client, json, args).await,
        ClientCommand::Logs(args) => return logs(client, json, args).await,
        ClientCommand::Restart(args) => return restart(client, json, args).await,
        ClientCommand::Complete(args) => {
            let opts = value::map([
                ("line", args.text.as_str().into()),
                ("row", 0.into()),
                ("post", "".into()),
                ("col", args.text.chars().count().into()),
            ]);
            let answer =
                client.call("get_completions", vec![id(args.kernel), args.text.into(), opts]).await?;
            let found =
                value::get(&answer, "completions").and_then(Value::as_array).cloned().unwrap_or_default();
            let words: Vec<_> = found.iter().filter_map(Value::as_str).collect();
            say(json, &answer, &words.join("\n"));
            return Ok(Exit::Done);
        }
        ClientCommand::Interrupt(args) => client.call("interrupt_kernel", vec![id(args.kernel)]).await?,
        ClientCommand::Destroy(args) => return destroy(client, json, args.kernel).await,
        ClientCommand::Reset(_) => client.call("reset", vec![]).await?,
    };
    say(json, &answer, &as_lines(&answer));
    Ok(Exit::Done)
}

fn as_lines(answer: &Value) -> String {
    match answer {
        Value::Nil => "done".to_owned(),
        Value::Map(pairs) => {
            let line = |(k, v): &(Value, Value)| {
                let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                format!("{:>20}  {}", text(k), text(v))
            };
            pairs.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

async fn create(client: &Client, json: bool, args: CreateArgs) -> Result<Exit, CallError> {
    let kernel = args.kernel_id.unwrap_or_else(KernelId::random);
    let mem_slot = Memory::from_mib(args.limits.mem.get());
    let config = KernelConfig {
        lang: args.lang,
        limits: Limits { mem_slot, cpu_slot: args.limits.cpu, gpu_slot: args.limits.gpu },
        mounts: args.mounts,
        environ: args.environ.into_iter().map(|e| (e.name, e.value)).collect(),
        cpu_set: None,
        gpu_set: None,
    };
    let answer = client.call("create_kernel", vec![kernel.to_string().into(), config.to_value()]).await?;
    say(json, &answer, &as_lines(&answer));
    Ok(Exit::Done)
}

async fn restart(client: &Client, json: bool, args: RestartArgs) -> Result<Exit, CallError> {
    // What is absent stays as it was: the agent keeps what a new config leaves out.
    let mut pairs = Vec::new();
    if let Some(lang) = &args.lang {
        pairs.push(("lang", Value::from(lang.as_str())));
    }
    let limits: Vec<_> = [
        ("mem_slot", args.mem.map(|m| Value::from(m.get()))),
        ("cpu_slot", args.cpu.map(|cores| Value::from(cores.slot()))),
        ("gpu_slot", args.gpu.map(|gpus| Value::from(gpus.slot()))),
    ]
    .into_iter()
    .filter_map(|(name, v)| Some((name, v?)))
    .collect();
    if !limits.is_empty() {
        pairs.push(("limits", value::map(limits)));
    }
    pairs.push((
        "environ",
        value::map(args.environ.iter().map(|e| (e.name.as_str(), Value::from(e.value.as_str())))),
    ));
    let mount =
        |m: &Mount| Value::Array(vec![m.name.as_str().into(), m.host.as_str().into(), m.id.as_str().into()]);
    pairs.push(("mounts", Value::Array(args.mounts.iter().map(mount).collect())));
    let answer =
        client.call("restart_kernel", vec![args.kernel.to_string().into(), value::map(pairs)]).await?;
    say(json, &answer, &as_lines(&answer));
    Ok(Exit::Done)
}

/// The agent answers nil also for a kernel that it does not have, as the manager needs it; a person wants to know.
async fn destroy(client: &Client, json: bool, kernel: KernelId) -> Result<Exit, CallError> {
    let id = Value::from(kernel.to_string());
    if let Err(CallError::Remote(error)) = client.call("get_logs", vec![id.clone()]).await
        && error.args.iter().filter_map(Value::as_str).any(|text| text.contains(NOT_RUNNING))
    {
        terminal::complain(&format!("this agent has no kernel {kernel}; it may have ended"));
        return Ok(Exit::Failed);
    }
    let answer = client.call("destroy_kernel", vec![id]).await?;
    say(json, &answer, &as_lines(&answer));
    Ok(Exit::Done)
}

async fn upload(client: &Client, json: bool, args: UploadArgs) -> Result<Exit, CallError> {
    let data = match tokio::fs::read(&args.file).await {
        Ok(data) => data,
        Err(error) => {
            terminal::complain(&format!("could not read {}: {error}", args.file.display()));
            return Ok(Exit::Failed);
        }
    };
    let own_name = args.file.file_name().map(|n| n.to_string_lossy().into_owned());
    let name = args.name.or(own_name).unwrap_or_default();
    let answer = client
        .call("upload_file", vec![args.kernel.to_string().into(), name.into(), Value::Binary(data)])
        .await?;
    say(json, &answer, "uploaded");
    Ok(Exit::Done)
}

async fn logs(client: &Client, json: bool, args: LogsArgs) -> Result<Exit, CallError> {
    let answer = client.call("get_logs", vec![args.kernel.to_string().into()]).await?;
    let text = value::get(&answer, "logs").and_then(Value::as_str).unwrap_or_default();
    show_logs(json, text, args.tail);
    Ok(Exit::Done)
}

/// Prints a container's log, whoever answered it; of its lines the last `tail`.
pub(super) fn show_logs(json: bool, text: &str, tail: Option<usize>) {
    let lines: Vec<_> = text.lines().collect();
    let skipped = tail.map_or(0, |n| lines.len().saturating_sub(n));
    let text = lines[skipped..].join("\n");
    if text.is_empty() && !json {
        return;
    }
    say(json, &value::map([("logs", text.as_str().into())]), &text);
}
