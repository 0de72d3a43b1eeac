//! Kernels as the manager sees them.

use std::time::SystemTime;

use rmpv::Value;
use serde_json::{Value as Json, json};

use super::msgpack::from_json;
use super::{RemoteError, Rpc, new_id, secs};

/// The config that the manager sends for a small session.
pub(crate) fn config(lang: &str) -> Json {
    json!({
        "lang": lang,
        "limits": { "mem_slot": 256, "cpu_slot": 1.0, "gpu_slot": 0.0 },
        "mounts": [],
        "environ": {},
    })
}

/// A kernel that was created.
pub(crate) struct Kernel {
    pub(crate) id: String,
    /// What it was created with.
    pub(crate) config: Json,
    /// What `create_kernel` answered.
    pub(crate) created: Json,
    /// When that answer was here.
    pub(crate) created_at: SystemTime,
    rpc: Rpc,
}

/// A run followed to its end.
#[derive(Debug)]
pub(crate) struct Run {
    /// Every answer, in order.
    pub(crate) answers: Vec<Json>,
}

impl Run {
    /// The last answer.
    pub(crate) fn last(&self) -> &Json {
        self.answers.last().unwrap()
    }

    /// Everything of one kind (`stdout`, `stderr`) that all answers held.
    pub(crate) fn text(&self, kind: &str) -> String {
        let records = self.answers.iter().flat_map(|answer| answer["console"].as_array().unwrap());
        records.filter(|record| record[0] == kind).map(|record| record[1].as_str().unwrap()).collect()
    }

    /// Standard output.
    pub(crate) fn stdout(&self) -> String {
        self.text("stdout")
    }

    /// Standard error.
    pub(crate) fn stderr(&self) -> String {
        self.text("stderr")
    }

    /// The status of each answer.
    pub(crate) fn statuses(&self) -> Vec<&str> {
        self.answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect()
    }
}

impl Kernel {
    pub(super) fn new(id: String, config: Json, created: Json, rpc: Rpc) -> Self {
        Self { id, config, created, created_at: SystemTime::now(), rpc }
    }

    /// The id of its first container.
    pub(crate) fn container(&self) -> &str {
        self.created["container_id"].as_str().unwrap()
    }

    /// One call of a method whose first parameter is the kernel's id.
    pub(crate) async fn call(&self, method: &str, rest: Json) -> Result<Json, RemoteError> {
        let mut args = vec![json!(self.id)];
        args.extend(rest.as_array().unwrap().iter().cloned());
        self.rpc.call(method, args.into(), secs(10)).await
    }

    /// One `execute` call with API version 2.
    pub(crate) async fn execute(
        &self,
        run: &str,
        mode: &str,
        code: &str,
        opts: Json,
    ) -> Result<Json, RemoteError> {
        self.execute_as(2, json!(run), mode, json!(code), opts).await
    }

    /// One `execute` call, everything free.
    pub(crate) async fn execute_as(
        &self,
        api: i64,
        run: Json,
        mode: &str,
        code: Json,
        opts: Json,
    ) -> Result<Json, RemoteError> {
        // A run may have to wait for the one before it.
        self.rpc.call("execute", json!([api, self.id, run, mode, code, opts]), secs(20)).await
    }

    /// Runs code in query mode and follows it to its end.
    pub(crate) async fn run(&self, code: &str) -> Run {
        self.run_with("query", code, json!({}), &[]).await
    }

    /// Starts a run and follows it: `continue` while it goes on, the next of `inputs` when it asks.
    pub(crate) async fn run_with(&self, mode: &str, code: &str, opts: Json, inputs: &[&str]) -> Run {
        let run = new_id();
        let mut inputs = inputs.iter();
        let mut answers = vec![self.execute(&run, mode, code, opts).await.expect("execute")];
        while let Some(last) = answers.last().filter(|last| last["status"] != "finished") {
            let next = match last["status"].as_str() {
                Some("continued" | "build-finished") => self.execute(&run, "continue", "", json!({})),
                Some("waiting-input") => {
                    let text = inputs.next().expect("the run asks for more input");
                    self.execute(&run, "input", text, json!({}))
                }
                _ => panic!("the run did not go on: {last}"),
            };
            answers.push(next.await.expect("execute"));
            assert!(answers.len() < 30, "the run has no end: {answers:?}");
        }
        Run { answers }
    }

    /// The runner answers: its start is over.
    pub(crate) async fn warm(self) -> Self {
        self.run("").await;
        self
    }

    /// `upload_file`.
    pub(crate) async fn upload(&self, name: &str, data: &[u8]) -> Result<Value, RemoteError> {
        let args = Value::Array(vec![self.id.as_str().into(), name.into(), Value::Binary(data.to_vec())]);
        self.rpc.call_with("upload_file", args, from_json(&json!({})), secs(10)).await
    }

    /// `destroy_kernel`, and the statistics it answered.
    pub(crate) async fn destroy(&self) -> Json {
        self.call("destroy_kernel", json!([])).await.expect("destroy_kernel")
    }
}
