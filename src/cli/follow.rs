//! A run, followed to its end: its output as it comes, its questions, ^C, and an agent that is away for a while.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::Exit;
use super::away::Absence;
use super::keyboard::{Keyboard, Typed};
use super::terminal::{self, note, say};
use crate::client::{CallError, Client};
use crate::ids::{KernelId, RunId};
use crate::wire::Value;
use crate::wire::value;

/// How often an agent is asked why a run was cut off, and with which pauses: it knows for a second or so.
const WHY_TRIES: usize = 30;
const WHY_EVERY: Duration = Duration::from_millis(100);

/// What shells and Docker show for what SIGKILL ended, as the system does when memory is out.
const KILLED: i64 = 137;

/// Who follows a run, and which.
pub(super) struct Follower<'a> {
    pub(super) client: &'a Client,
    pub(super) json: bool,
    pub(super) kernel: KernelId,
    pub(super) run: RunId,
    pub(super) api_version: u8,
    /// The commands of a batch.
    pub(super) opts: Value,
    /// Answers for the code's questions.
    pub(super) inputs: VecDeque<String>,
}

/// One call.
#[derive(Debug, Clone)]
pub(super) struct Step {
    mode: &'static str,
    text: String,
}

impl Step {
    /// The first of a run.
    pub(super) fn begin(mode: &'static str, code: String) -> Self {
        Self { mode, text: code }
    }

    /// The next one.
    pub(super) fn go_on() -> Self {
        Self { mode: "continue", text: String::new() }
    }

    fn input(text: String) -> Self {
        Self { mode: "input", text }
    }
}

/// How far a person has come in ending a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Nothing was typed.
    None,
    /// ^C came once; the person is asked.
    Asked,
    /// The run is interrupted; it may take its time, or not care.
    Interrupted,
}

/// What came of one call.
enum Outcome {
    Answer(Result<Value, CallError>),
    /// The person has left.
    Left,
}

