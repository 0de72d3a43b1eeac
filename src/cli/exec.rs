//! `exec` and `attach`: a run, from its first call or from where it is, to its end.

use super::follow::{Follower, Step};
use super::terminal::{self, note, standard_input};
use super::{AttachArgs, ExecArgs, ExecMode, Exit};
use crate::client::{CallError, Client};
use crate::ids::RunId;
use crate::wire::value;

/// Begins a run and follows it to its end.
pub(super) async fn exec(client: &Client, json: bool, args: ExecArgs) -> Result<Exit, CallError> {
    let code = match args.code.as_deref() {
        Some("-") => match standard_input().await {
            Ok(code) => code,
            Err(error) => {
                terminal::complain(&format!("could not read standard input: {error}"));
                return Ok(Exit::Failed);
            }
        },
        other => other.unwrap_or_default().to_owned(),
    };
    let opts = value::map([
        ("build", value::opt(args.build.as_deref())),
        ("exec", value::opt(args.exec.as_deref())),
    ]);
    let first = match args.mode {
        ExecMode::Query => Step::begin("query", code),
        ExecMode::Batch => Step::begin("batch", code),
    };
    let follower = Follower {
        client,
        json,
        kernel: args.kernel,
        run: args.run_id.unwrap_or_else(RunId::random),
        api_version: args.api_version,
        opts,
        inputs: args.inputs.into(),
    };
    if !json {
        note(&format!("[run {}]", follower.run));
    }
    follower.follow(first).await
}

/// Follows a run that goes on.
pub(super) async fn attach(client: &Client, json: bool, args: AttachArgs) -> Result<Exit, CallError> {
    let follower = Follower {
        client,
        json,
        kernel: args.kernel,
        run: args.run,
        api_version: args.api_version,
        opts: value::map([]),
        inputs: args.inputs.into(),
    };
    follower.follow(Step::go_on()).await
}