impl Follower<'_> {
    /// Calls until the run is over.
    pub(super) async fn follow(mut self, first: Step) -> Result<Exit, CallError> {
        let mut keyboard = match Keyboard::new() {
            Ok(keyboard) => keyboard,
            Err(error) => return Ok(listening_failed(&error)),
        };
        let (mut step, mut wish, mut absence) = (first, Wish::None, Absence::default());
        loop {
            let answer = match self.call(&step, &mut keyboard, &mut wish).await {
                Outcome::Answer(Ok(answer)) => answer,
                Outcome::Answer(Err(error)) => {
                    // What was not even begun is not waited for.
                    let may_go_on = step.mode == "continue" || matches!(error, CallError::Lost { .. });
                    if !(error.is_absence() && may_go_on && absence.wait(|text| self.note(text)).await) {
                        return Err(error);
                    }
                    step = Step::go_on();
                    continue;
                }
                Outcome::Left => return Ok(self.left()),
            };
            absence.end(|text| self.note(text));
            self.show(&answer);
            step = match value::get(&answer, "status").and_then(Value::as_str) {
                Some("continued") => Step::go_on(),
                Some("build-finished") => {
                    self.note(&format!("[build finished, exit code {}]", exit_code(&answer)));
                    Step::go_on()
                }
                Some("waiting-input") => match self.input(&mut keyboard, &mut wish).await {
                    Some(step) => step,
                    None => return Ok(self.left()),
                },
                Some(status) => {
                    let code = value::get(&answer, "exitCode").and_then(Value::as_i64);
                    let killed = if code == Some(KILLED) { " (killed, as for want of memory)" } else { "" };
                    self.note(&format!("[{status}, exit code {}{killed}]", exit_code(&answer)));
                    return Ok(if status == "finished" { by_code(code) } else { Exit::Failed });
                }
                None => return Ok(self.cut_off().await),
            };
        }
    }

    /// One call, under which ^C is heard.
    async fn call(&self, step: &Step, keyboard: &mut Keyboard, wish: &mut Wish) -> Outcome {
        let args = vec![
            self.api_version.into(),
            self.kernel.to_string().into(),
            self.run.as_str().into(),
            step.mode.into(),
            step.text.as_str().into(),
            self.opts.clone(),
        ];
        let mut call = std::pin::pin!(self.client.call("execute", args));
        loop {
            let is_asked = *wish == Wish::Asked && Keyboard::is_person();
            let typed = tokio::select! {
                biased;
                answer = &mut call => return Outcome::Answer(answer),
                typed = keyboard.typed(is_asked) => typed,
            };
            match self.wish(*wish, &typed) {
                Some(Wish::Interrupted) => {
                    *wish = Wish::Interrupted;
                    self.interrupt().await;
                }
                Some(next) => *wish = next,
                None => return Outcome::Left,
            }
        }
    }

    /// What a person wants after typing this; `None` to leave the run.
    fn wish(&self, wish: Wish, typed: &Typed) -> Option<Wish> {
        match (wish, typed) {
            (Wish::None, Typed::Interrupt) if Keyboard::is_person() => {
                note(
                    "\n[^C: interrupt the run? y: yes (or ^C again), d: leave it running, anything else: no]",
                );
                Some(Wish::Asked)
            }
            (Wish::None, Typed::Interrupt) => {
                note(&format!(
                    "[^C again interrupts the run; it goes on, and can be followed: {}]",
                    self.how_to_follow()
                ));
                Some(Wish::Asked)
            }
            (Wish::Asked, Typed::Interrupt) => Some(Wish::Interrupted),
            (Wish::Asked, Typed::Line(line)) => match line.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => Some(Wish::Interrupted),
                "d" => None,
                _ => {
                    note("[the run goes on]");
                    Some(Wish::None)
                }
            },
            // It did not care.
            (Wish::Interrupted, Typed::Interrupt) => None,
            (wish, Typed::Line(_) | Typed::End) => Some(wish),
        }
    }

    async fn interrupt(&self) {
        self.note("[interrupting the run; ^C again leaves it]");
        if let Err(error) = self.client.call("interrupt_kernel", vec![self.kernel.to_string().into()]).await {
            terminal::complain(&format!("could not interrupt the run: {error}"));
        }
    }

    /// The answer to a question: from the command line, then what a person types. Where nothing comes any more the run, which
    /// would wait for ever, is interrupted. `None` to leave the run.
    async fn input(&mut self, keyboard: &mut Keyboard, wish: &mut Wish) -> Option<Step> {
        if let Some(input) = self.inputs.pop_front() {
            self.note(&format!("[input: {input}]"));
            return Some(Step::input(input));
        }
        loop {
            match keyboard.typed(true).await {
                Typed::Line(line) => return Some(Step::input(line)),
                Typed::End if *wish == Wish::Interrupted => {
                    note("[the run asks for input again, and there is none]");
                    return None;
                }
                Typed::End => {
                    note("[standard input has ended]");
                    *wish = Wish::Interrupted;
                }
                typed @ Typed::Interrupt => *wish = self.wish(*wish, &typed)?,
            }
            if *wish == Wish::Interrupted {
                self.interrupt().await;
                // Code that waits for a line hears of nothing before it has one.
                return Some(Step::input(String::new()));
            }
        }
    }

    /// The kernel is gone or new under the run; the agent may say why.
    async fn cut_off(&self) -> Exit {
        let args = vec![
            self.api_version.into(),
            self.kernel.to_string().into(),
            self.run.as_str().into(),
            "continue".into(),
            "".into(),
            self.opts.clone(),
        ];
        // Docker tells the agent why a moment later.
        for _ in 0..WHY_TRIES {
            match self.client.call("execute", args.clone()).await {
                Err(error @ CallError::Remote(_)) => {
                    note(&format!("[cut off: {error}]"));
                    return Exit::Failed;
                }
                Err(_) => break,
                Ok(_) => sleep(WHY_EVERY).await,
            }
        }
        note("[cut off: the kernel was restarted or destroyed]");
        Exit::Failed
    }

    fn left(&self) -> Exit {
        note(&format!("[left; the run may go on: {}]", self.how_to_follow()));
        Exit::Left
    }

    fn how_to_follow(&self) -> String {
        format!("backendai-agent attach {} {}", self.kernel, self.run)
    }

    /// Answers in JSON say it themselves.
    fn note(&self, text: &str) {
        if !self.json {
            note(text);
        }
    }

    fn show(&self, answer: &Value) {
        if self.json { say(true, answer, "") } else { print_output(answer) }
    }
}

fn listening_failed(error: &io::Error) -> Exit {
    terminal::complain(&format!("could not listen for ^C: {error}"));
    Exit::Failed
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

fn print_output(answer: &Value) {
    let text = |key: &str| value::get(answer, key).and_then(Value::as_str).unwrap_or_default().to_owned();
    terminal::print(&text("stdout"));
    terminal::print_beside(&text("stderr"));
    for item in value::get(answer, "console").and_then(Value::as_array).into_iter().flatten() {
        let Some([kind, data]) = item.as_array().map(Vec::as_slice) else { continue };
        match (kind.as_str(), data.as_str()) {
            (Some("stdout"), Some(text)) => terminal::print(text),
            (Some("stderr"), Some(text)) => terminal::print_beside(text),
            (Some(kind), _) => terminal::print(&format!("[{kind}] {data}\n")),
            _ => {}
        }
    }
    for file in value::get(answer, "files").and_then(Value::as_array).into_iter().flatten() {
        let part = |key| value::get(file, key).and_then(Value::as_str).unwrap_or_default();
        terminal::print(&format!("[file {} {}]\n", part("name"), part("url")));
    }
}
